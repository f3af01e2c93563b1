"""Sampling: from a seed, or a state, to an image."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ddim_ode.gradients import check_differentiable, runner
from ddim_ode.grids import Final, Grid
from ddim_ode.models.conditions import Conditions
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.inputs import (
    Labels,
    SampleError,
    asked,
    check_callback,
    check_model,
    check_reach,
    check_seeds,
    check_size,
    check_start,
    seeded_noise,
)
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback, prepare
from ddim_ode.planning.tuned_files import resolved
from ddim_ode.solvers import Method, Outcome, Solution, Watch
from ddim_ode.solvers.eta import EtaLike


def sample(
    model: Model,
    method: str | Method = "ddim",
    nfe: int | None = None,
    seeds: Iterable[int] | None = None,
    *,
    labels: Labels = None,
    conditions: Mapping[str, Tensor] | None = None,
    null: Mapping[str, Tensor] | None = None,
    guidance: float = 1.0,
    guidance_range: tuple[float, float] | None = None,
    eta: EtaLike = None,
    eta_range: tuple[float, float] | None = None,
    grid: Grid | None = None,
    final: Final = "denoise",
    tol: float | None = None,
    max_nfe: int | None = None,
    first_step: float | None = None,
    noise: Tensor | None = None,
    start: Tensor | None = None,
    differentiable: str | None = None,
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Draw samples. Sample i depends on its seed alone, not on its companions, unless `METHODS[method].per_sample` is
    False. (An adaptive step that is decided within rounding may go the other way in a batch of another size.)

    Args:
        model: a `Denoiser`, or something around one.
        method: a name in `METHODS`, or a `Method` such as `adams(3, path="data", basis="log_snr")` makes, or "tuned",
            the one in the file tuned.json beside the model, see `load_tuned`.
        nfe: the most network evaluations a sample may cost; the number of steps follows from it (default 20). Of the
            grids of a tuned method the largest within it is taken (default: the largest).
            With an explicit grid leave it out: the grid decides. An adaptive method first looks for the tolerance
            whose mean NFE is at most this, on 8 samples that are not counted, and reports it.
        seeds: one int a sample (default: 0); its noise is drawn on the CPU from its own generator.
        labels: (B,) or one int for all, in 0..num_classes-1; None is the null class.
        conditions: tensors (B, ...), one row a sample, that the network takes as keywords: net(x, t[, labels], **them).
        null: what stands for no condition under guidance, (...) for all samples or (B, ...), by the same names. A
            condition without one is told to both passes of guidance alike.
        guidance: scale of classifier-free guidance; any but 1 costs two evaluations a prediction.
        guidance_range: (low, high) in sigma; outside it there is no guidance, and a prediction costs one.
        grid: a name in `GRIDS` (default: the method's), or an explicit decreasing sequence of sigmas
            whose last may be 0. For an adaptive method leave it out, or give the first and the last sigma.
        final: "denoise" ends with one evaluation that returns the predicted image; "sigma_min" stops at
            the model's smallest sigma. An explicit grid says so itself.
        noise: (B, *shape) standard normal latents, floats of any precision, instead of seeds.
        start: (B, *shape) states xbar at the grid's first sigma, floats likewise, instead of seeds or noise.
        dtype: of the state, float32 or float64. A network with parameters computes in its own precision.
        batch_size: samples integrated at once (default: up to 128).
        callback: called with a `Progress` after every step.
        tol: the error to accept with an adaptive method: RMS over a sample in data units (default 0.01).
        max_nfe: where an adaptive method gives up on a sample (default 1000), as it does where its steps become too
            small to go on: `converged` is False there, and one DDIM step takes it from where it is to the end.
        first_step: of an adaptive method, in the time sigma / (1 + sigma) (default: follows from tol).
        differentiable: "direct", "adjoint" or "reversible": x keeps a graph to noise or start and to the network's
            parameters, see `ddim_ode.gradients`. What a backward pass evaluates is not in nfe.
        eta: scale of the noise on the way, a number, a function of sigma, or "ddpm_large", DDPM's sigma-hat (default:
            0, and 1 for the sde methods). With one-step methods it is that of DDIM's kernel, 0 to 1: `ddim` with eta=1
            is DDPM. Sample i's noise is a Brownian path of its seed, or with noise or start of its index, whatever the
            steps and the method.
        eta_range: (low, high) in sigma; a step that begins outside is deterministic.

    Returns:
        A `Solution`; its x is on the model's device.

    Raises:
        SampleError, MethodError, GridError, GuidanceError, GradientError, EtaError, BrownianError, ConditionError:
            arguments that cannot be; a method that was tuned to another model, or to other guidance.
        TunedError: tuned.json is not there, or damaged.
        NonFiniteError: the network returned NaN or infinity.
        DivergedError: the solver diverged.
    """
    options = SolveOptions(
        method=resolved(model, method),
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        first_step=first_step,
        grid=grid,
        final=final,
        guidance=guidance,
        guidance_range=guidance_range,
        eta=eta,
        eta_range=eta_range,
        dtype=dtype,
        batch_size=batch_size,
    )
    return sample_with(
        model,
        options,
        seeds=seeds,
        labels=asked(model, labels, conditions, null),
        noise=noise,
        start=start,
        differentiable=differentiable,
        callback=callback,
    )


def sample_with(
    model: Model,
    options: SolveOptions,
    *,
    seeds: Iterable[int] | None = None,
    labels: Labels | Conditions = None,
    noise: Tensor | None = None,
    start: Tensor | None = None,
    differentiable: str | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Draw samples as `sample` does, with the options in one value."""
    check_model(model)
    check_callback(callback)
    check_differentiable(options.row, options.name, differentiable)
    given = [name for name, x in [("seeds", seeds), ("noise", noise), ("start", start)] if x is not None]
    if len(given) > 1:
        raise SampleError(f"{' and '.join(given)} exclude each other; give one")
    latents = noise if start is None else start
    if latents is None:
        numbers = check_seeds((0,) if seeds is None else seeds)
        count = len(numbers)
    else:
        check_start(given[0], latents, model.shape)
        numbers, count = (), len(latents)
    if start is not None and options.row.own_grids:
        raise SampleError(f"{options.name} begins with noise; give noise or seeds, or use a method such as 'adams3'")
    check_size(model, count, options.dtype, options.batch_size)
    plan = prepare(model, options, count, labels=labels, seeds=numbers or None)
    if latents is not None:
        check_reach(model, given[0], latents, float(plan.sigmas[0]))
    run = runner(plan, options.name, differentiable)
    scale = 1.0 if start is not None else float(plan.model.path.prior_std(plan.sigmas[0]))

    def go(rows: slice, watch: Watch | None) -> Outcome:
        # Noise of seeds is drawn as its batch comes.
        begin = seeded_noise(numbers[rows], model.shape) if latents is None else latents[rows]
        return run(scale * begin.to(options.dtype).to(plan.model.device), rows, watch).bare(options.dtype)

    return plan.solution(plan.each(count, go, callback))
