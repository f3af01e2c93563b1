"""Pictures to files.

Pixels of what is written are read back from the PNG files and compared with where they must lie.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from ddim_ode.data import save_grid, save_images, to_float


def random_pictures(count: int, channels: int, height: int = 3, width: int = 5) -> torch.Tensor:
    """Random bytes, uint8 (count, channels, height, width)."""
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, channels, height, width), generator=generator).to(torch.uint8)


def read(file) -> np.ndarray:
    """(H, W, C) uint8."""
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.mode in ("L", "RGB")
        array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("count", "columns", "margin", "zoom"),
    [(6, 3, 2, 2), (7, 3, 2, 2), (1, 1, 0, 1), (2, 4, 1, 1), (5, 1, 3, 4), (4, 2, 0, 3)],
)
def test_every_pixel_of_a_grid_is_where_it_must_be(tmp_path, channels, count, columns, margin, zoom):
    x = random_pictures(count, channels)
    height, width = x.shape[2:]
    rows = -(-count // columns)
    expected = np.full(
        (rows * (height * zoom + margin) + margin, columns * (width * zoom + margin) + margin, channels), 255
    )
    for i, image in enumerate(x):
        top = margin + i // columns * (height * zoom + margin)
        left = margin + i % columns * (width * zoom + margin)
        for row in range(height * zoom):
            for column in range(width * zoom):
                expected[top + row, left + column] = image[:, row // zoom, column // zoom].numpy()
    save_grid(to_float(x), tmp_path / "grid.png", columns=columns, margin=margin, zoom=zoom)
    np.testing.assert_array_equal(read(tmp_path / "grid.png"), expected)


def test_the_default_grid_has_eight_columns(tmp_path):
    save_grid(torch.zeros(16, 1, 28, 28), tmp_path / "grid.png")
    assert read(tmp_path / "grid.png").shape == (2 * (56 + 2) + 2, 8 * (56 + 2) + 2, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_are_numbered_and_keep_their_bytes(tmp_path, channels, dtype):
    x = random_pictures(12, channels)
    files = save_images(to_float(x).to(dtype), tmp_path / "new" / "folder")
    assert [file.name for file in files] == [f"{i:05d}.png" for i in range(12)]
    assert sorted((tmp_path / "new" / "folder").iterdir()) == files
    for image, file in zip(x, files, strict=True):
        np.testing.assert_array_equal(read(file), image.movedim(0, -1).numpy())


def test_values_outside_the_data_range_are_clipped(tmp_path):
    x = torch.tensor([-1e9, -1.01, -1.0, 0.0, 1.0, 1.5]).reshape(1, 1, 1, 6)
    (file,) = save_images(x, tmp_path)
    assert read(file).flatten().tolist() == [0, 0, 0, 128, 255, 255]


def test_the_caller_keeps_their_tensor(tmp_path):
    x = torch.full((2, 1, 4, 4), 3.0)
    save_grid(x, tmp_path / "grid.png")
    save_images(x, tmp_path)
    assert torch.equal(x, torch.full((2, 1, 4, 4), 3.0))


@pytest.mark.parametrize("shape", [(2, 4), (4, 4, 4), (1, 2, 4, 4), (1, 4, 4, 4)])
@pytest.mark.parametrize("write", [save_grid, save_images])
def test_a_tensor_that_is_no_image_is_refused(tmp_path, shape, write):
    with pytest.raises(ValueError, match=r"no images; pictures need \(B, 1 or 3, H, W\)"):
        write(torch.zeros(shape), tmp_path / "out")
    assert not any(file.is_file() for file in tmp_path.rglob("*"))
