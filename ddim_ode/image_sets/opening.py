"""Which kind of set a path, or a name, is."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ddim_ode.data import DataError, bundled_images, fashion_mnist
from ddim_ode.image_sets.arrays import NpzImages
from ddim_ode.image_sets.base import ImageSet
from ddim_ode.image_sets.folders import FolderImages
from ddim_ode.image_sets.held import HeldImages
from ddim_ode.image_sets.sharded import ShardedImages
from ddim_ode.image_sets.stored import StoredImages
from ddim_ode.support.checks import as_path, flag
from ddim_ode.support.shards import INDEX, JOB, is_unfinished

SAMPLES, PICTURES = "samples.safetensors", "images"  # of a folder of `ddim-ode sample`

#: sets that have a name of their own
NAMED: Mapping[str, Callable[[], ImageSet]] = {
    "fashion-mnist": lambda: HeldImages("fashion-mnist", *fashion_mnist("test")),
    "fashion-mnist-train": lambda: HeldImages("fashion-mnist-train", *fashion_mnist("train")),
    "bundled": lambda: HeldImages("bundled", *bundled_images()),
}


def open_images(
    what: str | os.PathLike[str], shape: tuple[int, int, int] | None = None, resize: bool = False
) -> ImageSet:
    """A set of images, of which none is read before it is asked for.

    Args:
        what: a folder of image files at any depth, in the order of the numbers in their names; a folder of
            `ddim-ode sample`, in one file or in shards; an .npz whose arr_0 are bytes (N, H, W, C); a .safetensors of
            samples x (N, C, H, W) in [-1, 1]; or a name in NAMED.
        shape: what they must be, (C, H, W); by default that of the first.
        resize: image files of another shape are cropped and resized, as `data.load_images` does; needs a shape.

    Raises:
        DataError: there is no such set, it is damaged, or its images are of another shape.
    """
    if flag("resize", resize) and shape is None:
        raise DataError("resize=True needs a shape to resize to; give shape=(C, H, W)")
    found = _opened(what, shape, resize)
    if len(found) == 0:
        raise DataError(f"{found.name} holds no images; give at least one")
    if shape is not None and found.shape != tuple(shape):
        raise DataError(f"the images of {found.name} are {found.shape}, not {tuple(shape)}; give others")
    return found


def _opened(what: str | os.PathLike[str], shape: tuple[int, int, int] | None, resize: bool) -> ImageSet:
    if isinstance(what, str) and what in NAMED:
        return NAMED[what]()
    path = as_path("images", what, "file or a folder")
    if os.path.isdir(path):  # which, unlike pathlib, minds no name
        _refuse_unfinished(path)
        if (path / INDEX).exists():
            return ShardedImages(path)
        if (path / SAMPLES).exists():
            return StoredImages(path / SAMPLES, str(path))
        return FolderImages(path, shape, resize)
    if not os.path.lexists(path):
        raise DataError(f"{path}: no such file or folder, and no name of images ({', '.join(NAMED)})")
    if path.suffix == ".npz":
        return NpzImages(path)
    if path.suffix == ".safetensors":
        return StoredImages(path, str(path))
    raise DataError(f"{path} is no set of images; give a folder, an .npz, a .safetensors, or {', '.join(NAMED)}")


def _refuse_unfinished(folder: Path) -> None:
    for run in (folder, folder.parent) if folder.name == PICTURES else (folder,):
        if is_unfinished(run):
            raise DataError(
                f"{run} is of a run that is not finished, with {JOB} and without {INDEX}"
                "; run the command that began it again, which goes on"
            )
