"""What is wrong with a set of images, in one line: damage that its format does not tell, and what is no sample."""

from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from ddim_ode.data import DataError
from ddim_ode.image_sets import open_images
from ddim_ode.support.shards import Index, Shard, write_index
from tests.helpers.assertions import one_line
from tests.helpers.evaluations import TINY, encrypt, folder_of

PIXELS = TINY.movedim(1, -1).numpy()


@pytest.mark.parametrize("rows", [slice(0, 60), slice(50, 51)])
def test_a_flipped_bit_of_an_npz_is_found_whichever_rows_are_read(rows, tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, PIXELS)
    content = bytearray(file.read_bytes())
    content[content.index(PIXELS.tobytes()) + 33] ^= 1
    file.write_bytes(content)
    message = one_line(DataError, lambda: open_images(file)[rows])
    assert message.startswith(f"{file} is damaged or no .npz file (Bad CRC-32 for file 'arr_0.npy')")


def test_an_encrypted_npz_and_one_of_a_negative_shape_are_one_line(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, PIXELS)
    encrypt(file)
    assert f"{file} is encrypted; give an .npz" in one_line(DataError, open_images, file)
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (-2, -2, 4, 1)})
    with ZipFile(file, "w") as archive:
        archive.writestr("arr_0.npy", header.getvalue() + bytes(16))
    assert "found arr_0 of uint8 (-2, -2, 4, 1)" in one_line(DataError, open_images, file)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_a_channel_are_refused(channels, tmp_path):
    from struct import pack
    from zlib import compress, crc32

    def chunk(name: bytes, content: bytes) -> bytes:
        return pack(">I", len(content)) + name + content + pack(">I", crc32(name + content))

    header = pack(">IIBBBBB", 8, 8, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    row = b"\0" + pack(">H", 0x12FF) * channels * 8
    content = chunk(b"IHDR", header) + chunk(b"IDAT", compress(row * 8)) + chunk(b"IEND", b"")
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with Image.open(tmp_path / "0.png") as picture:
        assert picture.size == (8, 8)
    message = one_line(DataError, open_images, tmp_path)
    assert message == f"{tmp_path}/0.png: found 16 bits a channel, expected 8; convert it first"


def test_the_overview_of_a_folder_of_ours_is_no_sample(tmp_path):
    folder_of(tmp_path, TINY[:3])
    Image.new("L", (4, 4)).save(tmp_path / "grid.png")
    assert len(open_images(tmp_path)) == 4
    (tmp_path / "manifest.json").touch()
    assert open_images(tmp_path).names(slice(0, 9)) == ["00000.png", "00001.png", "00002.png"]
    for file in tmp_path.glob("0*.png"):
        file.unlink()
    assert f"{tmp_path} holds grid.png, an overview, and no images" in one_line(DataError, open_images, tmp_path)


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    images = folder_of(tmp_path / "images", TINY[:3])
    (tmp_path / "job.json").touch()
    for folder in (tmp_path, images):
        assert one_line(DataError, open_images, folder) == (
            f"{tmp_path} is of a run that is not finished, with job.json and without index.json"
            "; run the command that began it again, which goes on"
        )
    write_index(tmp_path, index_of({}, 3, None))
    assert len(open_images(images)) == 3


def index_of(files: dict[str, str], count: int, labels: tuple[int, ...] | None) -> Index:
    return Index(count, count, "npz", (1, 4, 4), "0", (Shard({}, count, "0-9", labels, {1: count}, 0),), files)


def test_an_index_that_contradicts_itself_is_refused(tmp_path):
    np.savez(tmp_path / "samples.npz", PIXELS)
    inside = tmp_path / "folder"
    inside.mkdir()
    for name in ("../samples.npz", str(tmp_path / "samples.npz"), "a\\..\\..\\samples.npz", "C:samples.npz"):
        write_index(inside, index_of({name: "0"}, 60, None))
        message = one_line(DataError, open_images, inside)
        assert message.startswith(
            f"{inside}/index.json contradicts itself: its file {name!r} is not in the folder; give"
        )
    write_index(inside, index_of({}, 60, (1, 2)))
    assert "it has 2 labels of 60 samples" in one_line(DataError, open_images, inside)
