"""The methods of this library as sampler functions of k-diffusion, as ComfyUI, Forge and reForge call them.

    sample(model, x, sigmas, extra_args=None, callback=None, disable=None)

with model(x, sigma, **extra_args) the denoised image of x = x0 + sigma eps. Models of flows are asked in the same way
about x = (1 - s) x0 + s eps, with s for sigma. Since s d = x - D for the flow's slope d = eps - x0, their ODE

    dx/ds = (x - D(x, s)) / s

is that of x = x0 + sigma eps, letter by letter. So methods on the paths `noise` and `data`, those of the field, take s
for sigma, as k-diffusion's formulas do; all others, and noise on the way, need the ratio sigma = s / (1 - s) itself.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from ddim_ode.integrations.charts import (
    Chart,
    SamplerError,
    chart_of,
    check_sigmas,
    check_state,
    check_way,
    predicts_flow,
)
from ddim_ode.integrations.handed import SpentWarning
from ddim_ode.integrations.sharing import sharing
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.ode.brownian import Brownian
from ddim_ode.ode.flow import ProbabilityFlow, along
from ddim_ode.paths import Noise, f64
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import Control, Method, Step, integrate, moves
from ddim_ode.support.checks import described, flag, whole

MOST_CALLS = 200  # of an adaptive method
PURE = 0.05  # by which the RMS of noise may miss 1, besides what chance does


class Sampler(Protocol):
    """A function that carries x (B, *) from sigmas[0] to sigmas[-1]."""

    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> Tensor: ...


def sampler(
    method: str | Method, *, tol: float | None = None, max_nfe: int | None = None, is_flow: bool | None = None
) -> Sampler:
    """The sampler function of a method, for `comfy.samplers.KSAMPLER`, a table of Forge, or k-diffusion's own scripts.

    It steps on the sigmas that it is given, where duplicates count once. A last sigma of 0 is the network's own answer
    at the one before it, which inpainting relies on; without a 0, x is returned at the last sigma, with its noise. The
    state is float32 at least, x is returned in its own precision. A batch shares its steps. The first network call of
    each step is told to `callback`, as {x, i, sigma, sigma_hat, denoised}; where steps are the method's own, i is by
    the share of the way in its time. Rising sigmas encode.

    Args:
        method: a name in `METHODS`, or a `Method`. Of a tuned one with tables the sigmas must be a grid of its own, and
            x pure noise; to which model it was tuned nobody can see here.
        tol: of an adaptive method, RMS in units of the model's images or latents; None is 0.01. It takes the two ends
            of the sigmas alone.
        max_nfe: the most network calls; of an adaptive method 200 unless given.
        is_flow: whether x = (1 - s) x0 + s eps; None is what the model says, in the words of ComfyUI or of Forge.

    Noise on the way comes from extra_args["seed"], or without one from torch's default generator.

    The function raises, besides NonFiniteError and DivergedError:
        SamplerError: sigmas that do not run one way; a method that cannot do what they ask for.

    Raises:
        MethodError: the name of no method.
        SampleError: a tolerance that cannot be, or that a method on a grid would not use.
        SamplerError: a method whose steps can be undone, by more than x has place for; one that gives each sample steps
            of its own.
    """
    if is_flow is not None:
        flag("is_flow", is_flow, "True, False or None")
    row = SolveOptions(method=method, tol=tol).row
    if max_nfe is not None:
        max_nfe = whole("max_nfe", max_nfe, SamplerError, least=2 if row.adaptive else 1)
    control = Control(0.01 if tol is None else float(tol), MOST_CALLS if max_nfe is None else max_nfe)
    name = method if isinstance(method, str) else "this method"
    if row.invertible:
        raise SamplerError(
            f"{name} keeps two states for the way back, and x has place for one; use another method, such as 'dpmpp_2m'"
        )
    if row.adaptive:
        if (solver := sharing(row.solver)) is None:
            raise SamplerError("this method gives each sample steps of its own; use 'adaptive', or one on a grid")
        row = replace(row, solver=solver)

    def sample(
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        check_state(x)
        given = check_sigmas(sigmas)
        if len(given.sigmas) < 2:
            return x
        arguments = {} if extra_args is None else dict(extra_args)
        chart = chart_of(row, given, predicts_flow(model) if is_flow is None else is_flow)
        if len(chart.sigmas) < 2:
            return x
        check_way(name, chart, max_nfe)
        asked = Asked(model, x, chart, arguments, Told(given.total, chart.begins, callback, disable))
        with torch.no_grad():
            return run(asked, control, name)

    return sample


class Told:
    """What a caller is told of the run: one call of `callback`, and a step of the bar, for each interval.

    total: how many intervals were given. begins: which of them ours are.
    """

    def __init__(
        self,
        total: int,
        begins: list[int],
        callback: Callable[[dict[str, Any]], object] | None,
        disable: bool | None,
    ):
        self.total, self.begins, self.callback = total, begins, callback
        self.i, self.said = 0, False
        self.bar = None
        if disable is not True:
            try:
                self.bar = import_module("tqdm.auto").tqdm(total=total, disable=disable)
            except ImportError:  # no bar is no reason not to sample
                self.bar = None

    def at(self, step: int | None, share: float = 0.0) -> None:
        """A step begins: the number of an interval, or by the share of the way."""
        i = self.begins[step] if step is not None else min(int(share * self.total), self.total - 1)
        self.i, self.said = max(self.i, i), False
        if self.bar is not None:
            self.bar.update(self.i - self.bar.n)

    def answered(self, x: Tensor, sigma: Tensor, denoised: Tensor) -> None:
        """The network has answered; of a step's evaluations the first is told."""
        if self.callback is not None and not self.said:
            self.callback({"x": x, "i": self.i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        self.said = True

    def close(self, ended: bool) -> None:
        if self.bar is not None:
            self.bar.update(self.total - self.bar.n if ended else 0)
            self.bar.close()


class Asked:
    """A run's network, and its state at the start: the model as it is called, whatever a solver takes for a sample."""

    def __init__(self, model: Callable[..., Tensor], x: Tensor, chart: Chart, arguments: dict[str, Any], told: Told):
        self.model, self.x, self.chart, self.arguments, self.told = model, x, chart, arguments, told
        self.shared = chart.method.adaptive and bool(getattr(chart.method.solver, "shared", False))
        self.near = 1 - float(chart.path.u(f64(chart.path.sigma_max)))
        state = x.to(torch.promote_types(x.dtype, torch.float32))
        self.state = state[None] if self.shared else state

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        """The denoised image of y, which has the scale that the model knows; t (1,) or (B,) are all the same."""
        x, t = y.reshape(self.x.shape).to(self.x.dtype), t[:1]
        if self.chart.top is not None:
            t = torch.where(t > 1 - 1.05 * self.near, self.chart.top, t)
        out = self.model(x, t.to(torch.promote_types(x.dtype, torch.float32)).repeat(len(x)), **self.arguments)
        if not isinstance(out, Tensor) or out.shape != x.shape:
            raise SamplerError(f"the model returned {described(out)} for x of shape {tuple(x.shape)}; give that shape")
        self.told.answered(x, t[0], out)
        return out.reshape(y.shape)

    def flow(self) -> ProbabilityFlow:
        """The ODE on the method's path, and what noise on the way is drawn from."""
        chart, shape = self.chart, tuple(self.state.shape[1:])
        ode = ProbabilityFlow(
            Denoiser(self, chart.path, "data", shape), chart.method.path, (chart.path.sigma_min, chart.path.sigma_max)
        )
        if not chart.method.deterministic:
            seed = self.arguments.get("seed")
            first = int(torch.randint(2**62, (1,))) if seed is None else int(seed)
            seeds = [(first + n) % 2**64 for n in range(len(self.x))]
            ode.brownian = Brownian(seeds, shape, self.x.device, self.state.dtype)
        return ode


def run(asked: Asked, control: Control, name: str) -> Tensor:
    """Carry the state along; x at the last sigma, in its own scale and precision."""
    chart, ended = asked.chart, False
    method, ode, sigmas = chart.method, asked.flow(), chart.sigmas
    xbar = asked.state / along(chart.path.scale(sigmas[0]), asked.state)
    try:
        if method.own_grids:
            xbar = integrate(ode, method.solver, sigmas, _from_noise(asked, xbar), _watch(asked))
        elif method.adaptive:
            xbar = _choose_steps(asked, ode, xbar, control, name)
        else:
            xbar = _follow_grid(asked, ode, xbar)
        if sigmas[-1] == 0 and not method.own_grids:
            asked.told.at(None if method.adaptive else len(chart.nodes) - 1, 1.0)
            xbar = ode.predict(xbar, chart.nodes[-1]).data
        ended = True
    finally:
        asked.told.close(ended)
    x = xbar if sigmas[-1] == 0 else xbar * along(chart.path.scale(sigmas[-1]), xbar)
    return x.reshape(asked.x.shape).to(asked.x.dtype)


def _follow_grid(asked: Asked, ode: ProbabilityFlow, xbar: Tensor) -> Tensor:
    """xbar at the last sigma that is not 0. One that stops on the way goes as it would if it did not."""
    solver, nodes, sigmas = asked.chart.method.solver, asked.chart.nodes, asked.chart.sigmas
    grid = sigmas if asked.chart.up or sigmas[-1] == 0 else torch.cat([sigmas, f64([0.0])])
    y = ode.enter(xbar, nodes[0])
    at, n = Step(y, solver.init(ode, grid, y)), 0
    try:
        for n, move in enumerate(moves(ode, solver, grid)[: len(nodes) - 1]):
            asked.told.at(n)
            at = move(at)
    except NonFiniteError as error:
        error.step = n + 1
        raise
    return ode.leave(at.y, nodes[-1])


def _choose_steps(asked: Asked, ode: ProbabilityFlow, xbar: Tensor, control: Control, name: str) -> Tensor:
    """xbar at the last sigma that is not 0, in steps of the method's choice."""
    nodes, denoise = asked.chart.nodes, len(asked.chart.nodes) < len(asked.chart.sigmas)
    if len(nodes) < 2:
        return xbar
    spend = control._replace(max_nfe=control.max_nfe - denoise)
    found = asked.chart.method.solver.solve(ode, nodes[[0, -1]], xbar, spend, _watch(asked))
    if not found.converged.all():
        warnings.warn(
            f"max_nfe={control.max_nfe} ended {name} before tol={control.tol:g} let it; the rest was one step of DDIM"
            "; allow more calls, or a larger tol",
            SpentWarning,
            stacklevel=4,
        )
    return found.x


def _watch(asked: Asked) -> Callable[[int, float, float, Tensor], None]:
    """Tell where the next step of a solver that has a loop of its own begins."""
    asked.told.at(None, 0.0)
    return lambda steps, share, sigma, xbar: asked.told.at(None, share)


def _from_noise(asked: Asked, xbar: Tensor) -> Tensor:
    """xbar as tables begin with it. Raises SamplerError for x that is no noise.

    UIs begin with noise of the standard deviation sigma, or, at a model's largest one, with that of noise and images.
    """
    path, sigma, size = asked.chart.path, asked.chart.sigmas[0], xbar.double().square().mean().sqrt()
    all_of_it = (1 + sigma**2).sqrt() if isinstance(path, Noise) else 1 + sigma
    std = min((sigma, all_of_it), key=lambda std: abs(float(size / std) - 1))
    if abs(rms := float(size / std) - 1) > PURE + 4 / xbar.numel() ** 0.5:
        raise SamplerError(
            f"x has {1 + rms:.3g} times the RMS of noise at its sigma, and tables begin with pure noise; use another"
            " method, such as 'dpmpp_2m'"
        )
    return xbar * along(path.prior_std(sigma) / std, xbar)
