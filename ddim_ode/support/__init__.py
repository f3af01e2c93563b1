"""What every part of the library needs and what knows nothing of diffusion."""
