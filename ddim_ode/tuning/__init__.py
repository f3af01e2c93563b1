"""The best method for a model in hand: `tune`."""

from ddim_ode.tuning.request import tune
from ddim_ode.tuning.task import TuneError, TuneProgress

__all__ = ["TuneError", "TuneProgress", "tune"]
