"""Networks and the paths they were trained on, as denoisers: (xbar, sigma) to an image and a noise."""
