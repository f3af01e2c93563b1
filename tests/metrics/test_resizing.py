"""Images for Inception, resized by Pillow alone: here each pixel is a sum of others by the formula."""

import numpy as np
import pytest
import torch

from ddim_ode.metrics import resizing


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def matrix(size: int) -> np.ndarray:
    """Of a row of `size` pixels to 299: the kernel as wide as a pixel of the coarser of the two."""
    scale = size / resizing.SIZE
    width = max(scale, 1)
    centres = (np.arange(resizing.SIZE) + 0.5) * scale
    weights = cubic((np.arange(size) + 0.5 - centres[:, None]) / width)
    weights[abs(np.arange(size) + 0.5 - centres[:, None]) >= 2 * width] = 0
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("shape", [(1, 20, 33), (3, 400, 350)])
def test_clean_is_bicubic_with_antialiasing_and_is_not_rounded(shape):
    images = torch.randint(256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows, columns = matrix(shape[1]), matrix(shape[2])
    expected = rows @ images.double().numpy() @ columns.T
    found = resizing.clean(images)
    assert (found.shape, found.dtype) == ((2, shape[0], 299, 299), torch.float32)
    np.testing.assert_allclose(found, expected.clip(0, 255), atol=2e-3)
    assert (found - found.round()).abs().max() > 0.4
    assert expected.min() < -1  # so that clipping was at work
    assert found.min() == 0
    rounded = resizing.rounded(images)
    assert rounded.dtype == torch.uint8
    across = (images.double().numpy() @ columns.T).clip(0, 255).round()  # Pillow rounds after each direction
    difference = abs(rounded.double().numpy() - (rows @ across).clip(0, 255).round())
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_images_of_the_size_stay_as_they_are():
    images = torch.randint(256, (1, 1, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(resizing.rounded(images), images)
    assert torch.equal(resizing.clean(images), images.float())
