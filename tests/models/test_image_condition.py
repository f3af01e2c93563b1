"""A network that is told an image: what it sees, what it refuses, and that nothing has changed for the others."""

import pytest
import torch
import torch.nn.functional as F

from ddim_ode.models.bounds import parameters
from ddim_ode.models.conditional import condition_of, multiply_adds
from ddim_ode.models.conditions import ConditionError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.image_condition import TIMES, noised, resized, shrunk
from ddim_ode.models.unet import UNet, UNetConfig, sinusoid
from ddim_ode.paths import DiscreteVP
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.networks import tiny_unet

IMAGE = (2, 4, 4)


def told(noise: bool = True, **choices: object) -> UNet:
    return tiny_unet(condition={"image": IMAGE, "noise": noise}, **choices)


def inputs(count: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, 1, 8, 8, generator=g),
        torch.rand(count, generator=g) * 900,
        torch.arange(count) % 3,
        torch.rand(count, *IMAGE, generator=g) * 2 - 1,
    )


@pytest.mark.parametrize("patch", [1, 2])
def test_it_sees_the_image_beside_x_at_its_own_size(patch):
    """Its first convolution by hand: that of x, and that of the image at twice the size."""
    net, (x, t, labels, image) = told(noise=False, patch=patch), inputs()
    seen = []
    net.conv_in.register_forward_hook(lambda _, __, out: seen.append(out))
    net(x, t, labels, image=image)
    large = F.interpolate(image, (8, 8), mode="bilinear")
    own, others = net.conv_in.weight.split([patch**2, 2 * patch**2], dim=1)
    by_hand = F.conv2d(F.pixel_unshuffle(x, patch), own, net.conv_in.bias, padding=1)
    by_hand = by_hand + F.conv2d(F.pixel_unshuffle(large, patch), others, padding=1)
    assert torch.allclose(seen[0], by_hand, atol=1e-5)


def test_the_level_of_noise_is_told_by_an_embedding_like_that_of_time():
    net, (x, t, labels, image) = told(), inputs()
    level = torch.tensor([0.0, 0.3, 1.0])
    found = net(x, t, labels, image=image, image_noise=level)
    waves = sinusoid(TIMES * level.double(), 8, "sin_cos", 1.0, torch.float32)
    bias = net.noise_mlp(waves)
    plain = told(noise=False)
    weights = {k: v for k, v in net.state_dict().items() if not k.startswith("noise_mlp")}
    for row in range(3):
        moved = dict(weights) | {"time_mlp.2.bias": weights["time_mlp.2.bias"] + bias[row]}
        plain.load_state_dict(moved)
        one = slice(row, row + 1)
        assert torch.allclose(plain(x[one], t[one], labels[one], image=image[one]), found[one], atol=1e-5)
    assert torch.equal(net(x, t, labels, image=image)[0], found[0])  # no level is level 0
    assert not torch.allclose(found[1], net(x, t, labels, image=image)[1], atol=1e-3)


@pytest.mark.parametrize("noise", [False, True])
def test_parameters_are_counted_without_building_it(noise):
    net = told(noise, patch=2)
    assert parameters(net.config) == sum(p.numel() for p in net.parameters())


def test_wrong_words_are_refused_in_one_line():
    net, plain, (x, t, labels, image) = told(noise=False), tiny_unet(), inputs()
    assert 'give conditions={"image": images}' in one_line(ConditionError, net, x, t, labels)
    cases = [
        (net, {"image": image[:2]}, "has shape (2, 2, 4, 4), and this network is told (3, 2, 4, 4)"),
        (net, {"image": x}, "has shape (3, 1, 8, 8), and this network is told (3, 2, 4, 4)"),
        (net, {"image": image, "image_noise": torch.zeros(3)}, "not told how noisy its image is"),
        (told(), {"image": image, "image_noise": torch.zeros(2)}, "has shape (2,); give (3,), one a sample"),
        (plain, {"image": image}, "this network is told no image"),
    ]
    for asked, keywords, expected in cases:
        with pytest.raises(ConditionError) as caught:
            asked(x, t, labels, **keywords)
        assert expected in str(caught.value)


def test_a_network_without_a_condition_is_described_as_before():
    plain = tiny_unet().config
    assert "condition" not in plain.model_dump()
    assert "condition" not in plain.model_dump(mode="json")
    mine = told().config
    assert UNetConfig.model_validate(mine.model_dump(mode="json")) == mine
    assert not any(name.startswith("noise_mlp") for name in tiny_unet().state_dict())


def test_boxes_and_sizes():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(shrunk(x, (2, 2))[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]))
    assert torch.equal(shrunk(x, (1, 2))[0, 0], torch.tensor([[6.5, 8.5]]))
    assert shrunk(x, (4, 4)) is x
    assert resized(x, (4, 4)) is x
    flat = torch.full((1, 1, 3, 3), 0.7)
    assert torch.allclose(resized(flat, (9, 6)), torch.full((1, 1, 9, 6), 0.7))


def test_noise_keeps_the_variance():
    g = torch.Generator().manual_seed(0)
    image, eps = torch.randn(3, 1, 100, 100, generator=g), torch.randn(3, 1, 100, 100, generator=g)
    found = noised(image, torch.tensor([0.0, 0.6, 1.0]), eps)
    assert torch.equal(found[0], image[0])
    assert torch.equal(found[2], eps[2])
    assert torch.allclose(found[1], 0.8 * image[1] + 0.6 * eps[1])
    assert found[1].var().item() == pytest.approx(1, abs=0.05)


def test_a_model_around_it_samples_and_is_weighed():
    model = Denoiser(told(), DiscreteVP.linear(), "noise", (1, 8, 8), 3)
    _, _, labels, image = inputs()
    assert condition_of(model).image == IMAGE
    x = sample(model, nfe=4, seeds=range(3), labels=labels, conditions={"image": image}).x
    alone = sample(model, nfe=4, seeds=[2], labels=labels[2:], conditions={"image": image[2:]}).x
    assert torch.allclose(x[2:], alone, atol=1e-5)
    assert not torch.allclose(x, sample(model, nfe=4, seeds=range(3), labels=labels, conditions={"image": -image}).x)
    assert 'give conditions={"image": images}' in one_line(ConditionError, sample, model, "ddim", 4)


def test_multiply_adds_of_a_network_whose_products_can_be_counted():
    class Known(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 5, 3, padding=1)
            self.back = torch.nn.Conv2d(5, 1, 1)

        def forward(self, x, t):
            return self.back(self.conv(x))

    model = Denoiser(Known().eval(), DiscreteVP.linear(), "noise", (1, 6, 7))
    assert multiply_adds(model) == 6 * 7 * (9 * 5 + 5)
