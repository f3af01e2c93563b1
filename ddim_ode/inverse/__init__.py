"""Inverse problems: images of which little was measured, restored by a model that knows what images look like."""

from ddim_ode.inverse.foreign import Physics, as_operator
from ddim_ode.inverse.measured import MEASUREMENT, Measured
from ddim_ode.inverse.measurements import Differentiable, LinearOperator, Measurement, MeasurementError
from ddim_ode.inverse.methods import MomentMatching, PosteriorSampling, Projected, PseudoInverse, pigdm
from ddim_ode.inverse.operators import Blur, BoxDownsampling, Grey, Mask
from ddim_ode.inverse.resampling import Resampling
from ddim_ode.inverse.restoring import AROUND_MODEL, METHODS, Restoration, restore

__all__ = [
    "AROUND_MODEL",
    "MEASUREMENT",
    "METHODS",
    "Blur",
    "BoxDownsampling",
    "Differentiable",
    "Grey",
    "LinearOperator",
    "Mask",
    "Measured",
    "Measurement",
    "MeasurementError",
    "MomentMatching",
    "Physics",
    "PosteriorSampling",
    "Projected",
    "PseudoInverse",
    "Resampling",
    "Restoration",
    "as_operator",
    "pigdm",
    "restore",
]
