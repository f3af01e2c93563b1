"""How strongly to guide: a number, or a function of sigma (shapes of it: Wang et al. 2024, arXiv:2404.13040)."""

import math
from collections.abc import Callable
from typing import Union

import torch
from torch import Tensor

from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.models.guidance.around import GuidanceError
from ddim_ode.support.checks import shown
from ddim_ode.support.scalars import number
from ddim_ode.support.waiting import sent

LEAST, MOST = 1e-4, 1e6  # sigmas that a function is asked at, of models without ends
Scale = Union[float, Callable[[float], float]]  # noqa: UP007  # at run time too, in Python 3.10


def checked_scale(scale: Scale) -> Scale:
    """A scale as a number of Python, or the function. Raises GuidanceError for a number that is not finite."""
    if callable(scale):
        return scale
    if not math.isfinite(found := number(scale)):
        raise GuidanceError(f"guidance={shown(scale)} is not finite; use a number such as 2.0")
    return scale if isinstance(scale, int | float) else found  # it was one of NumPy's or torch's


def scale_at(scale: Scale, sigma: float) -> float:
    """The scale at one sigma. Raises GuidanceError where a function gives no finite number."""
    if not callable(scale):
        return scale
    if not math.isfinite(found := number(value := scale(sigma))):
        raise GuidanceError(f"the guidance at sigma={sigma:.6g} is {shown(value)}; give a function to finite numbers")
    return found


def scales_at(scale: Scale, sigma: Tensor) -> float | Tensor:
    """The scale at sigma () or (B,): one number for all samples, or (B,) float64 of a function."""
    if not callable(scale):
        return scale
    if not sigma.ndim:
        return scale_at(scale, float(sigma))
    return torch.tensor([scale_at(scale, s) for s in sigma.tolist()], dtype=torch.float64)


def facts_of(scale: Scale, model: Model) -> object:
    """What tells a scale from another: the number, or a function's values over the model's range of sigma."""
    if not callable(scale):
        return scale
    low, high = math.log(max(model.sigma_min, LEAST)), math.log(min(model.sigma_max, MOST))
    return tuple(f"{scale_at(scale, math.exp(low + (high - low) * n / 199)):.9e}" for n in range(200))


def words(scale: Scale) -> str:
    """A scale in a message."""
    return "a function of sigma" if callable(scale) else f"{scale:g}"


def per_sample(value: float | Tensor, like: Tensor) -> float | Tensor:
    """A number for all samples of like (B, ...), or (B,), so that it multiplies them."""
    if not isinstance(value, Tensor):
        return value
    return sent(value, like.device, like.dtype).reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value.item()


def extrapolated(start: Prediction, end: Prediction, scale: float | Tensor) -> Prediction:
    """start + scale (end - start), exact at both ends, at the cost of both; scale is one number, or (B,)."""
    weight = per_sample(scale, start.data)
    return Prediction(
        data=torch.lerp(start.data, end.data, weight),
        noise=torch.lerp(start.noise, end.noise, weight),
        evaluations=start.evaluations + end.evaluations,
    )


def with_data(prediction: Prediction, change: Tensor, sigma: Tensor) -> Prediction:
    """The prediction with its data changed, and its noise so that xbar = data + sigma noise stays what it is.

    At sigma = 0, where data is xbar whatever the noise, the noise is left.
    """
    above = torch.where(sigma > 0, sigma, math.inf)
    return prediction._replace(
        data=prediction.data + change, noise=prediction.noise - change / per_sample(above, change)
    )


def tilted(prediction: Prediction, gradient: Tensor, sigma: Tensor, scale: float | Tensor) -> Prediction:
    """The prediction for the density times exp(-scale loss), by the loss's gradient in xbar:

        data - scale sigma^2 gradient,        noise + scale sigma gradient

    The score of a product of densities is the sum of their scores (Song et al. 2021, Eq. 14).
    """
    sigmas = per_sample(sigma, gradient)
    step = sigmas * per_sample(scale, gradient) * gradient
    return prediction._replace(data=prediction.data - sigmas * step, noise=prediction.noise + step)
