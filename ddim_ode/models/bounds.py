"""How large a network may be said to be: no real one comes near, and a slip or a strange file costs neither memory nor
time.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

if TYPE_CHECKING:
    from ddim_ode.models.unet import UNetConfig

MOST_LEVELS = 16
MOST_WIDTH = 65_536  # of an image, or in channels
MOST_BLOCKS = 100
MOST_CLASSES = 10_000_000
MOST_NUMBERS = 2**30  # in an image
MOST_PARAMETERS = 20_000_000_000
MOST_TIMESTEPS = 1_000_000

Width = Annotated[int, Field(ge=1, le=MOST_WIDTH)]
Blocks = Annotated[int, Field(ge=1, le=MOST_BLOCKS)]
Classes = Annotated[int, Field(ge=1, le=MOST_CLASSES)]
Timesteps = Annotated[int, Field(ge=2, le=MOST_TIMESTEPS)]


def parameters(c: "UNetConfig") -> int:
    """How many numbers the weights of a `UNet` are, counted without building it."""
    width, emb, last = c.channels[0], 4 * c.channels[0], len(c.channels) - 1
    data = c.shape[0] * c.patch**2

    def conv(a: int, b: int, side: int = 3) -> int:
        return (a * side**2 + 1) * b

    def block(a: int, b: int, attend: bool = False) -> int:
        count = 2 * a + conv(a, b) + (emb + 1) * b * (1 + c.scale_shift) + 2 * b + conv(b, b)
        count += conv(a, b, 1) if a != b else 0
        return count + (2 * b + conv(b, 3 * b, 1) + conv(b, b, 1) if attend else 0)

    def resample(n: int) -> int:
        return block(n, n) if c.resample == "block" else conv(n, n)

    told = c.condition.image[0] * c.patch**2 if c.condition else 0
    embeddings = 2 if c.condition and c.condition.noise else 1
    count = embeddings * ((width + 1) * emb + (emb + 1) * emb)
    count += conv(data + told, width) + 2 * width + conv(width, data)
    count += (c.num_classes + c.null_class) * emb if c.num_classes else 0
    skips, current = [width], width
    for level, out in enumerate(c.channels):
        for _ in range(c.blocks):
            count += block(current, out, level in c.attention)
            skips.append(current := out)
        if level < last:
            count += resample(out)
            skips.append(out)
    count += block(current, current, c.mid_attention) + block(current, current)
    for level, out in reversed(list(enumerate(c.channels))):
        for _ in range(c.blocks + 1):
            count += block(current + skips.pop(), out, level in c.attention)
            current = out
        count += resample(out) if level else 0
    return count
