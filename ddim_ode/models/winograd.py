"""A 3 x 3 convolution in 4/9 of the multiplications: Winograd's F(2 x 2, 3 x 3), of Lavin & Gray 2016, Sec. 4.1.

    Y = A' [(G g G') * (B' d B)] A

for each tile d of 4 x 4 pixels, two apart, and each 2 x 2 of the output, Y. Over the channels the products are 16
products of matrices; B and A hold 0, 1 and -1, exact in any precision, and act as matrices too, of 16 x 16 and 4 x 16.
What is saved is multiplications alone, so that it pays where those are dear.
"""

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCHED = {"forward", "_conv_forward"}  # by programs that give a module others than its class's, to tile images
LEAST = 128  # channels: with 64 and 96 all else costs more than is saved, see docs/benchmarks.md
A = ((1, 1, 1, 0), (0, 1, -1, -1))  # transposed
B = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # transposed
G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))


class Winograd(nn.Module):
    """What a convolution that `fits` does, with its weights transformed and rounded to `dtype` once.

    forward: (B, C, H, W) of any dtype -> (B, C', H, W) of `dtype`, in channels_last.
    """

    weight: Tensor  # (16, C, C')
    bias: Tensor | None
    before: Tensor  # (16, 16)
    after: Tensor  # (4, 16)

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype):
        super().__init__()
        exact = torch.promote_types(dtype, torch.float32)  # more changes a weight in 60,000 by its last bit
        a, b, g = (torch.tensor(rows, dtype=exact, device=conv.weight.device) for rows in (A, B, G))
        weight = torch.einsum("xi,yj,ocij->xyco", g, g, conv.weight.detach().to(exact)).flatten(0, 1)
        self.register_buffer("weight", weight.to(dtype).contiguous())
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().to(dtype))
        self.register_buffer("before", torch.kron(b, b).to(dtype))
        self.register_buffer("after", torch.kron(a, a).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        rows, columns = (height + 1) // 2, (width + 1) // 2  # of tiles
        tiled, made = count * rows * columns, self.weight.shape[2]
        padded = F.pad(x.to(self.weight.dtype).permute(0, 2, 3, 1), (0, 0, 1, 1 + width % 2, 1, 1 + height % 2))
        tiles = padded.unfold(1, 4, 2).unfold(2, 4, 2).permute(4, 5, 0, 1, 2, 3).reshape(16, tiled * channels)
        products = torch.bmm((self.before @ tiles).reshape(16, tiled, channels), self.weight)
        out = (self.after @ products.reshape(16, tiled * made)).reshape(2, 2, count, rows, columns, made)
        out = out.permute(2, 3, 0, 4, 1, 5).reshape(count, 2 * rows, 2 * columns, made)
        if self.bias is not None:
            out = out + self.bias
        return out[:, :height, :width].permute(0, 3, 1, 2)


def fits(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether `Winograd` can stand for it: a 3 x 3 convolution that nothing has changed, with channels enough."""
    return (
        type(module) is nn.Conv2d
        and not PATCHED & vars(module).keys()
        and not module.weight.is_complex()
        and not module._forward_pre_hooks
        and not module._forward_hooks
        and module.kernel_size == (3, 3)
        and module.stride == module.dilation == (1, 1)
        and module.padding in ((1, 1), "same")
        and (module.padding_mode, module.groups) == ("zeros", 1)
        and min(module.in_channels, module.out_channels) >= LEAST
    )
