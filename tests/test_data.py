"""Real files that are good, and files that are wrong in one way each: the message must name the file and the rule."""

import gzip
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddim_ode import data
from ddim_ode.data import DataError, to_float

COUNT = 12
IMAGE_MAGIC, LABEL_MAGIC = b"\0\0\x08\x03", b"\0\0\x08\x01"
DEBIAN = data.FASHION_FOLDER.is_dir()


def pixels(count: int = COUNT) -> torch.Tensor:
    return torch.arange(count * 784).remainder(251).to(torch.uint8).reshape(count, 1, 28, 28)


def image_bytes(magic: bytes = IMAGE_MAGIC, count: int = COUNT, side: int = 28, extra: bytes = b"") -> bytes:
    lengths = b"".join(length.to_bytes(4, "big") for length in (count, side, side))
    return magic + lengths + bytes(pixels().flatten().tolist()) + extra


def label_bytes(labels: list[int], magic: bytes = LABEL_MAGIC) -> bytes:
    return magic + len(labels).to_bytes(4, "big") + bytes(labels)


GOOD_LABELS = [k % 10 for k in range(COUNT)]


def write(
    folder: Path, images: bytes | None = None, labels: bytes | None = None, suffix: str = "", prefix: str = "t10k"
) -> Path:
    pack = gzip.compress if suffix else bytes
    (folder / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(pack(images or image_bytes()))
    (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(labels or label_bytes(GOOD_LABELS)))
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_idx_files_are_read(tmp_path, split, prefix, suffix):
    images, labels = data.fashion_mnist(split, write(tmp_path, suffix=suffix, prefix=prefix))
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert torch.equal(images, pixels())
    assert labels.tolist() == GOOD_LABELS


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"images": image_bytes(magic=LABEL_MAGIC)}, r"images.*found magic number 0x00000801, expected 0x00000803"),
        ({"labels": label_bytes(GOOD_LABELS, magic=b"\x89PNG")}, r"labels.*0x89504e47, expected 0x00000801"),
        ({"images": image_bytes(count=COUNT + 1)}, r"images.*found 9424 bytes, expected 10208"),
        ({"images": image_bytes(extra=b"\0")}, r"images.*found (at least )?9425 bytes, expected 9424"),
        ({"images": image_bytes(side=29)}, r"images.*shape \(29, 29\), expected \(28, 28\)"),
        ({"images": IMAGE_MAGIC + b"\0\0"}, r"images.*found 6 bytes, expected a header of 16"),
        ({"labels": label_bytes([])}, r"labels.*at least one"),
        ({"labels": label_bytes(GOOD_LABELS[:-1])}, r"labels.*found 11 labels, expected 12"),
        ({"labels": label_bytes([*GOOD_LABELS[:-1], 10])}, r"labels.*found label 10, expected labels in 0\.\.9"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_wrong_idx_content_is_named(tmp_path, broken, message, suffix):
    with pytest.raises(DataError, match=message) as caught:
        data.fashion_mnist("test", write(tmp_path, suffix=suffix, **broken))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda packed: packed[: len(packed) // 2], "truncated"),
        (lambda packed: b"not a gzip file", "unreadable"),
        (lambda packed: packed[:20] + bytes(20) + packed[40:], "unreadable"),
        (lambda packed: b"", r"found magic number 0x, expected"),
    ],
)
def test_damaged_gzip_is_named(tmp_path, damage, message):
    file = write(tmp_path, suffix=".gz") / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=rf"t10k-images-idx3-ubyte\.gz.*{message}"):
        data.fashion_mnist("test", tmp_path)


@pytest.mark.parametrize("there", ["nothing", "images"])
def test_missing_files_name_both_remedies(tmp_path, there):
    folder = tmp_path / "absent"
    if there == "images":
        folder = write(tmp_path)
        (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"not found.*apt install dataset-fashion-mnist.*--data DIR") as caught:
        data.fashion_mnist("test", folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"unknown split 'valid'; choose one of train, test"):
        data.fashion_mnist("valid", write(tmp_path))


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Left half dark, right half light, so that a crop or a transposed axis shows."""
    image = Image.new("RGB", size, (0, 51, 0))
    image.paste((255, 204, 255), (size[0] // 2, 0, size[0], size[1]))
    return image.convert(mode)


@pytest.mark.parametrize("size", [(28, 28), (56, 56), (40, 28), (28, 40), (9, 9)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "1"])
def test_any_image_comes_in_the_shape_asked_for(tmp_path, mode, channels, size):
    picture(mode, size).save(tmp_path / "a.png")
    images, files = data.image_folder(tmp_path, (channels, 28, 28))
    assert images.shape == (1, channels, 28, 28)
    assert images.dtype == torch.uint8
    assert files == [tmp_path / "a.png"]
    expected = torch.tensor(list(picture(mode, (2, 1)).convert("L" if channels == 1 else "RGB").tobytes()))
    dark, light = expected.reshape(2, channels)
    if mode != "1":  # one bit is dithered: only the sides' order is sure
        assert torch.equal(images[0, :, 14, 2], dark.to(torch.uint8))
        assert torch.equal(images[0, :, 14, 25], light.to(torch.uint8))
    assert images[..., :9].float().mean() < images[..., 19:].float().mean()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_an_image_of_the_right_size_keeps_its_bytes(tmp_path, channels, mode):
    original = torch.randint(256, (channels, 28, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    Image.frombytes(mode, (32, 28), bytes(original.movedim(0, -1).flatten().tolist())).save(tmp_path / "a.png")
    assert torch.equal(data.load_images([tmp_path / "a.png"], (channels, 28, 32))[0], original)


def test_sixteen_bit_grey_is_scaled_not_saturated(tmp_path):
    grey = b"".join((level * 257).to_bytes(2, "little") for level in range(256))
    Image.frombytes("I;16", (16, 16), grey).save(tmp_path / "a.png")
    image = data.load_images([tmp_path / "a.png"], (1, 16, 16))
    assert (image.flatten().int() - torch.arange(256)).abs().max() <= 1


def test_a_folder_is_read_below_and_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c.png", "a.JPG", "b/z.bmp", "b/a.webp", "d.jpeg"):
        picture("RGB", (28, 28)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    images, files = data.image_folder(tmp_path, (3, 28, 28))
    assert [str(file.relative_to(tmp_path)) for file in files] == ["a.JPG", "b/a.webp", "b/z.bmp", "c.png", "d.jpeg"]
    assert images.shape == (5, 3, 28, 28)


def test_folders_are_classes_in_their_order(tmp_path):
    for name in ("b/2.png", "b/deep/1.png", "10/a.png", "a/x.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (picture("L", (28, 28)) if name.endswith("png") else Image.new("L", (1, 1))).save(tmp_path / name, "PNG")
    images, labels, names = data.class_folders(tmp_path, (1, 28, 28))
    assert (names, labels.tolist()) == (("10", "a", "b"), [0, 1, 2, 2])
    assert torch.equal(images, data.image_folder(tmp_path, (1, 28, 28))[0])


@pytest.mark.parametrize(
    ("extra", "words"), [("c.png", "c.png is in no class; put it"), ("empty/", "empty would be a class and holds no")]
)
def test_folders_that_would_shift_the_classes_are_refused(tmp_path, extra, words):
    (tmp_path / "a").mkdir()
    picture("L", (28, 28)).save(tmp_path / "a" / "1.png")
    if extra.endswith("/"):
        (tmp_path / extra).mkdir()
    else:
        picture("L", (28, 28)).save(tmp_path / extra)
    with pytest.raises(DataError, match=words):
        data.class_folders(tmp_path, (1, 28, 28))


@pytest.mark.parametrize("damage", [lambda good: b"plain text", lambda good: good[: len(good) // 2], lambda good: b""])
def test_an_unreadable_image_is_named(tmp_path, damage):
    picture("RGB", (28, 28)).save(tmp_path / "a.png")
    picture("RGB", (28, 28)).save(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes(damage((tmp_path / "broken.png").read_bytes()))
    with pytest.raises(DataError, match=r"broken\.png: found no readable image") as caught:
        data.image_folder(tmp_path, (1, 28, 28))
    assert "\n" not in str(caught.value)


def test_a_folder_without_images_lists_the_suffixes(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"no images.*\.png, \.jpg, \.jpeg, \.webp, \.bmp"):
        data.image_folder(tmp_path, (1, 28, 28))
    with pytest.raises(DataError, match="no such folder"):
        data.image_folder(tmp_path / "absent", (1, 28, 28))


def test_bundled_images_are_balanced():
    images, labels = data.bundled_images()
    assert images.shape == (300, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert labels.bincount(minlength=10).tolist() == [30] * 10
    assert len(data.FASHION_LABELS) == 10


@pytest.mark.dataset
@pytest.mark.skipif(not DEBIAN, reason="needs the Debian package dataset-fashion-mnist")
def test_bundled_images_are_the_real_ones():
    images, labels = data.fashion_mnist("test")
    assert len(images) == 10_000
    seen, keep = [0] * 10, []
    for i, label in enumerate(labels.tolist()):
        if seen[label] < 30:
            keep.append(i)
        seen[label] += 1
    bundled, bundled_labels = data.bundled_images()
    assert torch.equal(bundled, images[keep])
    assert torch.equal(bundled_labels, labels[keep])


def test_bytes_survive_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_float(levels)
    assert x.dtype == torch.float32
    assert x.min() == -1
    assert x.max() == 1
    assert torch.equal(data.to_uint8(x), levels)
    assert torch.equal(data.to_uint8(x.double()), levels)


def test_to_uint8_clamps_and_rounds():
    assert data.to_uint8(torch.tensor([-3.0, 0.6 / 127.5 - 1, 0.4 / 127.5 - 1, 7.0])).tolist() == [0, 1, 0, 255]


def test_to_float_refuses_floats():
    with pytest.raises(DataError, match=r"torch\.float32, expected torch\.uint8"):
        to_float(torch.zeros(1))
