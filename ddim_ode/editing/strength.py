"""SDEdit (Meng et al. 2022): an image is noised up to some sigma and sampled down from there.

    xbar = x + sigma eps,        then the flow from sigma to 0

What is smaller than the noise is drawn anew, what is larger stays. With eta = 0 the way down is the probability flow,
with eta > 0 the SDE of the paper.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.grids import Final, GridError
from ddim_ode.inversion import as_floats
from ddim_ode.models.conditions import Conditions, Told, tensors_of
from ddim_ode.models.denoiser import Model, Prediction
from ddim_ode.models.guidance import Around
from ddim_ode.paths import Path, f64
from ddim_ode.planning.guided import with_guidance
from ddim_ode.planning.inputs import (
    Labels,
    SampleError,
    asked,
    check_callback,
    check_model,
    check_seeds,
    check_size,
    seeded_noise,
)
from ddim_ode.planning.options import AUTO, DEFAULT_NFE, SolveOptions
from ddim_ode.planning.plan import CALIBRATION, AdaptivePlan, Callback, Plan, check_measured, prepare
from ddim_ode.planning.profile import Profile
from ddim_ode.planning.tuned_files import resolved
from ddim_ode.sampling import sample
from ddim_ode.solvers import Method, Outcome, Solution, Watch
from ddim_ode.solvers.eta import EtaLike
from ddim_ode.support.checks import shown
from ddim_ode.support.scalars import number


class EditError(DDIMError):
    """An edit that cannot be; the message gives the value, the rule and the remedy."""


def sigma_of_strength(model: Model, strength: float) -> float:
    """The noise of an edit's strength: atan sigma, that share of the way from the model's smallest to its largest.

    atan sigma is the angle of (a, b) on any path, 0 for an image and pi/2 for noise. So 0.5 is sigma = 1, as much noise
    as image, for every model that reaches far beyond it, whatever its schedule; 0.2 is 0.32, and 0.8 is 3.1.

    Raises EditError for a strength outside (0, 1), where there would be nothing to do, or nothing left of the image.
    """
    share = number(strength)
    if not 0 < share < 1:
        raise EditError(f"strength={shown(strength)} is no share of the way to noise; give a number between 0 and 1")
    low, high = math.atan(model.sigma_min), math.atan(model.sigma_max)
    return math.tan(low + share * (high - low))


def sdedit(
    model: Model,
    x: Tensor,
    strength: float | None = None,
    method: str | Method = "adams3",
    nfe: int | None = None,
    seeds: Iterable[int] | None = None,
    *,
    sigma: float | None = None,
    labels: Labels = None,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    eta: EtaLike = None,
    eta_range: tuple[float, float] | None = None,
    grid: str | None = None,
    final: Final = "denoise",
    tol: float | None = None,
    max_nfe: int | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Draw images that have the coarse structure of others.

    Args:
        model: a `Denoiser`, or something around one.
        x: (B, *shape) images in [-1, 1], or their bytes as uint8; a single one may be edited by many seeds.
        strength: between 0 and 1, see `sigma_of_strength`.
        sigma: the noise itself, instead, within the model's range.
        method, nfe: as in `sample`, the way down from there: all of the budget is spent on it. (The tolerance of an
            adaptive method is found on samples of the model.)
        seeds: one int a sample, of its noise (default: 0..B-1), before the way and on it.
        grid: a name in `GRIDS` (default: the method's), laid out between this sigma and the model's smallest.
        labels, conditions, null: as in `sample`, each for one sample.
        guidance, guidance_range, eta, eta_range, final, tol, max_nfe, dtype, batch_size, callback: as in `sample`.

    Returns a `Solution`. Sample i depends on its image and its seed alone, as in `sample`.

    Raises:
        EditError: a strength outside (0, 1), a sigma outside the model's range, neither or both; a model whose range
            begins at 0, where no step ends.
        GridError: a grid of numbers, or "auto".
        SampleError and others: as `sample`.
    """
    options = SolveOptions(
        method=resolved(model, method),
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        grid=grid,
        final=final,
        guidance=guidance,
        guidance_range=guidance_range,
        eta=eta,
        eta_range=eta_range,
        dtype=dtype,
        batch_size=batch_size,
    )
    told = asked(model, labels, conditions, null)
    return sdedit_with(model, x, options, strength, sigma=sigma, seeds=seeds, labels=told, callback=callback)


def sdedit_with(
    model: Model,
    x: Tensor,
    options: SolveOptions,
    strength: float | None = None,
    *,
    sigma: float | None = None,
    seeds: Iterable[int] | None = None,
    labels: Labels | Conditions = None,
    callback: Callback | None = None,
) -> Solution:
    """Edit as `sdedit` does, with the options in one value."""
    check_callback(callback)
    images = as_floats(model, x)
    numbers = check_seeds(range(len(images)) if seeds is None else seeds)
    if len(images) not in (1, len(numbers)):
        raise SampleError(f"{len(numbers)} seeds are too many or too few for {len(images)} images; give one each")
    begin = noise_for(model, strength, sigma)
    _check_way(options)
    check_size(model, len(numbers), options.dtype, options.batch_size)
    plan = _plan(model, options, begin, labels, numbers)

    def go(rows: slice, watch: Watch | None) -> Outcome:
        noise = seeded_noise(numbers[rows], model.shape).to(options.dtype)
        image = (images if len(images) == 1 else images[rows]).to(options.dtype)
        return plan.run(plan.flow(rows), (image + begin * noise).to(plan.model.device), watch).bare(options.dtype)

    return plan.solution(plan.each(len(numbers), go, callback))


def settled(
    model: Model, options: SolveOptions, sigma: float, labels: Labels | Conditions, seeds: Iterable[int]
) -> SolveOptions:
    """Options for edits from a sigma that are made in several runs, by which all get what one run would give them.

    An adaptive method's budget becomes the tolerance that one run finds for it, which depends on how many there are.

    labels, seeds: of all edits. Raises as `sdedit`.
    """
    plan = _plan(model, options, sigma, labels, check_seeds(seeds))
    return options if options.nfe is None or plan.tol is None else replace(options, nfe=None, tol=plan.tol)


def _plan(
    model: Model, options: SolveOptions, begin: float, labels: Labels | Conditions, seeds: tuple[int, ...]
) -> Plan:
    """The way down from sigma = begin, on which the budget is spent."""
    own = replace(options, nfe=None) if options.row.adaptive else options
    plan = prepare(Below(model, begin), own, len(seeds), labels=labels, seeds=seeds)
    plan.sigmas[0] = begin  # some grids begin a little below their path's largest
    plan = replace(plan, model=with_guidance(model, options))  # some methods look above where they are
    if isinstance(plan, AdaptivePlan) and options.nfe is not None:
        if tensors_of(plan.labels):
            check_measured(options)
        return _within(options.nfe, plan, begin)
    return plan


def _within(nfe: int, plan: AdaptivePlan, begin: float) -> AdaptivePlan:
    """The plan with the tolerance of a budget, found on images of the model's own, so that those to edit do not matter
    to each other.
    """
    labelled = plan.labels is not None
    count = CALIBRATION if plan.method.per_sample else min(plan.batch_size, len(plan.seeds))
    labels = torch.arange(count) % plan.model.num_classes if labelled else None
    images = sample(plan.model, "adams3", DEFAULT_NFE, range(count), labels=labels, dtype=plan.dtype).x
    noise = seeded_noise(range(count, 2 * count), plan.model.shape).to(images)
    return plan.with_budget(nfe, labelled, count, images + begin * noise)


def noise_for(model: Model, strength: float | None, sigma: float | None) -> float:
    """The sigma of an edit that is said by a strength, or directly. Raises EditError, as `sdedit` does."""
    check_model(model)
    if (strength is None) == (sigma is None):
        both = "contradict each other" if sigma is not None else "are both missing"
        raise EditError(f"strength and sigma {both}; give one of them, such as strength=0.5")
    low, high = model.sigma_min, model.sigma_max
    if not low > 0:
        raise EditError(
            f"an edit goes down to the model's smallest sigma, and this one's is {low:g}; give its path ends, as in"
            f" {type(model.path).__name__}(sigma_min=0.001, sigma_max=1000.0)"
        )
    if strength is not None:
        return sigma_of_strength(model, strength)
    if not (low < number(sigma) <= high and math.isfinite(number(sigma))):
        raise EditError(
            f"sigma={shown(sigma)} is no noise to begin with; this model takes a number above {low:g}, to {high:g}"
        )
    return number(sigma)


def _check_way(options: SolveOptions) -> None:
    """Raise where the options say another way than down from the sigma of an edit."""
    if options.row.own_grids:
        raise SampleError(f"{options.name} begins with noise, not in the middle; use a method such as 'adams3'")
    if isinstance(options.grid, tuple | Profile) or options.grid == AUTO:
        raise GridError("an edit's grid begins at its sigma; give the name of one, but for 'auto', or leave it out")


@dataclass(frozen=True)
class PathBelow(Path):
    """The part of another path up to `sigma_max`; of its timesteps those below it."""

    whole: Path = field(kw_only=True)

    @property
    def num_timesteps(self) -> int:
        return math.floor(float(self.whole.u(f64(self.sigma_max)))) + 1 if self.whole.num_timesteps else 0

    def scale(self, sigma: Tensor) -> Tensor:
        return self.whole.scale(sigma)

    def sigma(self, u: Tensor) -> Tensor:
        return self.whole.sigma(u)

    def u(self, sigma: Tensor) -> Tensor:
        return self.whole.u(sigma)

    def slopes(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self.whole.slopes(u)

    def prior_std(self, sigma: Tensor) -> Tensor:
        return self.whole.prior_std(sigma)


@dataclass(frozen=True)
class Below(Around):
    """A model whose range ends at `top`, so that a plan for it begins there."""

    top: float

    @property
    def path(self) -> Path:
        return PathBelow(self.model.sigma_min, self.top, whole=self.model.path)

    @property
    def sigma_max(self) -> float:
        return self.top

    def evaluations(self, sigma: float) -> int:
        return self.model.evaluations(sigma)

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        return self.model(xbar, sigma, labels)
