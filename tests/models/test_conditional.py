"""What a pass of a network costs, by formulas."""

import torch
import torch.nn.functional as F
from torch import nn

from ddim_ode.models.conditional import multiply_adds
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.paths import Flow

HEADS, TOKENS, WIDTH = 2, 9, 8


class Attention(nn.Module):
    """Nothing but attention of an image's values with themselves."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x)


class Product(nn.Module):
    """Nothing but a product with a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out


def test_attention_and_products_are_counted():
    shape = (HEADS, TOKENS, WIDTH)
    attention, product = (Denoiser(net, Flow(0.01, 50.0), "data", shape) for net in (Attention(), Product()))
    assert multiply_adds(product) == HEADS * TOKENS * WIDTH**2
    assert multiply_adds(attention) == 2 * HEADS * TOKENS**2 * WIDTH  # query with key, and weights with value
