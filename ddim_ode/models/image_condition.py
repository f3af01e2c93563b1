"""An image that a network is told besides x and t, as one that raises resolution is told the low one.

    net input = [x, resized(image)] on channels         Saharia et al. 2021 (SR3, arXiv:2104.07636)
    told      = sqrt(1 - s^2) image + s eps             conditioning augmentation: Ho et al. 2021 (arXiv:2106.15282)

Augmentation hides from a stage what the one before it gets wrong: in training s is drawn, and the network is told it;
in sampling it is chosen.
"""

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ddim_ode.models.bounds import Width
from ddim_ode.models.conditions import ConditionError

TIMES = 1000.0  # the level 0..1 is embedded as a timestep is


class ConditionConfig(BaseModel):
    """The image that a network is told. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: tuple[Width, Width, Width] = Field(description="(C, H, W) of it, before it is resized to the network's")
    noise: bool = Field(False, description="whether the network is also told how much noise is in it")


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, h, w) at another size (H, W), bilinear and without antialiasing; as they are where they have it."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=False)


def shrunk(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) at a size (h, w) that divides theirs, or is theirs: the means of boxes of pixels."""
    if tuple(x.shape[-2:]) == size:
        return x
    return F.avg_pool2d(x, (x.shape[-2] // size[0], x.shape[-1] // size[1]))


def noised(image: Tensor, level: Tensor, eps: Tensor) -> Tensor:
    """Images (B, C, h, w) with noise eps of standard deviation level (B,) in [0, 1] in them, in total variance 1."""
    level = level.to(image)[:, None, None, None]
    return (1 - level**2).sqrt() * image + level * eps


def divides(small: tuple[int, int, int], large: tuple[int, int, int]) -> bool:
    """Whether an image of shape `small` can be had from one of shape `large` by means of boxes."""
    return small[0] == large[0] and all(b % a == 0 for a, b in zip(small[1:], large[1:], strict=True))


def check_told(condition: ConditionConfig | None, image: Tensor | None, noise: Tensor | None, count: int) -> None:
    """Raise ConditionError where a network is not told what its configuration says."""
    if condition is None:
        if image is not None or noise is not None:
            raise ConditionError("this network is told no image; leave the conditions image and image_noise out")
        return
    if image is None:
        raise ConditionError(
            f'this network is told an image of shape {condition.image}; give conditions={{"image": images}}'
        )
    if image.shape != (count, *condition.image):
        raise ConditionError(
            f'conditions["image"] has shape {tuple(image.shape)}, and this network is told ({count}, '
            f"{', '.join(map(str, condition.image))}); resize it, or give one image a sample"
        )
    if noise is not None and not condition.noise:
        raise ConditionError("this network is not told how noisy its image is; leave the condition image_noise out")
    if noise is not None and noise.shape != (count,):
        raise ConditionError(f'conditions["image_noise"] has shape {tuple(noise.shape)}; give ({count},), one a sample')
