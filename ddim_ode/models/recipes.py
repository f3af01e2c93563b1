"""How a network is made fast on the hardware that is there: the precision of its products, and what they are made of.

Whatever the hardware, images are laid out with their channels last, and the network is compiled.
"""

import copy
import platform
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.nn.utils.parametrize import is_parametrized

from ddim_ode.models.winograd import Winograd, fits

AMPERE = (8, 0)  # compute capability of the first cards that multiply in bfloat16
#: the modules whose weights autocast rounds at every call, so that they can be rounded once
ROUNDED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Recipe:
    """What is done to a network.

    hardware: what it is for, in words.
    dtype: of convolutions and products of matrices; float32 where the hardware gains nothing from less.
    winograd: whether 3 x 3 convolutions are done with fewer multiplications, see `winograd`.
    graphs: whether the kernels of a pass are launched as one, as a CUDA graph.
    """

    hardware: str
    dtype: torch.dtype = torch.bfloat16
    winograd: bool = False
    graphs: bool = False

    def __str__(self) -> str:
        told = [self.precision, "channels_last"]
        told += ["Winograd's convolutions"] * self.winograd + ["CUDA graphs"] * self.graphs
        return ", ".join(told)

    @property
    def precision(self) -> str:
        """The dtype by its name."""
        return str(self.dtype).removeprefix("torch.")

    def suited_to(self, net: nn.Module) -> "Recipe":
        """What of it is done to this network."""
        return replace(self, winograd=self.winograd and any(map(fits, net.modules())))

    def prepared(self, net: nn.Module) -> nn.Module:
        """A copy of a network with the weights that this needs, to be run under `autocast` and compiled."""
        fitting = [module for module in net.modules() if fits(module)] if self.winograd else []
        made: dict[int, Any] = {id(module): Winograd(module, self.dtype) for module in fitting}
        found: nn.Module = copy.deepcopy(net, made)  # which takes those for the copies that it has made
        found = convert_conv2d_weight_memory_format(found, torch.channels_last).requires_grad_(False)
        for module in found.modules() if self.dtype != torch.float32 else ():
            if type(module) in ROUNDED and not is_parametrized(module):
                weight = module.get_parameter("weight")
                module.weight = nn.Parameter(weight.to(self.dtype), requires_grad=False)
        return found

    def autocast(self, device: torch.device) -> torch.autocast:
        """Within it, convolutions and products of matrices are computed in `dtype`."""
        rounds = self.dtype != torch.float32
        return torch.autocast(device.type, self.dtype if rounds else None, enabled=rounds)


def recipe_for(device: torch.device) -> Recipe:
    """What is fastest there."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) >= AMPERE:
            return Recipe("CUDA", graphs=True)
        return Recipe("CUDA without bfloat16", dtype=torch.float16, graphs=True)
    if device.type != "cpu":
        return Recipe(device.type)
    if _cpu_has("amx_tile"):  # its multiplications are so cheap that Winograd's additions are not
        return Recipe("CPU with AMX")
    if _cpu_has("avx512_bf16"):
        return Recipe("CPU with AVX-512 BF16", winograd=True)
    if platform.machine().lower() in ("aarch64", "arm64") and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return Recipe("ARM CPU with BF16")
    return Recipe("CPU without BF16", dtype=torch.float32)  # which would be put together from other instructions


def _cpu_has(instructions: str) -> bool:
    """Whether torch tells of them; an older one that knows no such question counts as none."""
    ask = getattr(torch.cpu, f"_is_{instructions}_supported", None)
    return bool(ask and ask())
