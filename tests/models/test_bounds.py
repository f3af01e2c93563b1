"""The number of weights is counted right without a network, and what no network has is refused at once."""

import math
import random
import time

import pytest
import torch
from pydantic import ValidationError

from ddim_ode.models.bounds import parameters
from ddim_ode.models.config import ScheduleConfig
from ddim_ode.models.unet import UNet, UNetConfig
from ddim_ode.support.validation import ConfigError, parse
from tests.helpers.assertions import one_line

SMALL = {"shape": (1, 8, 8), "channels": (8, 16), "groups": 4}


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"channels": (8,), "blocks": 1},
        {"channels": (8, 16, 12), "blocks": 3, "attention": (0, 2), "shape": (3, 8, 12)},
        {"num_classes": 7},
        {"num_classes": 7, "null_class": False},
        {"patch": 2},
        {"scale_shift": True, "resample": "block", "attention": (1,)},
        {"mid_attention": False, "heads": 2},
    ],
)
def test_the_count_is_that_of_the_network(choices):
    config = UNetConfig(**SMALL | choices)
    with torch.device("meta"):
        assert parameters(config) == sum(p.numel() for p in UNet(config).parameters())


def drawn(seed: int) -> UNetConfig:
    """One of all that can be said of a network, drawn."""
    draw = random.Random(seed)
    patch, levels = draw.choice([1, 2]), draw.randint(1, 3)
    channels = tuple(draw.choice([8, 16, 24]) for _ in range(levels))
    whose = draw.choice([{"heads": draw.choice([1, 2, 4])}, {"head_channels": draw.choice([4, 8])}])
    side = patch * 2 ** (levels - 1)
    return UNetConfig(
        shape=(draw.randint(1, 3), side * draw.randint(1, 3), side * draw.randint(1, 3)),
        channels=channels,
        blocks=draw.randint(1, 3),
        attention=tuple(level for level in range(levels) if draw.random() < 0.5),
        num_classes=draw.choice([0, 5]),
        null_class=draw.random() < 0.5,
        patch=patch,
        groups=draw.choice([2, 4]),
        mid_attention=draw.random() < 0.5,
        scale_shift=draw.random() < 0.5,
        resample=draw.choice(["conv", "block"]),
        **whose,
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_count_is_that_of_any_network(seed):
    config = drawn(seed)
    with torch.device("meta"):
        assert parameters(config) == sum(p.numel() for p in UNet(config).parameters())


@pytest.mark.parametrize(
    ("choices", "word"),
    [
        ({"blocks": 10**9}, "blocks"),
        ({"channels": (10**9,)}, "channels"),
        ({"channels": (8,) * 10**5}, "channels"),
        ({"channels": (65_536, 65_536)}, "parameters; here are at most 2e+10"),
        ({"blocks": 100, "channels": (8192,), "groups": 32}, "parameters; here are at most 2e+10"),
        ({"shape": (10**9, 8, 8)}, "shape"),
        ({"shape": (1, 65_536, 65_536)}, "an image has at most 1073741824 numbers here"),
        ({"num_classes": 10**12}, "num_classes"),
        ({"num_classes": 10**7, "channels": (1024,), "groups": 32}, "parameters; here are at most 2e+10"),
        ({"patch": 10**9}, "patch"),
        ({"patch": 4096, "shape": (1, 8192, 8192), "channels": (256, 256)}, "parameters; here are at most 2e+10"),
        ({"groups": 10**9}, "groups"),
        ({"heads": 10**12}, "heads"),
        ({"head_channels": 10**12}, "head_channels"),
        ({"attention": (0,) * 10**6}, "attention"),
        ({"norm_eps": math.inf}, "norm_eps"),
        ({"norm_eps": math.nan}, "norm_eps"),
        ({"time_shift": -math.inf}, "time_shift"),
        ({"time_shift": math.nan}, "time_shift"),
        ({"dropout": math.nan}, "dropout"),
        ({"channels": (10**4000,)}, "channels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_network_that_nobody_has_is_refused_at_once(choices, word):
    started = time.process_time()
    text = one_line(ConfigError, parse, UNetConfig, SMALL | choices, "a.yaml")
    assert time.process_time() - started < 1
    assert word in text
    assert len(text) <= 1000


def test_the_largest_networks_of_the_field_are_accepted():
    """Of Dhariwal & Nichol 2021 at 512 x 512, and more."""
    channels = (256, 256, 512, 512, 1024, 1024)
    config = UNetConfig(
        shape=(3, 512, 512), channels=channels, blocks=2, attention=(4, 5), num_classes=1000, head_channels=64
    )
    assert 4e8 < parameters(config) < 1e9
    assert UNetConfig(shape=(3, 2048, 2048), channels=(1024, 2048, 4096), blocks=4).blocks == 4


@pytest.mark.parametrize(
    "values",
    [
        {"timesteps": 10**10},
        {"timesteps": 1},
        {"timesteps": 10**4000},
        {"beta_start": math.nan},
        {"beta_end": math.inf},
        {"beta_end": 10**400},
        {"beta_start": 0},
        {"beta_end": 1},
        {"beta_start": -0.1},
        *({"name": "betas", "timesteps": 3, "betas": [0.1, beta, 0.2]} for beta in (math.nan, math.inf, 0, 1, -0.1)),
        {"name": "betas", "timesteps": 3, "betas": ["x"] * 10_000},
        {"name": "betas", "timesteps": 3, "betas": [0.1] * 10},
    ],
    ids=lambda _: "",
)
def test_a_schedule_that_nobody_has_is_refused_at_once(values):
    assert len(one_line(ConfigError, parse, ScheduleConfig, values, "a.yaml")) <= 1000


@pytest.mark.parametrize("betas", [(0.3, 0.2, 0.1), (0.1, 0.1, 0.1), (0.1, 0.2, 1.0)])
def test_any_betas_that_leave_less_and_less_are_a_schedule(betas):
    path = ScheduleConfig(name="betas", timesteps=3, betas=betas).path()
    expected = [math.prod(1 - beta for beta in betas[: k + 1]) for k in range(3)]
    assert list(path.alphas_cumprod) == pytest.approx([value for value in expected if value], rel=1e-12)
    assert path.zero_terminal_snr == (betas[-1] == 1)


def test_a_wrong_beta_is_named():
    with pytest.raises(ValidationError, match=r"betas\.1\n"):
        ScheduleConfig(name="betas", timesteps=3, betas=(0.1, -0.2, 0.3))
