"""What goes wrong in a network: its own errors, with what they may come from, and answers that are none.

A network may look its time up in a table, or know no null class.
"""

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddim_ode.errors import DDIMError
from ddim_ode.models.modes import module_of
from ddim_ode.support.waiting import finite

#: what torch, NumPy and Python say where a float is used as an index
FLOAT_INDEX = re.compile(
    r"must be (of )?(integer|long|int)|dtype int32|one_hot is only applicable|types: Long|a long tensor for index"
    r"|dtype of indices should be|only integer|indices must be integers"
)
#: what Python says of an argument that a call had too many, or lacked
UNWANTED = re.compile(r"unexpected keyword argument '(\w+)'")
MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: '(\w+)'")
TWICE = re.compile(r"multiple values for (?:keyword )?argument '(\w+)'")
TOO_LARGE = "index out of range in self"  # as torch's embedding says it


class NonFiniteError(DDIMError):
    """The network returned NaN or infinity. `sample` is the first such index.

    Whoever catches it on the way up makes it more precise: `step`, and `sample` in the whole run.
    """

    what, remedy = "the network's output", "check its weights and precision, or start at a smaller sigma"

    def __init__(self, sigma: float, sample: int, step: int | None = None):
        super().__init__(sigma, sample, step)
        self.sigma, self.sample, self.step = sigma, sample, step

    def __str__(self) -> str:
        step = "" if self.step is None else f" in step {self.step}"
        return f"{self.what} is not finite at sigma={self.sigma:.6g} for sample {self.sample}{step}; {self.remedy}"


def advise(error: BaseException, times: Tensor) -> None:
    """Add a note to a network's own error, where it seems to look up times that are floats."""
    if times.is_floating_point() and FLOAT_INDEX.search(str(error)):
        note = 'a network that looks its time up in a table needs whole ones: give Denoiser quantize="int"'
        if hasattr(error, "add_note"):
            error.add_note(note)
        else:  # before Python 3.11
            error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]


def lacks_null_class(error: BaseException, net: object, labels: Tensor, null: int) -> bool:
    """Whether a network failed because its embedding of labels has no row for the null class, which it was asked."""
    if not isinstance(error, IndexError) or not (labels == null).any():
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None and trace.tb_frame.f_code is F.embedding.__code__:
        found = trace.tb_frame.f_locals
        return _too_small(found["weight"].shape, null) and bool((found["input"] == null).any())
    module = module_of(net)  # compiled, it has no frame to look into
    tables = [] if module is None else [m for m in module.modules() if isinstance(m, nn.Embedding)]
    return TOO_LARGE in str(error) and any(_too_small(m.weight.shape, null) for m in tables)


def _too_small(shape: Sequence[int], null: int) -> bool:
    return shape[0] <= null


def check_answer(out: object, x: Tensor, error: type[DDIMError]) -> Tensor:
    """What a network returned. Raises `error` unless it is a tensor of the shape of its input x."""
    if not isinstance(out, Tensor) or out.shape != x.shape:
        found = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise error(
            f"net returned {found} for an input of shape {tuple(x.shape)}; it must return one tensor of that shape"
            " (of learned variances drop the second half of the channels, of diffusers' outputs take .sample)"
        )
    return out


def check_finite(out: Tensor, sigma: Tensor, error: type[NonFiniteError] = NonFiniteError) -> None:
    """Raise `error` for the first sample of a network's answer (B, ...) that is not finite; sigma () or (B,)."""
    if not finite(out):
        bad = int((~torch.isfinite(out.reshape(len(out), -1)).all(dim=1)).nonzero()[0])
        raise error(float(sigma.expand(len(out))[bad]), bad)


def misunderstood(error: BaseException, told: Mapping[str, Tensor]) -> str | None:
    """What to say where a network does not take a condition that it was told, or lacks one; None for other errors."""
    if not isinstance(error, TypeError):
        return None
    if (found := UNWANTED.search(str(error))) and found[1] in told:
        return f"the network takes no condition {found[1]!r}; leave conditions[{found[1]!r}] out"
    if (found := TWICE.search(str(error))) and found[1] in told:
        return f"the network takes {found[1]!r} by position, as x, t or the labels; leave conditions[{found[1]!r}] out"
    if found := MISSING.search(str(error)):
        return f"the network needs {found[1]!r}; give it as conditions={{{found[1]!r}: ...}}, one row a sample"
    return None
