"""Networks of a pipeline that something is put around, or beside."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline

from ddim_ode.integrations.pipelines import PipelineError, from_pipeline
from tests.helpers.assertions import one_line
from tests.helpers.denoising import NET, SHAPE, ddim, text_unet


class Adapted(torch.nn.Module):
    """What peft puts around a network: it has the network's answers, changed, and no config of it."""

    def __init__(self, net: torch.nn.Module):
        super().__init__()
        self.base_model = net

    def get_base_model(self) -> torch.nn.Module:
        return self.base_model

    def forward(self, *inputs: Any, **options: Any) -> Any:
        found = self.base_model(*inputs, **options)
        found.sample = 2 * found.sample
        return found


WRAPPERS = {
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "data parallel": torch.nn.DataParallel,
    "adapted": Adapted,
    "both": lambda net: Adapted(torch.nn.DataParallel(net)),
}


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize("prompts", [False, True])
def test_a_network_in_a_wrapper_is_known_and_the_wrapper_is_called(kind, prompts):
    inside = text_unet() if prompts else NET
    pipe = SimpleNamespace(unet=WRAPPERS[kind](inside), scheduler=ddim())
    given, more = ((torch.ones(1, 5, 8), torch.zeros(1, 5, 8)), (torch.tensor([0]),)) if prompts else ((), ())
    model = from_pipeline(pipe, *given)
    assert model.net.unet is pipe.unet
    x, t = torch.ones(1, *model.shape), torch.tensor([500.0])
    plain = inside(x, t, **({"encoder_hidden_states": given[0]} if prompts else {})).sample
    factor = 2 if "Adapted" in repr(pipe.unet) else 1
    torch.testing.assert_close(model.net(x, t, *more), factor * plain)


def test_another_network_in_a_wrapper_is_refused():
    for wrap in (Adapted, torch.nn.DataParallel):
        pipe = SimpleNamespace(unet=wrap(torch.nn.Linear(1, 1)), scheduler=ddim())
        assert "is a Linear, which is not known here" in one_line(PipelineError, from_pipeline, pipe)


def test_what_somebody_keeps_beside_the_components_is_no_part():
    pipe = DDPMPipeline(NET, ddim())
    pipe.my_lpips = torch.nn.Linear(1, 1)
    assert from_pipeline(pipe).shape == SHAPE
