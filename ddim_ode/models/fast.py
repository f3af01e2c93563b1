"""A network that gives up accuracy for speed: compiled, in channels_last and under bfloat16 autocast."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format


class Fast(nn.Module):
    """A copy of a network that computes convolutions and products of matrices in bfloat16; input and output keep
    their dtype.

    torch.compile takes a minute, more or less, at the first call: once for all sizes of batch, once more for a single
    sample. A later process finds most of it in torch's cache. On a CPU it needs a C++ compiler.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = convert_conv2d_weight_memory_format(copy.deepcopy(net), torch.channels_last)
        self.net.compile()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.net.compile()  # torch leaves what it has compiled out of a copy, which would be slow and say nothing

    def forward(self, x: Tensor, *rest: Tensor, **told: Tensor) -> Tensor:
        layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
        # Each layout of an input is compiled for: an expanded time or label has another than one of a value a sample.
        inputs = [x.clone(memory_format=layout), *(v.clone(memory_format=torch.contiguous_format) for v in rest)]
        keywords = {name: v.clone(memory_format=torch.contiguous_format) for name, v in told.items()}
        for value in (*inputs, *keywords.values()):
            torch._dynamo.maybe_mark_dynamic(value, 0)
        with torch.autocast(x.device.type, torch.bfloat16):
            out: Tensor = self.net(*inputs, **keywords)
        return out.to(x.dtype) if isinstance(out, Tensor) else out  # what is no tensor, `Denoiser` refuses
