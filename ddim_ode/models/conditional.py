"""What the network inside a model is told, and what asking it costs."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ddim_ode.models.conditions import Conditions
from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.models.fast import Fast
from ddim_ode.models.guidance import Around
from ddim_ode.models.image_condition import ConditionConfig
from ddim_ode.models.provenance import innermost


def network_of(model: Model) -> Any:
    """What a model asks, a module or a function, without what makes it fast; None of a model that asks nothing."""
    net = getattr(innermost(model), "net", None)
    return net.net if isinstance(net, Fast) else net


def is_fast(model: Model) -> bool:
    """Whether the network inside a model is one that `Denoiser.fast` has made."""
    return isinstance(getattr(innermost(model), "net", None), Fast)


def unhurried(model: Model) -> Model:
    """The model with its network as it was before `Denoiser.fast`; itself where that made none."""
    if isinstance(model, Around):
        return replace(model, model=unhurried(model.model))
    return replace(model, net=model.net.net) if isinstance(model, Denoiser) and isinstance(model.net, Fast) else model


def condition_of(model: Model) -> ConditionConfig | None:
    """The image that the network inside a model is told, by its attribute `condition`."""
    found = getattr(network_of(model), "condition", None)
    return found if isinstance(found, ConditionConfig) else None


@torch.no_grad()
def multiply_adds(model: Model) -> int:
    """Multiplications, each with its addition, in a pass of the network for one sample: those that torch counts, of
    convolutions, products of matrices and attention, with its attention on a CPU, which torch counts as nothing.
    """
    model = innermost(model)
    wanted, device = condition_of(model), model.device
    labels = torch.zeros(1, dtype=torch.int64, device=device) if model.num_classes else None
    told = labels if wanted is None else Conditions(labels, {"image": torch.zeros(1, *wanted.image, device=device)})
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={fused: _attention_flops})
    with counter:
        model(torch.zeros(1, *model.shape, device=device), 1.0, told)
    return int(counter.get_total_flops()) // 2


def _attention_flops(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: object, **__: object
) -> int:
    """Of (query key^T) value, by shapes (..., tokens, width); a multiplication with its addition is two."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
