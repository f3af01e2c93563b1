"""A model can be copied and pickled, whatever its network's convention, and a copy stands on its own."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser, DenoiserError
from ddim_ode.models.guidance import Guided
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import normal

PATH = paths.DiscreteVP.linear()
X = normal(2, 3, 4, seed=0, dtype=torch.float32)
EDM, K, FLOW = Denoiser.from_edm, Denoiser.from_k_diffusion, Denoiser.from_flow


def zeros(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    return 0 * x


class Layer(nn.Module):
    sigma_min, sigma_max = 0.01, 80.0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None, **more: Tensor) -> Tensor:
        return self.layer(x) + 0 * t.reshape(-1, 1, 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
@pytest.mark.parametrize(
    "model",
    [
        Denoiser(Layer(), PATH, "noise", (3, 4)),
        EDM(Layer(), (3, 4), num_classes=3),
        K(Layer(), (3, 4), num_classes=3, extra_args={"mapping_cond": None}),
        FLOW(Layer(), (3, 4), data_at=1, time_scale=1000.0),
        Denoiser.from_v(Layer(), (3, 4)),
        Denoiser.from_score(Layer(), (3, 4), num_classes=3),
        EDM(zeros, (3, 4)),
        Guided(EDM(Layer(), (3, 4), num_classes=3), 2.0),
        labelled((3, 4)).denoiser(PATH),
    ],
    ids=lambda model: type(getattr(model, "net", model)).__name__,
)
def test_models_can_be_copied_and_pickled(model, copied):
    labels = torch.tensor([0, 1]) if model.num_classes else None
    found, expected = copied(model)(X, 1.0, labels), model(X, 1.0, labels)
    assert torch.equal(found.data, expected.data)
    assert torch.equal(found.noise, expected.noise)


def test_a_copy_watches_its_own_network():
    model = Denoiser(nn.Sequential(nn.Dropout(0.5)).eval(), PATH, "noise", (3, 4))
    other = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert other.net[0] is not model.net[0]
    other.net.train()
    assert "training mode" in one_line(DenoiserError, other, X, 1.0)
    assert model.net[0].training is False
