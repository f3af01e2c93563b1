"""The UNet's parts against their formulas, and what its configuration refuses."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from ddim_ode.models.blocks import Attention, Downsample, Upsample
from ddim_ode.models.unet import UNet, UNetConfig, sinusoid
from tests.helpers.networks import randomise, tiny_unet
from tests.helpers.tensors import normal

SMALL = {"shape": (1, 8, 8), "channels": (8, 16), "groups": 4, "blocks": 1}


def config(**choices: object) -> UNetConfig:
    return UNetConfig(**(SMALL | choices))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"shape": (3, 8, 12)},
        {"channels": (8,)},
        {"channels": (8, 16, 12), "blocks": 2, "shape": (2, 12, 8)},
        {"attention": (0, 1), "head_channels": 4},
        {"num_classes": 5},
        {"patch": 2},
        {"patch": 4, "channels": (8,), "shape": (3, 8, 8)},
        {"time_order": "cos_sin", "time_shift": 0.0, "downsample_padding": "symmetric", "norm_eps": 1e-5},
        {"dropout": 0.5},
        {"time_scale": 1000.0},
    ],
)
def test_the_output_has_the_shape_and_precision_of_the_input(choices, dtype):
    net = tiny_unet(**({"num_classes": 0, "attention": ()} | choices)).to(dtype)
    x = normal(3, *net.config.shape, seed=0, dtype=dtype)
    out = net(x, torch.tensor([0.0, 10.5, 999.0]))
    assert out.shape == x.shape
    assert out.dtype == dtype
    assert out.abs().min() > 0  # no weight is 0, so nothing is left out
    # one sample does not see another
    torch.testing.assert_close(net(x[1:2], torch.tensor([10.5])), out[1:2], rtol=1e-4, atol=1e-5)


def test_times_are_scaled_before_anything_is_made_of_them():
    net, scaled = tiny_unet(), tiny_unet(time_scale=1000.0)
    scaled.load_state_dict(net.state_dict())
    x, labels = normal(3, 1, 8, 8, seed=0, dtype=torch.float32), torch.tensor([0, 1, 2])
    u = torch.tensor([0.001, 0.5, 0.999], dtype=torch.float64)
    assert torch.equal(scaled(x, u, labels), net(x, 1000 * u, labels))
    assert not torch.allclose(scaled(x, u, labels), net(x, u, labels))


def test_double_is_the_same_function_as_single():
    net = tiny_unet()
    x, t, labels = normal(2, 1, 8, 8, seed=0, dtype=torch.float32), torch.tensor([3.0, 700.25]), torch.tensor([0, 2])
    single = net(x, t, labels)
    double = net.double()(x.double(), t.double(), labels)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("choices", [{}, {"attention": (0, 1), "num_classes": 3}, {"patch": 2}])
def test_at_the_start_the_output_is_zero(choices):
    net = UNet(config(**choices))
    assert (net(normal(2, 1, 8, 8, seed=0, dtype=torch.float32), torch.tensor([0.0, 999.0])) == 0).all()


def test_no_label_is_the_null_class():
    net = tiny_unet()
    x, t = normal(3, 1, 8, 8, seed=0, dtype=torch.float32), torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(net(x, t), net(x, t, torch.tensor([3, 3, 3])))
    for label in range(3):
        assert (net(x, t) - net(x, t, torch.full((3,), label))).abs().max() > 1e-3


def test_an_unconditional_net_has_no_class_embedding():
    net = tiny_unet(num_classes=0)
    assert net.class_embedding is None
    x, t = normal(2, 1, 8, 8, seed=0, dtype=torch.float32), torch.tensor([1.0, 2.0])
    assert torch.equal(net(x, t), net(x, t, None))


@pytest.mark.parametrize("order", ["sin_cos", "cos_sin"])
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("width", [6, 32])
def test_the_time_embedding_is_the_formula(width, shift, order):
    times = [0.0, 0.37, 1.0, 250.5, 999.0]
    half = width // 2
    expected = []
    for t in times:
        phases = [t / 10_000 ** (k / (half - shift)) for k in range(half)]
        sines, cosines = [math.sin(p) for p in phases], [math.cos(p) for p in phases]
        expected.append(sines + cosines if order == "sin_cos" else cosines + sines)
    for dtype, tolerance in [(torch.float64, 1e-11), (torch.float32, 1e-7)]:
        got = sinusoid(torch.tensor(times), width, order, shift, dtype)
        assert got.dtype == dtype
        # float32 holds 0.37 to 1e-8
        torch.testing.assert_close(
            got.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=max(tolerance, 2e-8)
        )


def test_the_time_reaches_the_output():
    net = tiny_unet()
    x = normal(1, 1, 8, 8, seed=0, dtype=torch.float32)
    out = [net(x, torch.tensor([t])) for t in (500.0, 500.5, 501.0)]
    assert (out[0] - out[1]).abs().max() > 1e-4
    assert (out[1] - out[2]).abs().max() > 1e-4


@pytest.mark.parametrize(("padding", "corner"), [("asymmetric", 0), ("symmetric", -1)])
def test_downsampling_is_a_convolution_that_starts_at_the_corner(padding, corner):
    module = Downsample(2, padding).double()
    weight, bias = normal(2, 2, 3, 3, seed=0), normal(2, seed=1)
    module.conv.weight.data, module.conv.bias.data = weight, bias
    x = normal(1, 2, 6, 4, seed=2)
    expected = torch.zeros(1, 2, 3, 2, dtype=torch.float64)
    for i in range(3):
        for j in range(2):
            value = bias.clone()
            for a in range(3):
                for b in range(3):
                    row, column = 2 * i + a + corner, 2 * j + b + corner
                    if 0 <= row < 6 and 0 <= column < 4:  # zeros all round
                        value = value + weight[:, :, a, b] @ x[0, :, row, column]
            expected[0, :, i, j] = value
    torch.testing.assert_close(module(x), expected, rtol=1e-13, atol=1e-13)


def test_the_two_paddings_differ():
    nets = [tiny_unet(downsample_padding=padding) for padding in ("asymmetric", "symmetric")]
    nets[1].load_state_dict(nets[0].state_dict())
    x, t = normal(1, 1, 8, 8, seed=0, dtype=torch.float32), torch.tensor([5.0])
    assert (nets[0](x, t) - nets[1](x, t)).abs().max() > 1e-3


def test_upsampling_repeats_each_pixel_before_the_convolution():
    module = Upsample(2).double()
    x = normal(1, 2, 3, 4, seed=0)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(repeated, module.conv.weight, module.conv.bias, padding=1)
    torch.testing.assert_close(module(x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("head_channels", [None, 8, 4, 2])
def test_attention_is_a_softmax_over_positions(head_channels):
    module = randomise(Attention(8, config(head_channels=head_channels)), seed=3).double()
    x = normal(2, 8, 3, 5, seed=0)
    width = head_channels or 8
    groups = x.reshape(2, 4, 2, 15).flatten(2)
    normed = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    normed = normed.reshape(2, 8, 15) * module.norm.weight[:, None] + module.norm.bias[:, None]
    projected = module.qkv.weight[:, :, 0, 0] @ normed + module.qkv.bias[:, None]  # (2, 24, 15)
    expected = torch.zeros(2, 8, 15, dtype=torch.float64)
    for first in range(0, 8, width):
        q, k, v = (projected[:, part + first : part + first + width] for part in (0, 8, 16))
        scores = torch.einsum("bci,bcj->bij", q, k) / math.sqrt(width)
        weights = scores.exp() / scores.exp().sum(2, keepdim=True)
        expected[:, first : first + width] = torch.einsum("bij,bcj->bci", weights, v)
    expected = x + (module.out.weight[:, :, 0, 0] @ expected + module.out.bias[:, None]).reshape(x.shape)
    torch.testing.assert_close(module(x), expected, rtol=1e-11, atol=1e-11)


def test_a_patch_is_the_same_net_on_rearranged_pixels():
    patched = tiny_unet(patch=2, num_classes=0)
    plain = tiny_unet(shape=(4, 4, 4), num_classes=0)
    plain.load_state_dict(patched.state_dict())
    x, t = normal(2, 1, 8, 8, seed=0, dtype=torch.float32), torch.tensor([5.0, 50.0])
    pieces = torch.stack([x[:, 0, i::2, j::2] for i in range(2) for j in range(2)], dim=1)
    out, expected = patched(x, t), plain(pieces, t)
    for k, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert torch.equal(out[:, 0, i::2, j::2], expected[:, k])


def test_dropout_is_off_when_evaluating():
    net = tiny_unet(dropout=0.5)
    x, t = normal(1, 1, 8, 8, seed=0, dtype=torch.float32), torch.tensor([5.0])
    assert torch.equal(net(x, t), net(x, t))


def test_the_number_of_weights_is_the_sum_of_the_parts():
    def conv(a, b, size=3):
        return a * b * size**2 + b

    def block(a, b, emb=32):
        return 2 * a + conv(a, b) + emb * b + b + 2 * b + conv(b, b) + (conv(a, b, 1) if a != b else 0)

    def attention(c):
        return 2 * c + conv(c, 3 * c, 1) + conv(c, c, 1)

    expected = (
        (8 * 32 + 32 + 32 * 32 + 32)  # time
        + 4 * 32  # three classes and the null class
        + conv(1, 8)
        + (block(8, 8) + conv(8, 8))  # down, 8 x 8
        + (block(8, 16) + attention(16))  # down, 4 x 4
        + (block(16, 16) + attention(16) + block(16, 16))  # middle
        + (block(32, 16) + attention(16) + block(24, 16) + attention(16) + conv(16, 16))  # up, 4 x 4
        + (block(24, 8) + block(16, 8))  # up, 8 x 8
        + (16 + conv(8, 1))
    )
    assert sum(p.numel() for p in tiny_unet().parameters()) == expected


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"chanels": (8,)}, "chanels\n  Extra inputs are not permitted"),
        ({"shape": (1, 9, 8)}, r"shape=\(1, 9, 8\) is not divisible by 2 .*; use fewer levels"),
        ({"shape": (1, 8, 12), "channels": (8, 8, 8, 8)}, "not divisible by 8"),
        ({"patch": 3}, r"not divisible by 6 \(patch=3, 2 levels\)"),
        ({"channels": (8, 18)}, r"channels=\(8, 18\): 18 is not a multiple of groups=4"),
        ({"head_channels": 3}, "16 is not a multiple of head_channels"),
        ({"attention": (2,)}, r"attention=\(2,\) names levels outside 0\.\.1"),
        ({"attention": (-1,)}, r"attention=\(-1,\) names levels outside 0\.\.1"),
        ({"channels": ()}, "at least 1 item"),
        ({"blocks": 0}, "greater than or equal to 1"),
        ({"num_classes": -1}, "greater than or equal to 0"),
        ({"dropout": 1.0}, "less than 1"),
        ({"groups": 0}, "greater than or equal to 1"),
        ({"norm_eps": 0.0}, "greater than 0"),
        ({"time_order": "sin"}, "'sin_cos' or 'cos_sin'"),
        ({"downsample_padding": "same"}, "'asymmetric' or 'symmetric'"),
        ({"channels": (0, 8)}, "channels"),
        ({"channels": (9, 18), "groups": 9}, "channels"),  # half of the first are sines, half cosines
        ({"shape": (1, 0, 8)}, "shape"),
        ({"shape": (0, 8, 8)}, "shape"),
        ({"head_channels": 0}, "head_channels"),
    ],
)
def test_a_network_that_cannot_be_is_refused(choices, message):
    with pytest.raises(ValidationError, match=message):
        config(**choices)
