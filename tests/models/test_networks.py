"""What is read off a network: its precision, and that of the times it is told."""

import pytest
import torch
from torch import Tensor, nn

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser
from tests.helpers.networks import Around
from tests.helpers.tensors import normal

PATH = paths.DiscreteVP.linear()
X = normal(2, 4, seed=0, dtype=torch.float32)


def denoiser(net: object) -> Denoiser:
    return Denoiser(net, PATH, "noise", (4,))


@pytest.mark.parametrize("state", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "make",
    [
        denoiser,
        lambda net: Denoiser.from_flow(net, (4,)),
        lambda net: Denoiser.from_flow(net, (4,), data_at=1, time_scale=1000),
        lambda net: Denoiser.from_edm(net, (4,)),
        lambda net: Denoiser.from_k_diffusion(net, (4,), sigma_min=0.01, sigma_max=80),
        lambda net: Denoiser.from_v(net, (4,)),
        lambda net: Denoiser.from_score(net, (4,)),
    ],
)
def test_behind_a_function_times_have_the_precision_of_the_state(make, state):
    layer = nn.Linear(1, 4, dtype=state)
    seen = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t.dtype)
        return x + layer(t[:, None])

    assert make(net)(X.to(state), 1.0).data.dtype == state
    assert seen == [state]


def parameters(*dtypes: torch.dtype) -> nn.Module:
    net = Around(nn.Identity())
    for n, dtype in enumerate(dtypes):
        net.register_parameter(f"p{n}", nn.Parameter(torch.zeros(2, dtype=dtype), requires_grad=False))
    return net


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ([torch.int8, torch.bfloat16], torch.bfloat16),
        ([torch.uint8, torch.float16, torch.float32], torch.float16),
        ([torch.float8_e4m3fn, torch.float32], torch.float32),
        ([torch.complex64, torch.int64], torch.float32),
        ([torch.complex128], torch.float64),
        ([torch.int8], None),
    ],
)
def test_the_precision_is_that_of_the_first_parameters_that_have_one(dtypes, expected):
    model = denoiser(parameters(*dtypes))
    assert model.dtype == expected
    assert model(X, 1.0).noise.dtype == X.dtype
