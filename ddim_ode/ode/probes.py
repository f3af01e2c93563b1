"""The random numbers of a likelihood: probes of the trace, and noise within bytes. Those of sample i are a function of
(seed, i).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ddim_ode.support.seeds import mix

LEVELS = 127.5  # bytes in a unit of data

#: (dimensions, generator) -> a probe v with E[v v'] = I
PROBES: Mapping[str, Callable[[int, torch.Generator], Tensor]] = {
    "rademacher": lambda n, g: 2.0 * torch.randint(2, (n,), generator=g) - 1,
    "gaussian": lambda n, g: torch.randn(n, generator=g),
}


def draw_probes(probe: str, like: Tensor, rows: range, seed: int, count: int) -> Tensor:
    """Probes (K, B, D) in the dtype of `like`, each from a generator of its own, a function of (seed, i, k)."""
    size = like[0].numel()
    vectors = [torch.stack([PROBES[probe](size, _generator(seed, i, k)) for i in rows]) for k in range(count)]
    return torch.stack(vectors).to(like)


def dequantized(x: Tensor, rows: range, seed: int) -> Tensor:
    """Bytes (B, *shape) as data, float64: each anywhere within its 1 / 127.5."""
    each = [torch.rand(x.shape[1:], generator=_generator(seed, i), dtype=torch.float64) for i in rows]
    return (x + torch.stack(each).to(x.device) - 0.5) / LEVELS - 1


def centred(x: Tensor) -> Tensor:
    """Bytes as data, float64, each at the centre of its 1 / 127.5."""
    return x.double() / LEVELS - 1


def _generator(*words: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix(*words))
