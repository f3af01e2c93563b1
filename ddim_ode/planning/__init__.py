"""From what was asked for to what a solver needs: options, a budget or a tolerance, and a plan for many batches."""
