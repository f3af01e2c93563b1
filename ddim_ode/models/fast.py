"""A network that gives up accuracy for speed, and is never trusted blindly.

A compiler makes mistakes of its own: wrong numbers or none, for one size of batch and not for another. So the first
call of each kind is answered in float32 and under eager autocast too. The error of that is what rounding costs this
network. What is compiled may miss as much, times `MARGIN`; else a slower way is taken: see `WAYS`.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.errors import one_line
from ddim_ode.models.recipes import Recipe, recipe_for

MARGIN = 4.0  # times the error of eager autocast: other kernels round elsewhere
#: an error below which nobody looks, times MARGIN: the rounding of one operation, of float32 that of a deep network
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-15}
MOST = 0.1  # relative error: what rounding makes worse is not worth its speed

COMPILED, PAIRED, EAGER, GIVEN = "compiled", "a single sample as two", "not compiled", "as it was given, in full"
WAYS = (COMPILED, PAIRED, EAGER, GIVEN)  # to run a network, the fastest first

Inputs = tuple[tuple[Tensor, ...], Mapping[str, Tensor]]


class FastWarning(UserWarning):
    """A network that was to be fast is slower, so that it is right."""


@dataclass(frozen=True)
class Verdict:
    """How calls of a kind are answered.

    error: of the answer that was looked at, RMS over RMS in its worst sample; NaN if the network had none.
    seconds: that finding out took.
    """

    way: str
    error: float
    seconds: float


class Fast(nn.Module):
    """A network, compiled for the hardware it is on as `recipe_for` says; input and output keep their dtype.

    net: the network as it was given. What is run is made of its weights as they are at the first call, and made anew
        after `to`, in a copy and in another process.

    torch.compile takes a minute, more or less, at the first call: once for all sizes of batch, once more for a single
    sample. A later process finds most of it in torch's cache. On a CPU it needs a C++ compiler. Where a gradient with
    respect to an input is asked for, nothing is compiled.

    Warns FastWarning once for each kind of call that cannot be answered by what is compiled.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_made", "verdicts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Fast":
        self._forget()
        moved: Fast = super()._apply(fn, recurse)
        return moved

    def _forget(self) -> None:
        self._made: tuple[Recipe, Callable[..., Any]] | None = None
        self.verdicts: dict[object, Verdict] = {}  # by kind of call

    def forward(self, x: Tensor, *rest: Tensor, **told: Tensor) -> Tensor:
        inputs, values = ((x, *rest), told), (x, *rest, *told.values())
        gradient = torch.is_grad_enabled() and any(value.requires_grad for value in values)
        kind = (gradient, len(x) == 1, tuple((value.shape[1:], value.dtype) for value in values), tuple(told))
        with torch.set_grad_enabled(gradient):  # of a weight nobody asks for one
            if kind not in self.verdicts:
                with torch.no_grad():
                    found = self._judged(inputs, gradient)
                if found is None:  # nothing to judge by: `Denoiser` says what is wrong with the answer
                    return self._run(GIVEN, inputs)
                self.verdicts[kind] = found
            return self._run(self.verdicts[kind].way, inputs)

    def account(self) -> str:
        """What was done and what it cost, in a line."""
        if not self.verdicts:
            return "fast: the network was not asked"
        recipe, _ = self._prepared()
        found = list(self.verdicts.values())
        ways = [way for way in WAYS if any(verdict.way == way for verdict in found)]
        error, seconds = max(verdict.error for verdict in found), sum(verdict.seconds for verdict in found)
        done = f"{' and '.join(ways)}; {recipe} on a {recipe.hardware}"
        return f"fast: {done}; relative error of the network {error:.1e}; made and checked in {seconds:.0f} s"

    def _prepared(self) -> tuple[Recipe, Callable[..., Any]]:
        """How it is done here, and what is compiled: kept out of the modules, since it is no part of the network."""
        if self._made is None:
            first = next((value for value in (*self.net.parameters(), *self.net.buffers())), torch.empty(0))
            recipe = recipe_for(first.device)
            self._made = recipe, compiled(recipe.prepared(self.net), recipe.graphs)
        return self._made

    def _judged(self, inputs: Inputs, gradient: bool) -> Verdict | None:
        """The fastest way that is right for such inputs; None where the network itself gives no numbers."""
        began = time.perf_counter()
        exact = self._run(GIVEN, inputs)
        if not isinstance(exact, Tensor) or not torch.isfinite(exact).all():
            return None
        recipe, _ = self._prepared()
        usual = distance(self._run(EAGER, inputs), exact)
        bound = min(MARGIN * max(usual, ROUNDING[recipe.dtype]) if usual < MOST else MOST, MOST)
        refused: list[str] = []
        for way in (EAGER,) if gradient else WAYS[:-1]:
            if way == PAIRED and len(exact) > 1:
                continue
            try:
                error = distance(self._run(way, inputs), exact)
            except Exception as fault:
                refused.append(f"{way} it fails ({type(fault).__name__}: {one_line(str(fault), 200)})")
                continue
            if error <= bound:
                break
            refused.append(f"{way} it is off by {error:.1e} where {bound:.1e} would be rounding")
        else:
            way, error = GIVEN, 0.0
        if refused:
            what = "a single sample" if len(exact) == 1 else "batches"
            warnings.warn(
                f"fast: for {what} the network is run {way}, relative error {error:.1e}: {'; '.join(refused)}",
                FastWarning,
                stacklevel=2,
            )
        return Verdict(way, error, time.perf_counter() - began)

    def _run(self, way: str, inputs: Inputs) -> Tensor:
        """The network's answer for x and what is told with it, in the dtype of x."""
        (x, *rest), told = inputs
        if way == GIVEN:
            return self.net(x, *rest, **told)
        recipe, quick = self._prepared()
        if way == PAIRED:
            x, *rest = (torch.cat([value, value]) for value in (x, *rest))
            told = {name: torch.cat([value, value]) for name, value in told.items()}
        with recipe.autocast(x.device):
            out = self.net(x, *rest, **told) if way == EAGER else quick(x, *rest, **told)
        if not isinstance(out, Tensor):
            return out
        out = out.to(x.dtype)
        return out[:1] if way == PAIRED else out


def compiled(net: nn.Module, graphs: bool) -> Callable[..., Any]:
    """A network compiled for any size of batch, and once more for a single sample."""
    fast = torch.compile(net, mode="reduce-overhead" if graphs else None)

    def forward(*values: Tensor, **told: Tensor) -> Any:
        # Each layout of an input is compiled for: an expanded time or label has another than one of a value a sample.
        inputs = [laid_out(value) for value in values]
        keywords = {name: laid_out(value) for name, value in told.items()}
        for value in (*inputs, *keywords.values()):
            torch._dynamo.maybe_mark_dynamic(value, 0)
        if not graphs:
            return fast(*inputs, **keywords)
        torch.compiler.cudagraph_mark_step_begin()
        out = fast(*inputs, **keywords)
        return out.clone() if isinstance(out, Tensor) else out  # the next replay writes over it

    return forward


def laid_out(value: Tensor) -> Tensor:
    """A copy of an input: of images with their channels last."""
    return value.clone(memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format)


def distance(found: Tensor, exact: Tensor) -> float:
    """RMS over RMS of the sample that is furthest off; infinite where something is no number."""
    error = (found.double() - exact.double()).flatten(1).norm(dim=1)
    size = exact.double().flatten(1).norm(dim=1)
    off = torch.where(error > 0, error / size, error)  # an answer of zeros may be met exactly
    return float(off.max()) if torch.isfinite(found).all() else float("inf")
