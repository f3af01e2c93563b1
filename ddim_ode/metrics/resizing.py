"""How images become the 299 x 299 that Inception takes. The ways differ by whole points of FID; so a number names its
own, and only those of one way are compared (Parmar, Zhang and Zhu 2022, arXiv:2104.11222).
"""

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIZE = 299

RESIZES: Mapping[str, str] = {
    "legacy": "bilinear without antialiasing, as TensorFlow 1 did and most published FIDs do",
    "clean": "bicubic with antialiasing, each channel in float32 and not rounded (Parmar et al. 2022)",
    "bytes": "bicubic with antialiasing, rounded to bytes, as an image file would hold it",
}


def clean(images: Tensor) -> Tensor:
    """Images uint8 (N, C, H, W) to float32 (N, C, 299, 299) in 0..255."""
    planes = images.flatten(0, 1).float().numpy()
    resized = [np.asarray(Image.fromarray(plane).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for plane in planes]
    return torch.from_numpy(np.stack(resized)).clamp(0, 255).reshape(*images.shape[:2], SIZE, SIZE)


def rounded(images: Tensor) -> Tensor:
    """Images uint8 (N, C, H, W) to uint8 (N, C, 299, 299)."""
    planes = images.flatten(0, 1).numpy()
    resized = [np.asarray(Image.fromarray(plane).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for plane in planes]
    return torch.from_numpy(np.stack(resized)).reshape(*images.shape[:2], SIZE, SIZE)
