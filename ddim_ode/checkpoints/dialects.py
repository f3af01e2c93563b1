"""Weights as the programs of others hold them: inside a dict, under names that a wrapper has put something in front of.

`pick` finds the dict of tensors, `plain` gives the names that the network itself has, `check` looks at each tensor.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ddim_ode.checkpoints.faults import CheckpointError
from ddim_ode.errors import one_line
from ddim_ode.support.dtypes import FLOATS

#: where a checkpoint of several things often keeps averaged weights, and where those of the last step
AVERAGES = (
    *("ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "model_ema_state_dict", "params_ema"),
    *("ema_model_state_dict", "ema_params", "ema_weights", "averaged_model"),
)
LAST = (
    "state_dict",
    "model",
    "net",
    "network",
    "unet",
    "model_state_dict",
    "module",
    "params",
    "weights",
    "model_state",
)

#: what torch.compile, DataParallel, Lightning and training programs put in front of every name
PREFIXES = (
    *("_orig_mod", "module", "model", "net", "network", "unet", "diffusion_model", "denoiser", "denoise_fn"),
    *("ema", "ema_model", "model_ema"),
)
AVERAGED = ("ema", "averag", "avg")  # one of these is in the name of whatever is averaged
COUNTER = "n_averaged"  # in the state of torch's AveragedModel
DEEP = 4  # levels at which tensors are looked for

SHOWN = 8  # names of many


def pick(found: Any, file: Path, ema: bool = True) -> tuple[Mapping[str, Tensor], str]:
    """The weights in what a file holds, and whether they are averages: "yes", "no" or "not stated".

    A dict of tensors; or a dict that has one under a usual name; or the list of the DDIM code, which is [weights,
    optimizer, epoch, step, averages]. Averages may be one level deeper, where there is nothing else that they could be.

    Raises:
        CheckpointError: there are none, or several sets of which none is asked for, or averages in another form.
    """
    if isinstance(found, list) and found and is_state(found[0]):
        given = found[4] if len(found) > 4 else None
        state = _state_in(given)
        if ema and state is None and _holds_tensors(given):
            raise CheckpointError(_unknown_form(file, "[4]"))
        return (state, "yes") if ema and state is not None else (found[0], "no")
    if is_state(found):
        return found, "yes" if file.name.startswith("ema_") else "not stated"  # as those programs name them
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"{file} holds {kind_of(found)}; a dict of tensors was expected, or a list that begins with one"
        )
    named = [key for key in found if any(word in str(key).lower() for word in AVERAGED)]
    averages: dict[Any, Mapping[str, Tensor]] = {
        key: state for key in named if (state := _state_in(found[key])) is not None
    }
    last: dict[Any, Mapping[str, Tensor]] = {key: found[key] for key in LAST if is_state(found.get(key))}
    strange = [] if averages else [key for key in named if _holds_tensors(found[key])]
    if ema and strange:
        raise CheckpointError(_unknown_form(file, strange[0]))
    wanted = averages if ema and averages else last
    if len(wanted) == 1:
        said = "yes" if wanted is averages else "no" if averages or strange else "not stated"
        return next(iter(wanted.values())), said
    if wanted:
        raise CheckpointError(f"{file} holds {len(wanted)} sets of weights ({_some(wanted)}); save one by itself")
    if averages:
        raise CheckpointError(f"{file} holds averaged weights only ({_some(averages)}); leave ema=False (--no-ema) out")
    raise CheckpointError(
        f"{file} holds {kind_of(found)}; a dict of tensors was expected, or one under a name such as"
        f" {', '.join((*LAST[:3], *AVERAGES[:2]))}; there is {_some(found) or 'nothing'}"
    )


def plain(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """The weights without the prefixes that all their names share, and whether one says that they are averages."""
    found, averaged = {name: value.detach() for name, value in state.items()}, False
    if COUNTER in found and _first(found.keys() - {COUNTER}) == "module":
        del found[COUNTER]
        averaged = True
    while (prefix := _first(found.keys())) in PREFIXES:
        found = {name.partition(".")[2]: value for name, value in found.items()}
        averaged |= prefix in AVERAGES
    return found, averaged


def check(weights: Mapping[str, Tensor], file: Path) -> None:
    """Raise CheckpointError for a weight that is no plain tensor of finite numbers."""
    for name, value in weights.items():
        if fault := _fault(value):
            raise CheckpointError(f"{file}: the weights of {one_line(name, 100)} {fault}; use another checkpoint")


def is_state(value: object) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether it is a dict of named tensors."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _state_in(value: object) -> Mapping[str, Tensor] | None:
    """A dict of named tensors, or the only one in a dict; None where there is none, or one of several."""
    if isinstance(value, Mapping) and not is_state(value):
        states = [inner for inner in value.values() if is_state(inner)]
        loose = [inner for inner in value.values() if not is_state(inner) and _holds_tensors(inner)]
        value = states[0] if len(states) == 1 and not loose else None
    return value if is_state(value) else None


def _holds_tensors(value: object, deep: int = DEEP) -> bool:
    """Whether tensors of several numbers are in it, which a decay or a counter is not."""
    if isinstance(value, Tensor):
        return value.ndim > 0
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return deep > 0 and any(_holds_tensors(inner, deep - 1) for inner in inside)


def _unknown_form(file: Path, key: object) -> str:
    return (
        f"{file} holds averages under {one_line(repr(key), 60)} in a form not known here; save them alone, as a dict of"
        " named tensors, or give ema=False (--no-ema)"
    )


def kind_of(value: object) -> str:
    """What a value is, in words such as "a list of 3"."""
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple | dict) else "")


def parts(weights: Mapping[str, Tensor]) -> str:
    """What the names of weights begin with, and how often: "betas, model.* (692)"."""
    counts: dict[str, int] = {}
    for name in weights:
        first, dot, _ = name.partition(".")
        counts[first + dot] = counts.get(first + dot, 0) + 1
    return _some({f"{first}* ({n})" if first.endswith(".") else first: n for first, n in counts.items()})


def _first(names: Any) -> str | None:
    """What comes before the first dot, if it is the same in all names."""
    firsts = {first if rest else None for first, _, rest in (name.partition(".") for name in names)}
    return firsts.pop() if len(firsts) == 1 else None


def _some(found: Mapping[Any, object]) -> str:
    names = [one_line(str(name), 60) for name in list(found)[:SHOWN]]
    return ", ".join(names) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _fault(value: Tensor) -> str | None:
    if value.is_nested or value.is_quantized or value.layout != torch.strided:
        return "are sparse, nested or quantised, and no plain tensor"
    if value.is_meta:
        return "have a shape and no values"
    if value.dtype not in FLOATS:
        kind = str(value.dtype).removeprefix("torch.")
        return f"are {kind}, and weights are float16, bfloat16, float32 or float64"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"claim the shape {tuple(value.shape)}, and the file does not hold as many numbers"
    if not torch.isfinite(value.to(torch.float32)).all():
        return "hold NaN or infinity" if not torch.isfinite(value).all() else "are too large for float32"
    return None
