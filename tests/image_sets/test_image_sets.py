"""Sets of images: each source gives the bytes that were put into it, a part at a time, and what is wrong is named."""

import hashlib
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ddim_ode import data
from ddim_ode.data import DataError, to_float
from ddim_ode.image_sets import NAMED, ImageSet, open_images
from ddim_ode.image_sets.arrays import NpzImages
from ddim_ode.image_sets.held import HeldImages
from ddim_ode.image_sets.tars import TarImages
from ddim_ode.support.shards import Index, Shard, write_index
from ddim_ode.support.tensors import write_tensors
from tests.helpers.assertions import one_line

COUNT, SHAPE = 11, (3, 4, 5)


def pixels(shape: tuple[int, int, int] = SHAPE, count: int = COUNT) -> torch.Tensor:
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def picture(image: torch.Tensor) -> Image.Image:
    array = image.movedim(0, -1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def encoded(image: torch.Tensor) -> bytes:
    written = BytesIO()
    picture(image).save(written, format="PNG")
    return written.getvalue()


def folder(at: Path, images: torch.Tensor) -> Path:
    """1.png to 11.png, some of them in a folder below."""
    (at / "b").mkdir(parents=True)
    for number, image in enumerate(images, 1):
        picture(image).save(at / ("b" if number > 9 else ".") / f"{number}.png")
    return at


def npz(at: Path, images: torch.Tensor, save=np.savez) -> Path:
    save(at / "images.npz", images.movedim(1, -1).contiguous().numpy(), np.arange(len(images), dtype=np.int32))
    return at / "images.npz"


def samples(at: Path, images: torch.Tensor) -> Path:
    write_tensors(at / "samples.safetensors", {"x": to_float(images), "labels": torch.arange(len(images))})
    return at


def tar(file: Path, images: torch.Tensor, first: int = 0) -> Path:
    with tarfile.open(file, "w") as archive:
        for number, image in enumerate(images, first):
            for name, content in ((f"{number:06d}.png", encoded(image)), (f"{number:06d}.cls", b"3")):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, BytesIO(content))
    return file


def sharded(at: Path, images: torch.Tensor, format: str) -> Path:
    """Shards of 4, as `ddim-ode sample --shards` leaves them."""
    shards, files = [], {}
    for number, part in enumerate(images.split(4)):
        labels = tuple(range(4 * number, 4 * number + len(part)))
        names: list[str] = []
        if format == "safetensors":
            names = [f"samples-{number:05d}-of-00003.safetensors"]
            write_tensors(at / names[0], {"x": to_float(part)})
        elif format == "webdataset":
            names = [f"samples-{number:05d}-of-00003.tar"]
            tar(at / names[0], part, 4 * number)
        elif format == "png":
            (at / "images").mkdir(exist_ok=True)
            names = [f"images/{place:06d}.png" for place in labels]
            for name, image in zip(names, part, strict=True):
                (at / name).write_bytes(encoded(image))
        shards.append(Shard(_digests(at, names), len(part), "0", labels, {10: len(part)}, 0))
    if format == "npz":
        np.savez(at / "samples.npz", images.movedim(1, -1).numpy(), np.arange(len(images)))
        files = _digests(at, ["samples.npz"])
    write_index(at, Index(20, len(images), format, SHAPE, "digest", tuple(shards), files))
    return at


def _digests(at: Path, names: list[str]) -> dict[str, str]:
    return {name: hashlib.sha256((at / name).read_bytes()).hexdigest() for name in names}


SOURCES = {
    "folder": folder,
    "npz": npz,
    "compressed npz": lambda at, images: npz(at, images, np.savez_compressed),
    "samples": samples,
    **{f"sharded {name}": lambda at, x, name=name: sharded(at, x, name) for name in ("safetensors", "png", "npz")},
    "sharded webdataset": lambda at, x: sharded(at, x, "webdataset"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_set_gives_the_bytes_that_were_put_into_it(kind, tmp_path):
    images = pixels()
    found = open_images(SOURCES[kind](tmp_path, images))
    assert (len(found), found.shape) == (COUNT, SHAPE)
    assert torch.equal(found[0:COUNT], images)
    for rows in (slice(9, 11), slice(2, 5), slice(3, 9), slice(0, 1), slice(4, 4), slice(10, 99)):
        assert torch.equal(found[rows], images[rows]), rows
        assert found[rows].dtype == torch.uint8
        assert found[rows].stride() == images[rows].contiguous().stride()
        assert len(found.names(rows)) == len(images[rows])
    assert found.labels is None or found.labels.tolist() == list(range(COUNT))
    assert found.asked == (20 if kind.startswith("sharded") else None)
    assert found.identity() == open_images(tmp_path if found.name == str(tmp_path) else found.name).identity()


def test_a_set_of_grey_images_of_a_folder_is_in_the_order_of_its_numbers(tmp_path):
    images = pixels((1, 3, 2))
    found = open_images(str(folder(tmp_path, images)))
    assert found.names(slice(0, 3)) == ["1.png", "2.png", "3.png"]
    assert found.names(slice(8, 11)) == ["9.png", "b/10.png", "b/11.png"]
    assert torch.equal(found[:], images)


def test_the_named_sets():
    assert set(NAMED) == {"fashion-mnist", "fashion-mnist-train", "bundled"}
    images, labels = data.bundled_images()
    found = open_images("bundled")
    assert torch.equal(found[7:9], images[7:9])
    assert torch.equal(found.labels, labels)
    assert found.identity() == open_images("bundled").identity()


def test_an_unsealed_file_of_samples_and_a_tar_are_read_too(tmp_path):
    images = pixels()
    save_file({"x": to_float(images)}, tmp_path / "theirs.safetensors")
    assert torch.equal(open_images(tmp_path / "theirs.safetensors")[3:5], images[3:5])
    found = TarImages(tar(tmp_path / "a.tar", images))
    assert torch.equal(found[1:4], images[1:4])
    assert found.names(slice(1, 2)) == ["000001.png"]


def test_memory_is_that_of_the_rows_asked_for(tmp_path):
    """A file of 200 MB that is nearly all holes: its last rows are read without the others."""
    count, member = 70_000, "arr_0.npy"
    header = BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (count, 32, 32, 3)}
    np.lib.format.write_array_header_1_0(header, described)
    file = tmp_path / "sparse.npz"
    np.savez(file, np.zeros((1, 32, 32, 3), np.uint8))
    found = NpzImages(file)
    start = len(header.getvalue())
    found.count, found.start, found.checked = count, start, True  # its checksum is that of the one image
    where = found.member.header_offset + 30 + len(member) + 20  # numpy leaves 20 bytes for a long size
    with file.open("r+b") as opened:
        opened.seek(where + start + (count - 1) * 3072)
        opened.write(bytes(range(256)) * 12)
    assert torch.equal(found[count - 1 : count].movedim(1, -1).flatten(), torch.arange(3072).remainder(256).byte())


def test_images_of_a_folder_can_be_resized(tmp_path):
    images = pixels()
    files = folder(tmp_path, images)
    found = open_images(files, (1, 8, 8), resize=True)
    assert torch.equal(found[2:4], data.load_images([files / "3.png", files / "4.png"], (1, 8, 8)))
    assert "found 5 x 4 pixels of mode RGB, expected 8 x 8 of L or 1 (grey)" in one_line(
        DataError, lambda: open_images(files, (1, 8, 8))[0:1]
    )


def test_a_change_of_the_files_changes_the_identity(tmp_path):
    files = folder(tmp_path, pixels())
    before = open_images(files).identity()
    (files / "3.png").write_bytes((files / "4.png").read_bytes() + b" ")
    changed = open_images(files).identity()
    (files / "3.png").unlink()
    assert len({before, changed, open_images(files).identity()}) == 3


# --- what is wrong


def flipped(file: Path, at: int = -9) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("format", ["safetensors", "png", "npz", "webdataset"])
def test_a_shard_that_is_damaged_or_gone_is_named(format, tmp_path):
    at = sharded(tmp_path, pixels(), format)
    name = next(iter({**open_images(at).index.files, **open_images(at).index.shards[1].files}))
    flipped(at / name)
    message = one_line(DataError, lambda: open_images(at)[0:COUNT])
    assert message.startswith(f"{at / name} is not as it was written, by its sha256; run the command that made it")
    (at / name).unlink()
    assert f"{at / name} cannot be read: No such file" in one_line(DataError, lambda: open_images(at)[0:COUNT])
    if format != "npz":
        assert len(open_images(at)[0:4]) == 4  # another shard


def test_a_damaged_file_of_samples_is_named(tmp_path):
    at = samples(tmp_path, pixels())
    flipped(at / "samples.safetensors")
    assert f"{at}/samples.safetensors is damaged: its digest is another" in one_line(DataError, open_images, at)


def test_an_image_that_is_damaged_or_of_another_shape_is_named(tmp_path):
    files = folder(tmp_path, pixels())
    flipped(files / "2.png", 60)
    assert one_line(DataError, lambda: open_images(files)[1:2]).startswith(f"{files / '2.png'}: found no readable")
    picture(pixels((3, 4, 6))[0]).save(files / "2.png")
    message = one_line(DataError, lambda: open_images(files)[0:4])
    assert message.startswith(f"{files / '2.png'}: found 6 x 4 pixels of mode RGB, expected 5 x 4 of RGB")
    picture(pixels((1, 4, 5))[0]).save(files / "1.png")
    assert f"{files / '3.png'}: found 5 x 4 pixels of mode RGB" in one_line(DataError, lambda: open_images(files)[2:3])
    Image.new("CMYK", (5, 4)).save(files / "1.jpg")
    assert "found a picture of mode CMYK, expected L (grey) or RGB" in one_line(DataError, open_images, files)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_named(save, tmp_path):
    file = npz(tmp_path, pixels(), save)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert f"{file} is damaged or no .npz file" in one_line(DataError, open_images, file)
    if save is np.savez_compressed:
        file.write_bytes(content)
        flipped(file, 300)
        assert f"{file} is damaged or no .npz file" in one_line(DataError, lambda: open_images(file)[0:COUNT])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3)}, "has no arr_0, but mu; give an .npz whose arr_0 are bytes"),
        ({"arr_0": np.zeros((2, 4, 4, 3))}, "found arr_0 of float64 (2, 4, 4, 3)"),
        ({"arr_0": np.zeros((2, 3, 4, 4), np.uint8)}, "found arr_0 of uint8 (2, 3, 4, 4)"),
        ({"arr_0": np.zeros((0, 4, 4, 3), np.uint8)}, "found arr_0 of uint8 (0, 4, 4, 3)"),
        ({"arr_0": np.asfortranarray(np.zeros((2, 4, 4, 3), np.uint8))}, "rows do not lie one after the other"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "arr_1": np.zeros(3, int)}, "found arr_1 of int64 (3,), expected"),
        ({"arr_0": np.array([{}])}, "found arr_0 of object (1,)"),
    ],
)
def test_an_npz_of_something_else_is_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    found = one_line(DataError, open_images, tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in found
    assert message in found


def test_what_is_no_set_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    for what, message in (
        (tmp_path / "none", "none: no such file or folder, and no name of images (fashion-mnist, "),
        (tmp_path / "a.txt", "a.txt is no set of images; give a folder, an .npz"),
        (tmp_path, "found no images, expected files that end in .png"),
        ("fashion", "fashion: no such file or folder, and no name of images"),
    ):
        assert message in one_line(DataError, open_images, what)
    assert "(1, 28, 28), not (3, 8, 8)" in one_line(DataError, open_images, "bundled", (3, 8, 8))
    assert "resize=True needs a shape" in one_line(DataError, open_images, "bundled", resize=True)
    assert "no such file or folder" in one_line(DataError, open_images, "x" * 300)
    for images, message in (
        (torch.zeros(0, 1, 4, 4), "holds no image"),
        (torch.zeros(2, 4, 4), "give torch.uint8 (N, 1"),
    ):
        assert message in one_line(DataError, HeldImages, "mine", images.byte())
    assert "give one an image, (2,)" in one_line(
        DataError, HeldImages, "mine", torch.zeros(2, 1, 4, 4).byte(), torch.zeros(3)
    )
    found = open_images("bundled")
    assert isinstance(found, ImageSet)
    for rows in (3, slice(0, 4, 2)):
        assert "give a slice of a step of 1" in one_line(DataError, found.__getitem__, rows)
    write_tensors(tmp_path / "samples.safetensors", {"x": torch.zeros(2, 4, 8, 8)})
    assert "found x of shape (2, 4, 8, 8), expected images" in one_line(DataError, open_images, tmp_path)
    write_tensors(tmp_path / "samples.safetensors", {"y": torch.zeros(2, 4, 8, 8)})
    assert "has no x, which samples are called" in one_line(DataError, open_images, tmp_path)
