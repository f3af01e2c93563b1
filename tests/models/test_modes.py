"""A network in training mode is refused whenever that begins, however it is called, and no other is."""

import copy
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from accelerate import cpu_offload
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser, DenoiserError
from tests.helpers.assertions import one_line
from tests.helpers.networks import Around, tiny_unet
from tests.helpers.tensors import normal

PATH = paths.DiscreteVP.linear()
X = normal(2, 4, seed=0, dtype=torch.float32)


class Attends(Around):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x[:, None], x[:, None], x[:, None])[0][:, 0]


class Norms(Around):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x[None])[0]


class Recurs(Around):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x)[0]


class DropsByFunction(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=self.training)


class DropsInAMethod(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.drop(x)

    def drop(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1) < 0.5) if self.training else x


class DropsInAttention(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        q = x[:, None, :, None]
        return F.scaled_dot_product_attention(q, q, q, dropout_p=0.5 if self.training else 0.0)[:, 0, :, 0]


class DropsByName(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return [x, x * torch.rand(len(x), 1)][getattr(self, "training")]  # noqa: B009


class Inherits(DropsInAMethod):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 2 * super().forward(x, t)


def decorated() -> nn.Module:
    class Decorated(nn.Module):
        @torch.no_grad()
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return F.dropout(x, 0.5, self.training)

    return Decorated()


def decorated_method() -> nn.Module:
    class Decorated(DropsInAMethod):
        @torch.no_grad()
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.drop(x)

    return Decorated()


def hooked() -> nn.Module:
    net = Around(nn.Linear(4, 4))
    net.register_forward_hook(lambda module, inputs, out: F.dropout(out, 0.5, module.training))
    return net


def offloaded() -> nn.Module:
    return cpu_offload(DropsInAMethod(), execution_device=torch.device("cpu"))


def method_of_another() -> nn.Module:
    net = Around(nn.Linear(4, 4))
    net.forward = MethodType(DropsByFunction.forward, net)
    return net


def bound() -> nn.Module:
    net = Around(nn.Linear(4, 4))
    net.forward = lambda x, t: F.dropout(x, 0.5, net.training)
    return net


#: networks that draw at random, or change, while they are trained
MOODY = {
    "Dropout": lambda: Around(nn.Dropout(0.5)),
    "AlphaDropout": lambda: Around(nn.AlphaDropout(0.5)),
    "RReLU": lambda: Around(nn.RReLU()),
    "BatchNorm": lambda: Around(nn.BatchNorm1d(4)),
    "SyncBatchNorm": lambda: Around(nn.SyncBatchNorm(4)),
    "InstanceNorm": lambda: Norms(nn.InstanceNorm1d(2, track_running_stats=True)),
    "attention": lambda: Attends(nn.MultiheadAttention(4, 1, dropout=0.5, batch_first=True)),
    "LSTM": lambda: Recurs(nn.LSTM(4, 4, 2, dropout=0.5)),
    "Transformer": lambda: Around(nn.TransformerEncoderLayer(4, 1, 4)),
    "spectral norm": lambda: Around(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))),
    "spectral norm by a hook": lambda: Around(nn.utils.spectral_norm(nn.Linear(4, 4))),
    "a function": DropsByFunction,
    "a method": DropsInAMethod,
    "of attention": DropsInAttention,
    "by name": DropsByName,
    "inherited": Inherits,
    "decorated": decorated,
    "decorated, by a method": decorated_method,
    "hooked": hooked,
    "offloaded": offloaded,
    "bound": bound,
    "bound from another": method_of_another,
    "scripted": lambda: torch.jit.script(Around(nn.Dropout(0.5))),
    "UNet": lambda: tiny_unet(dropout=0.1, num_classes=0),
}
#: and those that do not, although they are in training mode
STEADY = {
    "Linear": lambda: Around(nn.Linear(4, 4)),
    "no dropout": lambda: Around(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0), nn.GroupNorm(2, 4), nn.SiLU())),
    "InstanceNorm": lambda: Norms(nn.InstanceNorm1d(2)),
    "attention": lambda: Attends(nn.MultiheadAttention(4, 1, batch_first=True)),
    "GRU": lambda: Recurs(nn.GRU(4, 4)),
    "norm of p": lambda: Around(nn.LPPool1d(2.0, 1)),
}


def denoiser(net: object, shape: tuple[int, ...] = (4,)) -> Denoiser:
    return Denoiser(net, PATH, "noise", shape)


@pytest.mark.parametrize("name", MOODY)
def test_training_mode_is_refused_when_a_model_is_made_and_at_every_call(name):
    net = MOODY[name]()
    shape = (1, 8, 8) if name == "UNet" else (4,)
    x = normal(2, *shape, seed=0, dtype=torch.float32)
    for training in (net.train(), None):
        if training is not None:
            words = one_line(DenoiserError, denoiser, net, shape)
            assert "net is in training mode" in words
            assert "call net.eval() first" in words
    model = denoiser(net.eval(), shape)
    first = model(x, 1.0).noise
    assert torch.equal(model(x, 1.0).noise, first)
    net.train()  # a training loop goes on
    assert "training mode" in one_line(DenoiserError, model, x, 1.0)
    net.eval()
    assert torch.equal(model(x, 1.0).noise, first)


@pytest.mark.parametrize("name", STEADY)
def test_what_computes_the_same_in_training_mode_is_taken(name):
    net = STEADY[name]()
    assert net.training
    model = denoiser(net)
    torch.testing.assert_close(model(X, 1.0).noise, denoiser(copy.deepcopy(net).eval())(X, 1.0).noise)


CONFIG = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16), "layers_per_block": 1}
CONFIG |= {"norm_num_groups": 4}
OF_DIFFUSERS = {
    "UNet2DModel": lambda **more: UNet2DModel(
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, **CONFIG, **more
    ),
    "UNet2DConditionModel": lambda **more: UNet2DConditionModel(
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        cross_attention_dim=4,
        attention_head_dim=4,
        **CONFIG,
        **more,
    ),
}


class Sampled(nn.Module):
    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t, torch.zeros(len(x), 1, 4)).sample


class Unconditional(Sampled):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t).sample


@pytest.mark.parametrize("name", OF_DIFFUSERS)
def test_networks_of_diffusers_only_drop_if_they_say_so(name):
    around = Unconditional if name == "UNet2DModel" else Sampled
    x = normal(2, 1, 8, 8, seed=0, dtype=torch.float32)
    net = around(OF_DIFFUSERS[name]()).train()
    found = denoiser(net, (1, 8, 8))(x, 1.0).noise
    assert torch.equal(denoiser(net.eval(), (1, 8, 8))(x, 1.0).noise, found)
    dropping = around(OF_DIFFUSERS[name](dropout=0.1))
    assert "its Dropout reads the mode" in one_line(DenoiserError, denoiser, dropping.train(), (1, 8, 8))


class NamesTheMode(nn.Module):
    """It says the word, and computes nothing by it."""

    def __init__(self) -> None:
        super().__init__()
        self.began = self.training

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return {"training": x}["training"]

    def report(self) -> str:
        return f"training: {self.training}"

    def train(self, mode: bool = True) -> nn.Module:
        self.training = mode
        return self


def test_a_word_is_no_mode():
    torch.testing.assert_close(denoiser(NamesTheMode())(X, 1.0).noise, X / 2**0.5)
