"""The files that samples are kept in, a shard at a time: the same samples give the same bytes, whoever writes them."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from einops import rearrange
from torch import Tensor

from ddim_ode.data import is_picture, png_of, to_uint8
from ddim_ode.shards.jobs import ShardError
from ddim_ode.support.checks import choice
from ddim_ode.support.files import replacing
from ddim_ode.support.tensors import write_tensors

IMAGES, PNG = "images", ".png"
MOST_FILES = 500_000  # images in a file each, whose digests an index holds
OF_FILE = 4096  # bytes that a file takes besides what is in it


class Part(NamedTuple):
    """The samples of a shard."""

    x: Tensor  # (n, *shape), on the CPU
    seeds: Tensor  # (n,) int64, as all that follow
    nfe: Tensor
    converged: Tensor  # (n,) bool
    labels: Tensor | None


@dataclass(frozen=True)
class Place:
    """Where a shard goes."""

    number: int
    shards: int
    first: int  # sample, by its place in the run
    total: int  # samples of the run

    def sample(self, n: int) -> str:
        """The name of the shard's sample n, of as many digits for all of a run."""
        return f"{self.first + n:0{max(6, len(str(self.total - 1)))}d}"


@dataclass(frozen=True)
class Format:
    """How a shard is written."""

    suffix: str  # of its file; of .png there is one a sample
    write: Callable[[Place, Sequence[Path], Part], None]  # into such files
    room: Callable[[int, int], int]  # (numbers in a sample, bytes of one as the state has them) -> bytes in its shard
    pictures: bool = True  # whether it holds nothing else
    joined: bool = False  # whether all shards become one file in the end
    module: str = ""  # that it needs

    def names(self, place: Place, count: int) -> list[str]:
        """The files of a shard of so many samples, relative to the folder, in the samples' order."""
        if self.suffix == PNG:
            return [f"{IMAGES}/{place.sample(n)}{PNG}" for n in range(count)]
        digits = max(5, len(str(place.shards)))
        return [f"samples-{place.number:0{digits}d}-of-{place.shards:0{digits}d}{self.suffix}"]

    def room_for(self, missing: int, total: int, numbers: int, size: int) -> int:
        """Bytes that so many missing of all samples take, each of so many numbers, or bytes in the state."""
        return missing * self.room(numbers, size) + (total * numbers if self.joined and missing else 0)


def _safetensors(place: Place, files: Sequence[Path], part: Part) -> None:
    write_tensors(files[0], {name: value for name, value in part._asdict().items() if value is not None})


def _png(place: Place, files: Sequence[Path], part: Part) -> None:
    for file, image in zip(files, _pngs(part.x), strict=True):
        with replacing(file, one_of_many=True) as new:
            new.write(image)


def _rows(place: Place, files: Sequence[Path], part: Part) -> None:
    """Rows of the array that `npz.join` makes of them all."""
    with replacing(files[0]) as new:
        new.write(rearrange(to_uint8(part.x), "n c h w -> n h w c").contiguous().numpy().data)


def _webdataset(place: Place, files: Sequence[Path], part: Part) -> None:
    from webdataset import TarWriter

    labels = [None] * len(part.x) if part.labels is None else part.labels.tolist()
    fixed = {"user": "", "group": "", "mtime": 0, "compress": False, "encoder": False}
    with replacing(files[0]) as new, TarWriter(new, **fixed) as tar:
        for n, (image, label) in enumerate(zip(_pngs(part.x), labels, strict=True)):
            told = {} if label is None else {"cls": str(label).encode()}
            tar.write({"__key__": place.sample(n), "png": image, **told})


def _pngs(x: Tensor) -> Iterator[bytes]:
    return (png_of(to_uint8(image[None])) for image in x)


FORMATS: dict[str, Format] = {
    "safetensors": Format(".safetensors", _safetensors, lambda numbers, size: size + 64, pictures=False),
    "png": Format(PNG, _png, lambda numbers, size: numbers + OF_FILE),
    "npz": Format(".rows", _rows, lambda numbers, size: numbers + 16, joined=True),
    "webdataset": Format(".tar", _webdataset, lambda numbers, size: numbers + 2048, module="webdataset"),
}


def check_format(name: str, shape: Sequence[int], total: int) -> Format:
    """The format of a name. Raises ShardError where it cannot hold such samples, or its library is not installed."""
    found = FORMATS[choice("format", name, FORMATS, ShardError)]
    if found.pictures and not is_picture(shape):
        raise ShardError(f"format={name!r} holds pictures, and samples {tuple(shape)} are none; use safetensors")
    if name == "png" and total > MOST_FILES:
        raise ShardError(f"format='png' would be {total:,} files, at most {MOST_FILES:,}; use webdataset")
    if found.module and importlib.util.find_spec(found.module) is None:
        raise ShardError(f"format={name!r} needs the library {found.module}; pip install 'ddim_ode[{found.module}]'")
    return found
