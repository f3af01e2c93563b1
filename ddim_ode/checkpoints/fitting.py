"""Weights under the names that other programs give to the modules of the same network.

A table says what each of our modules is called elsewhere. Three names stand for the query, key and value that are one
convolution here. Shapes may differ by sides of 1, as those of a linear layer and a 1 x 1 convolution do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddim_ode.checkpoints.dialects import parts as parts_of
from ddim_ode.checkpoints.faults import CheckpointError
from ddim_ode.errors import one_line
from ddim_ode.models.unet import UNet, UNetConfig

#: our module -> theirs, or their query, key and value
Names = Mapping[str, str | tuple[str, str, str]]

SHOWN = 3  # names of many


@dataclass(frozen=True)
class Scheme:
    """How a program calls what a ResBlock and its attention are made of."""

    block: Mapping[str, str]
    attention: Mapping[str, str | tuple[str, str, str]]

    def names(self, ours: str, block: str, attention: str) -> dict[str, str | tuple[str, str, str]]:
        """For one of our blocks, which elsewhere are two modules."""
        table: dict[str, str | tuple[str, str, str]] = {f"{ours}.{k}": f"{block}.{v}" for k, v in self.block.items()}
        for k, v in self.attention.items():
            if isinstance(v, str):
                table[f"{ours}.attention.{k}"] = f"{attention}.{v}"
            else:
                query, key, value = v
                table[f"{ours}.attention.{k}"] = (f"{attention}.{query}", f"{attention}.{key}", f"{attention}.{value}")
        return table


def shapes(config: UNetConfig) -> dict[str, torch.Size]:
    """The shape of every weight of our network, by name."""
    with torch.device("meta"):
        return {name: value.shape for name, value in UNet(config).state_dict().items()}


def fit(theirs: Mapping[str, Tensor], names: Names, config: UNetConfig, file: Path) -> dict[str, Tensor]:
    """Their weights under our names.

    Raises:
        CheckpointError: one is missing, has another shape, or has no place in this network.
    """
    left, ours, expected = dict(theirs), {}, shapes(config)
    wanted = {name: _theirs(name, names) for name in expected}
    missing = [key for keys in wanted.values() for key in keys if key not in left]
    if missing:
        raise CheckpointError(
            f"{file}: {_list(missing)} missing; it is another network's, or not whole: it has {parts_of(theirs)}"
        )
    for name, shape in expected.items():
        part = torch.Size([shape[0] // len(wanted[name]), *shape[1:]])
        parts = []
        for key in wanted[name]:
            value = left.pop(key)
            if _core(value.shape) != _core(part):
                found, meant = tuple(value.shape), tuple(part)
                raise CheckpointError(f"{file}: {key} has shape {found}, where its configuration means {meant}")
            parts.append(value.reshape(part))
        ours[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    if left:
        raise CheckpointError(f"{file}: {_list(list(left))} unknown to the network that its configuration means")
    return ours


def unfit(ours: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Our weights under their names; query, key and value apart, as linear layers."""
    theirs = {}
    for name, value in ours.items():
        keys = _theirs(name, names)
        for key, part in zip(keys, value.chunk(len(keys)), strict=True):
            linear = ".attention." in name and part.ndim == 4
            theirs[key] = (part.flatten(1) if linear else part).contiguous()
    return theirs


def _theirs(name: str, names: Names) -> tuple[str, ...]:
    """What one of our weights is called there; three names where query, key and value are apart."""
    module, _, kind = name.rpartition(".")
    found = names[module]
    return tuple(f"{key}.{kind}" for key in ((found,) if isinstance(found, str) else found))


def _core(shape: torch.Size) -> list[int]:
    return [n for n in shape if n != 1]


def _list(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(one_line(key, 100) for key in keys[:SHOWN]) + more + (" is" if len(keys) == 1 else " are")
