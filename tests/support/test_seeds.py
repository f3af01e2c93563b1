"""Generators of any whole number."""

import pytest
import torch

from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.support.seeds import generator


@pytest.mark.parametrize(
    ("seed", "same"),
    [(2**64, 0), (2**64 + 5, 5), (-1, 2**64 - 1), (-(2**63), 2**63), (10**400 + 1, (10**400 + 1) % 2**64)],
)
def test_a_seed_may_have_any_number_of_bits(seed: int, same: int) -> None:
    expected = torch.Generator().manual_seed(same)
    assert torch.equal(torch.randn(4, generator=generator(seed)), torch.randn(4, generator=expected))


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**64 - 1, -5])
def test_torch_would_draw_the_same(seed: int) -> None:
    expected = torch.Generator().manual_seed(seed)
    assert torch.equal(torch.randn(4, generator=generator(seed)), torch.randn(4, generator=expected))


def test_samples_of_a_mixture_take_such_a_seed() -> None:
    mixture = GaussianMixture(torch.zeros(1, 2), 1.0)
    assert torch.equal(mixture.sample(3, seed=2**64 + 7), mixture.sample(3, seed=7))
