"""A network that gives up accuracy for speed, and is never trusted blindly.

A compiler makes mistakes of its own: wrong numbers or none, for one size of batch and not for another. So the first
call of each kind is answered as the network was given and under eager autocast too. The error of that is what rounding
costs this network. What is compiled may miss as much, times `MARGIN`; else a slower way is taken: see `WAYS`.
"""

import copy
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
MOST = 0.1  # relative error: a network that rounding makes worse is run as it was given

COMPILED, PAIRED, EAGER, GIVEN = "compiled", "a single sample as two", "not compiled", "as it was given, in full"
WAYS = (COMPILED, PAIRED, EAGER, GIVEN)  # to run a network, the fastest first

Inputs = tuple[tuple[Tensor, ...], Mapping[str, Tensor]]


OWN = ("_recipe", "_made", "verdicts")  # found out in this process, of these weights


class FastWarning(UserWarning):
    """A network that was to be fast is slower, so that it is right."""


@dataclass(frozen=True)
class Verdict:
    """How calls of a kind are answered.

    error: of the answer that was looked at, RMS over RMS in its worst sample; 0 as it was given.
    seconds: that finding out took.
    """

    way: str
    error: float
    seconds: float


class Fast(nn.Module):
    """A copy of a network, compiled for the hardware it is on as `recipe_for` says; input and output keep their dtype.

    net: the network. What is done to it afterwards, to its weights or its hooks, changes nothing here. The copy has
        weights of its own, which ask for no gradient; change them by this module's `load_state_dict` and `to`, after
        which all is made and checked anew, as it is in a copy and in another process.

    The weights are in memory as they were given, and once more as they are compiled: half as large in bfloat16, eight
    ninths where convolutions are Winograd's. While those are made, what is to be rounded is there in full too.

    torch.compile takes a minute, more or less, at the first call: once for all sizes of batch, once more for a single
    sample, and again under another number of threads, default dtype, or choice of deterministic algorithms. A later
    process finds most of it in torch's cache. On a CPU it needs a C++ compiler. Where a gradient with respect to an
    input is asked for, nothing is compiled.

    Warns FastWarning once for each kind of call that cannot be answered by what is compiled. A network that cannot be
    copied raises what copy.deepcopy does.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        with torch.no_grad():  # in which a copy of a scripted module has leaves
            self.net = copy.deepcopy(net).requires_grad_(False)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Fast":
        self._forget()
        moved: Fast = super()._apply(fn, recurse)
        return moved

    def _load_from_state_dict(self, *args: Any) -> None:  # called for this module by that of any module around it
        self._forget()
        super()._load_from_state_dict(*args)

    def _forget(self) -> None:
        self._recipe: Recipe | None = None
        self._made: list[Callable[..., Any]] = []  # in a list, so that it is no part of the network
        self.verdicts: dict[object, Verdict] = {}  # by kind of call

    def forward(self, x: Tensor, *rest: Tensor, **told: Tensor) -> Tensor:
        inputs, values = ((x, *rest), told), (x, *rest, *told.values())
        if not len(x):  # there is nothing to judge by
            return self._run(GIVEN, inputs)
        gradient = torch.is_grad_enabled() and any(value.requires_grad for value in values)
        layout = tuple((value.shape[1:], value.dtype) for value in values), tuple(told)
        kind = (gradient, len(x) == 1, layout, *compiled_for())
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
        found = list(self.verdicts.values())
        ways = [way for way in WAYS if any(verdict.way == way for verdict in found)]
        error, seconds = max(verdict.error for verdict in found), sum(verdict.seconds for verdict in found)
        recipe = self.recipe
        if {COMPILED, PAIRED} & set(ways):
            how = f"; {recipe} on a {recipe.hardware}"
        else:
            how = f"; {recipe.precision} on a {recipe.hardware}" if EAGER in ways else ""
        done = f"{' and '.join(ways)}{how}"
        return f"fast: {done}; relative error of the network {error:.1e}; made and checked in {seconds:.0f} s"

    @property
    def recipe(self) -> Recipe:
        """How it is done where the weights are."""
        if self._recipe is None:
            first = next((value for value in (*self.net.parameters(), *self.net.buffers())), torch.empty(0))
            self._recipe = recipe_for(first.device).suited_to(self.net)
        return self._recipe

    def _compiled(self) -> Callable[..., Any]:
        """What is compiled, made when it is first asked for."""
        if not self._made:
            self._made.append(compiled(self.recipe.prepared(self.net), self.recipe.graphs))
        return self._made[0]

    def _judged(self, inputs: Inputs, gradient: bool) -> Verdict | None:
        """The fastest way that is right for such inputs; None where the network itself gives no numbers."""
        began = time.perf_counter()
        exact = self._run(GIVEN, inputs)
        if not isinstance(exact, Tensor) or not torch.isfinite(exact).all():
            return None
        usual, fault = self._error(EAGER, inputs, exact)
        rounding = max(ROUNDING[self.recipe.dtype], ROUNDING.get(inputs[0][0].dtype, 0.0))  # the answer's is that of x
        bound = min(MARGIN * max(usual, rounding), MOST)
        refused = [f"{EAGER} {fault}"] * bool(fault)
        way, error = GIVEN, 0.0
        for tried in () if usual > MOST else (EAGER,) if gradient else WAYS[:-1]:
            if tried == PAIRED and len(exact) > 1:
                continue
            found, fault = (usual, "") if tried == EAGER else self._error(tried, inputs, exact)
            if found <= bound:
                way, error = tried, found
                break
            refused.append(f"{tried} {fault or f'it is off by {found:.1e} where {bound:.1e} would be rounding'}")
        if usual > MOST and not refused:
            refused.append(f"{EAGER} it is off by {usual:.1e} where {MOST:.1e} would be too much")
        if refused:
            what = "a single sample" if len(exact) == 1 else "batches"
            warnings.warn(
                f"fast: for {what} the network is run {way}, relative error {error:.1e}: {'; '.join(refused)}",
                FastWarning,
                stacklevel=2,
            )
        return Verdict(way, error, time.perf_counter() - began)

    def _error(self, way: str, inputs: Inputs, exact: Tensor) -> tuple[float, str]:
        """How far off a way's answer is, and why it has none: infinitely then."""
        try:
            return distance(self._run(way, inputs), exact), ""
        except Exception as fault:
            return float("inf"), f"it fails ({type(fault).__name__}: {one_line(str(fault), 200)})"

    def _run(self, way: str, inputs: Inputs) -> Tensor:
        """The network's answer for x and what is told with it, in the dtype of x."""
        (x, *rest), told = inputs
        if way == GIVEN:
            return self.net(x, *rest, **told)
        if way == PAIRED:
            x, *rest = (torch.cat([value, value]) for value in (x, *rest))
            told = {name: torch.cat([value, value]) for name, value in told.items()}
        net = self.net if way == EAGER else self._compiled()
        with self.recipe.autocast(x.device):
            out = net(x, *rest, **told)
        if not isinstance(out, Tensor):
            return out
        out = out.to(x.dtype)
        return out[:1] if way == PAIRED else out


def compiled_for() -> tuple[object, ...]:
    """What else torch compiles anew for, beside the kinds of input."""
    return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()


def compiled(net: nn.Module, graphs: bool) -> Callable[..., Any]:
    """A network compiled for any size of batch, and once more for a single sample."""
    fast = torch.compile(net, mode="reduce-overhead" if graphs else None)

    def forward(*values: Tensor, **told: Tensor) -> Any:
        count = len(values[0])
        if graphs:
            values, told = tuple(map(filled_up, values)), {name: filled_up(value) for name, value in told.items()}
        # Each layout of an input is compiled for: an expanded time or label has another than one of a value a sample.
        inputs = [laid_out(value) for value in values]
        keywords = {name: laid_out(value) for name, value in told.items()}
        for value in (*inputs, *keywords.values()):
            torch._dynamo.maybe_mark_dynamic(value, 0)
        if not graphs:
            return fast(*inputs, **keywords)
        torch.compiler.cudagraph_mark_step_begin()
        out = fast(*inputs, **keywords)
        return out[:count].clone() if isinstance(out, Tensor) else out  # the next replay writes over it

    return forward


def filled_up(value: Tensor) -> Tensor:
    """A batch (B, ...) with its last sample repeated, to 1, 2, 3, 4, 6, 8, 12, 16, 24, ... in all.

    A graph is captured for one size, and the batches of an adaptive run shrink through all of them.
    """
    half = 2 ** max(0, (len(value) - 1).bit_length() - 1)
    size = next(size for size in (half, 3 * half // 2, 2 * half) if size >= len(value))
    return torch.cat([value, value[-1:].expand(size - len(value), *value.shape[1:])])


def laid_out(value: Tensor) -> Tensor:
    """A copy of an input: of images with their channels last."""
    return value.clone(memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format)


def distance(found: Tensor, exact: Tensor) -> float:
    """RMS over RMS of the sample that is furthest off; infinite where something is no number."""
    error = (found.double() - exact.double()).flatten(1).norm(dim=1)
    size = exact.double().flatten(1).norm(dim=1)
    off = torch.where(error > 0, error / size, error)  # an answer of zeros may be met exactly
    return float(off.max()) if torch.isfinite(found).all() else float("inf")
