"""From measurements to images: `restore`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor

from ddim_ode.grids import Grid
from ddim_ode.inverse.foreign import as_operator
from ddim_ode.inverse.measured import MEASUREMENT, with_measurement
from ddim_ode.inverse.measurements import LinearOperator, Measurement, MeasurementError, check_measurement
from ddim_ode.inverse.methods import MomentMatching, PosteriorSampling, Projected, pigdm
from ddim_ode.inverse.resampling import Resampling
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.guided import with_guidance
from ddim_ode.planning.inputs import Labels, asked, check_callback, check_model, check_seeds, check_told, seeded_noise
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback
from ddim_ode.planning.tuned_files import resolved
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import Method, Solution
from ddim_ode.support.checks import choice

Made = TypeVar("Made")

#: how a measurement enters: (model, operator, noise_std, **settings) -> a model that agrees with it
AROUND_MODEL: Mapping[str, Callable[..., Model]] = {
    "mmps": MomentMatching,
    "pigdm": pigdm,
    "ddnm": Projected,
    "dps": PosteriorSampling,
}
METHODS = (*AROUND_MODEL, "repaint")


@dataclass(frozen=True)
class Restoration(Solution):
    """Images, what they cost, and how far they are from what was measured.

    residual: (B,) float64, RMS of y - A x over the measured values, in data units: of a right answer it is noise_std.
    """

    residual: Tensor = field(kw_only=True)


def restore(
    model: Model,
    y: Tensor,
    operator: Measurement | object,
    *,
    method: str = "mmps",
    solver: str | Method = "dpmpp_2m",
    nfe: int | None = None,
    tol: float | None = None,
    max_nfe: int | None = None,
    noise_std: float = 0.0,
    labels: Labels = None,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    seeds: Iterable[int] | None = None,
    grid: Grid | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    callback: Callback | None = None,
    **settings: Any,
) -> Restoration:
    """Draw images of which y = A x + noise_std n was measured, n standard normal.

    Args:
        model: a `Denoiser`, or something around one. Data are images in [-1, 1], and so y is in these units.
        y: (B, *measured), floats; of a `Mask` images with anything at the unknown pixels.
        operator: a linear one, such as `Mask(known)`, `BoxDownsampling(2)`, `Blur.gaussian(1.5)` or `Grey()`, or of
            deepinv's kind; or, for "mmps" and "dps", any function as `Differentiable(function)`.
        method: "mmps" (moment matching, the most accurate of them), "pigdm", "ddnm" and "dps" change the model's
            predictions, for any solver; "repaint", for masks, goes back and forth. See `ddim_ode.inverse.METHODS`.
        solver: a name in `ddim_ode.METHODS`, or a `Method`. Of few evaluations "ddim" makes smoother images, nearer to
            the truth in the mean and nearer to y than its noise.
        nfe: the most network evaluations an image may cost (default 20). A prediction of "mmps", "pigdm" or "dps" costs
            two, a pass and a vector-Jacobian product; of the others one.
        tol, max_nfe: of an adaptive solver, as in `sample`; "repaint" takes none.
        noise_std: standard deviation of the noise in y, in data units. With 0 the answer agrees with y to rounding, and
            the known pixels of a mask bit for bit.
        labels, conditions, null: what the model is told of each image, and what no condition is, as in `sample`.
        guidance: scale of classifier-free guidance inside the method; any but 1 doubles the cost.
        guidance_range: (low, high) in sigma; outside it there is no guidance.
        seeds: one int an image (default: 0..B-1). Image i is a function of y[i], its seed and what it is told alone.
        grid, dtype, batch_size, callback: as in `sample`.
        settings: of the method: prior_std of all but "repaint"; highest, the sigma above which "pigdm" is "ddnm" (3);
            scale of "dps" (0.03); times that "repaint" goes each interval (4).

    Raises:
        MeasurementError: a measurement, a noise level or a setting that cannot be, or an operator that does not fit.
        ArgumentError: an argument of another kind.
        SampleError and others: as `sample`.
    """
    check_model(model)
    check_callback(callback)
    operator = as_operator(operator)
    y = check_measurement(operator, y, model.shape).detach()
    numbers = tuple(range(len(y))) if seeds is None else check_seeds(seeds)
    if len(numbers) != len(y):
        raise MeasurementError(f"{len(numbers)} seeds are given for {len(y)} measurements; give one each")
    if MEASUREMENT in (conditions or {}):
        raise MeasurementError(f"conditions[{MEASUREMENT!r}] is what y is told as; give the condition another name")
    options = SolveOptions(
        method=resolved(model, solver),
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        guidance=guidance,
        guidance_range=guidance_range,
        grid=grid,
        dtype=dtype,
        batch_size=batch_size,
    )
    inside, options = with_guidance(model, options), replace(options, guidance=1.0, guidance_range=None)
    told = check_told(inside, asked(inside, labels, conditions, null), len(y))
    y = y.to(model.device, dtype)
    if choice("method", method, METHODS, MeasurementError) == "repaint":
        way = _made(Resampling, operator, noise_std, method=method, settings=settings)
        noise = seeded_noise(numbers, model.shape).to(y)
        found = way.run(inside, options, y, noise, seeds=numbers, told=told, callback=callback)
    else:
        around = _made(AROUND_MODEL[method], inside, operator, noise_std, method=method, settings=settings)
        found = sample_with(around, options, seeds=numbers, labels=with_measurement(told, y), callback=callback)
    agreed = operator.agree(found.x, y) if not noise_std and isinstance(operator, LinearOperator) else found.x
    return Restoration(**vars(found) | {"x": agreed}, residual=operator.residual(agreed, y))


def _made(make: Callable[..., Made], *given: Any, method: str, settings: Mapping[str, Any]) -> Made:
    """What a method is made of, with its settings. Raises MeasurementError for one that it has not."""
    known = list(signature(make).parameters)[len(given) :]
    for name in settings:
        if name not in known:
            raise MeasurementError(f"{name} is no setting of {method!r}; it has {', '.join(known)}")
    return make(*given, **settings)
