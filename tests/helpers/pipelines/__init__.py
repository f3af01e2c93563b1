"""A zoo of whole pipelines of diffusers, tiny and with random weights."""

from tests.helpers.pipelines import (  # noqa: F401  (they fill the zoo)
    audio,
    cascades,
    families,
    flows,
    flows_more,
    flows_recent,
    pixels,
    stable_diffusion,
    stable_diffusion_xl,
    transformers_vp,
    unusual,
    video,
    video_flows,
    video_sigmas,
)
from tests.helpers.pipelines.tiny import ZOO, Tiny

__all__ = ["ZOO", "Tiny"]
