"""The digest of a model: of its weights, whatever is put around the network."""

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import nn

from ddim_ode import paths
from ddim_ode.inversion import decode, encode
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.identity import fingerprint
from tests.helpers.networks import random_network
from tests.helpers.tensors import normal

MODEL = random_network()


def on(net: nn.Module) -> Denoiser:
    return Denoiser(net, MODEL.path, "noise", MODEL.shape, MODEL.num_classes)


class Inside(nn.Module):
    """A network in another one, as a pipeline's is."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.module = net  # a name that is not a wrapper's here

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.module(*inputs)


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")


@pytest.mark.parametrize(
    "around",
    [
        compiled,
        nn.DataParallel,
        lambda net: compiled(nn.DataParallel(net)),
        lambda net: nn.DataParallel(compiled(net)),
        lambda net: cpu_offload(copy.deepcopy(net), execution_device=torch.device("cpu")),
    ],
    ids=["compiled", "parallel", "compiled of parallel", "parallel of compiled", "offloaded"],
)
@pytest.mark.parametrize("outer", [None, Inside], ids=["alone", "inside"])
def test_what_is_put_around_a_network_does_not_count(around, outer):
    net = MODEL.net if outer is None else outer(MODEL.net)
    other = around(MODEL.net) if outer is None else outer(around(MODEL.net))
    assert fingerprint(on(other)) == fingerprint(on(net))


def test_the_disk_is_read(tmp_path):
    net = disk_offload(copy.deepcopy(MODEL.net), str(tmp_path), execution_device=torch.device("cpu"))
    assert fingerprint(on(net)) == fingerprint(MODEL)


class Shrinks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5), requires_grad=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_a_compiled_network_decodes_what_the_plain_one_encoded():
    net = Shrinks()
    plain, fast = (Denoiser(n, MODEL.path, "noise", (4,)) for n in (net, compiled(net)))
    latent = encode(plain, normal(1, 4, seed=0, dtype=torch.float32).clamp(-1, 1), nfe=4)
    assert torch.equal(decode(fast, latent).x, decode(plain, latent).x)


def test_other_weights_precisions_and_ways_of_computing_count(monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", lambda module: None)
    other = copy.deepcopy(MODEL.net)
    with torch.no_grad():
        next(other.parameters()).flatten()[0] += 1
    found = [MODEL, on(other), MODEL.to(dtype=torch.float64), MODEL.fast(), on(Inside(MODEL.net))]
    assert len({fingerprint(model) for model in found}) == len(found)


def test_the_digest_of_a_plain_network_is_that_of_files_made_before():
    with torch.no_grad():
        net = nn.Linear(2, 2)
        net.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        net.bias.zero_()
    plain = fingerprint(Denoiser(net, paths.DiscreteVP.linear(), "noise", (2,)))
    assert plain == "d5e4db7052fc9ac133a092e2db6a01661c6c326114a60a20ff7d0bdadd3afb13"
    assert (
        fingerprint(Denoiser(lambda x, t: x, paths.DiscreteVP.linear(), "noise", (2,)))
        == "96d3fdc14370bd2391ff3ae4a9bdc24454a6bc647e03ec2fd9b46d1c8bba6ca5"
    )
