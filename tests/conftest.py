"""Settings that must hold before torch is imported. Nothing is seeded here: a test passes its own seed."""

import os

# Idle OpenMP threads that spin slow torch several-fold as soon as another process is busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import settings

# The same examples on every run, and no time limit an example could miss by chance.
settings.register_profile("ddim_ode", deadline=None, derandomize=True)
settings.load_profile("ddim_ode")
