"""A `UNet2DModel` that is told an image beside x, as `LDMSuperResolutionPipeline`'s: read, wrapped and written."""

from pathlib import Path

import pytest
import torch

from ddim_ode import checkpoints
from ddim_ode.cascade import Cascade
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.checkpoints.diffusers_folder import Wrapped, save_diffusers
from ddim_ode.models.conditional import condition_of
from ddim_ode.models.conditions import ConditionError
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.unet import UNet
from ddim_ode.planning.options import SolveOptions
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.networks import tiny_unet

diffusers = pytest.importorskip("diffusers")
SHAPE = (3, 8, 8)
COMMON = {
    "sample_size": 8,
    "in_channels": 6,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 8,
}


def written(folder: Path, **changes: object) -> "diffusers.UNet2DModel":
    """A pipeline's folder around a network of random weights."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**{**COMMON, **changes})
    diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler()).save_pretrained(folder)
    return unet.eval()


@pytest.mark.parametrize(
    ("changes", "kind"), [({}, UNet), ({"act_fn": "gelu"}, Wrapped)], ids=["as our UNet", "wrapped"]
)
def test_it_computes_what_theirs_does_of_x_and_the_image(changes, kind, tmp_path):
    theirs = written(tmp_path, **changes)
    model = checkpoints.load(tmp_path, check=False)
    g = torch.Generator().manual_seed(1)
    x, image = torch.randn(2, *SHAPE, generator=g), torch.rand(2, *SHAPE, generator=g) * 2 - 1
    assert isinstance(model.net, kind)
    assert model.shape == SHAPE
    with torch.no_grad():
        expected = theirs(torch.cat([x, image], dim=1), torch.tensor([5, 700])).sample
    assert torch.allclose(model.net(x, torch.tensor([5.0, 700.0]), image=image), expected, atol=1e-4)
    assert condition_of(model).image == SHAPE
    assert 'give conditions={"image": images}' in one_line(ConditionError, sample, model)


def test_it_is_a_stage_of_a_cascade(tmp_path):
    written(tmp_path)
    model = checkpoints.load(tmp_path, check=False)
    image = torch.rand(2, *SHAPE) * 2 - 1
    found = Cascade([model]).sample(SolveOptions(nfe=3), image=image)
    assert torch.equal(found.x, sample(model, nfe=3, seeds=range(2), conditions={"image": image}).x)


def test_one_that_is_told_a_level_of_noise_is_refused_by_name(tmp_path):
    written(tmp_path, class_embed_type="timestep")
    assert "class_embed_type='timestep'" in one_line(CheckpointError, checkpoints.load, tmp_path, check=False)


def test_ours_is_written_where_theirs_can_be_it(tmp_path):
    net = tiny_unet(shape=SHAPE, condition={"image": SHAPE}, num_classes=0)
    save_diffusers(tmp_path, ModelConfig(network=net.config), net.state_dict())
    theirs = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet").eval()
    x, image = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    with torch.no_grad():
        found = theirs(torch.cat([x, image], dim=1), torch.tensor([3, 900])).sample
    assert torch.allclose(found, net(x, torch.tensor([3.0, 900.0]), image=image), atol=1e-4)
    for condition in ({"image": (3, 4, 4)}, {"image": SHAPE, "noise": True}):
        other = tiny_unet(shape=SHAPE, condition=condition, num_classes=0)
        line = one_line(
            CheckpointError, save_diffusers, tmp_path, ModelConfig(network=other.config), other.state_dict()
        )
        assert "is told images of its own size" in line
