"""What solvers solve: the probability flow, alone, with noise, with a density or with an adjoint."""
