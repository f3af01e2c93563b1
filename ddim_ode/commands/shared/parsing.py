"""What options say, from text: seeds, labels, grids, ranges of sigma, the device and the model there."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from ddim_ode.checkpoints import load
from ddim_ode.editing.strength import EditError
from ddim_ode.errors import unknown
from ddim_ode.grids import GRIDS, GridError, shape_of
from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.models.guidance import GuidanceError
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import AUTO, SolveOptions
from ddim_ode.planning.profile import Profile, ProfileError
from ddim_ode.planning.tuned_files import load_tuned, tuned_to
from ddim_ode.solvers import METHODS, TUNED, Method, MethodError, get_method
from ddim_ode.solvers.eta import EtaError
from ddim_ode.support.checks import shown
from ddim_ode.support.dtypes import DTYPES
from ddim_ode.support.processes import local_rank, world_size

Number = TypeVar("Number", int, float)
DEFAULT_COUNT = 16
MOST = 1_000_000  # seeds of a run, which are kept one by one, here and in its manifest.json
MOST_NUMBERS = 10_000  # of a list


def parse_seeds(text: str | None, count: int | None) -> tuple[int, ...]:
    """The seeds of "0-63", "0,5,9", "3" or a mixture; a count alone means 0..count-1. Raises SampleError."""
    if count is not None and count < 1:
        raise SampleError(f"n={shown(count)} must be a whole number >= 1")
    if text is None:
        text = f"0-{(count or DEFAULT_COUNT) - 1}"
    ranges = []
    for part in text.split(","):
        low, dash, high = (piece.strip() for piece in part.partition("-"))
        if not (low.isdecimal() and (high.isdecimal() or not dash)) or len(part) > 50:
            raise SampleError(
                f"seeds={shown(text)}: {shown(part)} is no seed; give whole numbers, as in 0-63 or 0,5,9 or 3"
            )
        ranges.append(range(int(low), int(high or low) + 1))
        if not ranges[-1]:
            raise SampleError(f"seeds={shown(text)}: the range {part.strip()} is empty; write it as {high}-{low}")
    total = sum(r.stop - r.start for r in ranges)
    if total > MOST:
        raise SampleError(f"{total} samples are too many for one run; ask for at most {MOST} at a time")
    if count not in (None, total):
        raise SampleError(f"n={shown(count)} contradicts seeds={shown(text)}, which are {total}; leave one of them out")
    return tuple(seed for r in ranges for seed in r)


def parse_label(text: str | None) -> int | Literal["each"] | None:
    """A class, or "each" for 0, 1, 2, ... in turn. Raises SampleError."""
    if text is None:
        return None
    if text == "each":
        return "each"
    try:
        if len(text) > 9:
            raise ValueError
        return int(text)
    except ValueError:
        raise SampleError(f"label={shown(text)} is no class; give a whole number, or 'each' for all in turn") from None


def label_for(network: Denoiser, text: str | None) -> int | Literal["each"] | None:
    """The label of a study: without a text all classes in turn, where there are any; "none" is the null class.

    Raises SampleError.
    """
    if text is None:
        return "each" if network.num_classes else None
    if text != "none" and not network.num_classes:
        raise SampleError("this model has no classes; leave --label out")
    return None if text == "none" else parse_label(text)


def parse_labels(text: str | None, count: int) -> list[int] | None:
    """The class of each of `count` images: "3" for all, or "3,5,5"; "none" is the null class. Raises SampleError."""
    if text is None or text == "none":
        return None
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not (part.removeprefix("-").isdecimal() and len(part) < 10)]
    if wrong:
        raise SampleError(
            f"label={shown(text)}: {shown(wrong[0])} is no class; give whole numbers, as in 3 or 3,5,5, or none"
        )
    if len(parts) not in (1, count):
        wanted = f"1, or one each of {count}" if count > 1 else "1"
        raise SampleError(f"label={shown(text)} names {len(parts)} classes; give {wanted}")
    labels = [int(part) for part in parts]
    return labels * count if len(labels) == 1 else labels


def parse_numbers(name: str, text: str, kind: type[Number]) -> list[Number]:
    """Numbers between commas. Raises SampleError."""
    example = "5,10,20" if kind is int else "0.1,0.01"
    if text.count(",") >= MOST_NUMBERS:
        raise SampleError(f"{name}={shown(text)} is a list of more than {MOST_NUMBERS:,}; write it as in {example}")
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return [kind(part) for part in parts]
    except ValueError:
        raise SampleError(f"{name}={shown(text)} is not a list of numbers; write it as in {example}") from None


def names_in(text: str) -> list[str]:
    """Names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_method(text: str, model: Model | None = None, force: bool = False) -> str | Method:
    """The method in a file of `ddim-ode tune`, or for "tuned" in the one beside the model; any other text is its name.

    Raises TunedError for a file that is missing or damaged, MethodError for a name that is unknown.
    """
    if text == TUNED and model is not None:
        return tuned_to(model, force)
    if text not in METHODS and (text.endswith(".json") or os.path.isfile(text)):
        return load_tuned(text, force)
    get_method(text)
    return text


def refuse_force(methods: Iterable[str | Method]) -> None:
    """Raise MethodError for --force with methods none of which was tuned to a model."""
    if not any(isinstance(method, Method) for method in methods):
        raise MethodError("--force lets a tuned method run on another model, and none was given; leave it out")


def parse_profile(text: str | None) -> Profile | None:
    """The profile in a file, for text that is neither a grid's name nor a list. Raises ProfileError."""
    if text is None or text in (*GRIDS, AUTO) or not (text.endswith(".safetensors") or os.path.isfile(text)):
        return None
    try:
        return Profile.load(Path(text))
    except ProfileError as error:
        raise ProfileError(f"{error} with --grid auto") from None


def parse_grid(text: str | None) -> str | tuple[float, ...] | None:
    """A grid's name, or sigmas between commas. Raises GridError."""
    if text is None or text in (*GRIDS, AUTO):
        return text
    if text.startswith("logistic"):
        shape_of(text)
        return text
    if "," not in text:
        raise GridError(unknown("grid", text, (*GRIDS, AUTO)) + "; or give decreasing sigmas, as in 80,10,1,0")
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise GridError(
            f"grid={shown(text)} is not a list of numbers; write decreasing sigmas, as in 80,10,1,0"
        ) from None


def parse_guidance_range(text: str | None) -> tuple[float, float | None] | None:
    """LOW:HIGH in sigma; an end left out is open. Raises GuidanceError."""
    try:
        return _parse_range(text)
    except ValueError:
        raise GuidanceError(f"the guidance range {shown(text)} is not LOW:HIGH; write it as in 0.1:10") from None


def parse_eta_range(text: str | None) -> tuple[float, float | None] | None:
    """LOW:HIGH in sigma; an end left out is open. Raises EtaError."""
    try:
        return _parse_range(text)
    except ValueError:
        raise EtaError(f"the eta range {shown(text)} is not LOW:HIGH; write it as in 0.05:50") from None


def parse_window(text: str | None) -> tuple[float, float | None] | None:
    """LOW:HIGH in sigma; an end left out is open. Raises EditError."""
    try:
        return _parse_range(text)
    except ValueError:
        raise EditError(f"the window {shown(text)} is not LOW:HIGH; write it as in 0.5:50") from None


def _parse_range(text: str | None) -> tuple[float, float | None] | None:
    if text is None:
        return None
    low, colon, high = text.partition(":")
    if not colon:
        raise ValueError
    top = float(high) if high else math.inf
    return float(low or 0), None if top == math.inf else top


def parse_eta(text: str | None) -> float | Literal["ddpm_large"] | None:
    """A number, or "ddpm_large". Raises EtaError."""
    if text is None:
        return None
    if text == "ddpm_large":
        return "ddpm_large"
    try:
        return float(text)
    except ValueError:
        raise EtaError(f"eta={shown(text)} is no number; give one from 0 to 1, or ddpm_large") from None


def solve_options(*, grid: str | None, dtype: str, **values: Any) -> SolveOptions:
    """What a command line says of solving: the grid and the precision in words, the rest in `values`."""
    return SolveOptions(grid=parse_grid(grid), dtype=DTYPES[dtype], **values)


def pick_device(name: str) -> Literal["cpu", "cuda"]:
    """ "auto" is the GPU where there is one; under torchrun each process of a machine takes the next.

    Raises SampleError when a GPU is asked for and there is none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise SampleError("device='cuda': torch finds no GPU here; use device='cpu'")
    if world_size() > 1:
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    return "cuda"


def open_model(name: str, device: str, dtype: str) -> tuple[Denoiser, torch.dtype]:
    """A model where it is to run, network and all in the precision asked for. Raises as `load` and `pick_device`."""
    return load(name).to(pick_device(device), DTYPES[dtype]), DTYPES[dtype]
