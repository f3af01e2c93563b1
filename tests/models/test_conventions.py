"""Networks as other codes write them, each made of the closed-form mixture by the formulas of its paper."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ddim_ode import continuous, paths
from ddim_ode.models.conventions import AdapterError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.paths import PathError
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tables import linear_table
from tests.helpers.tensors import f64, normal

MIXTURE = labelled()  # (2, 3), 3 classes
SHAPE, CLASSES = MIXTURE.shape, MIXTURE.num_classes
LABELS = torch.tensor([0, 1, 2, 3, 0, 2])  # 3 is the null class


def parts(x: Tensor, a: Tensor, b: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """E[x0 | x] and E[eps | x] of x = a x0 + b eps, for a and b (B,)."""
    return MIXTURE.denoise(x / a.reshape(-1, 1, 1), b / a, labels)


def edm(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
    if class_labels is None:
        labels = None
    else:
        assert class_labels.shape == (len(x), CLASSES)
        labels = torch.where(class_labels.sum(1) == 0, CLASSES, class_labels.argmax(1))
    return MIXTURE.denoise(x, sigma, labels)[0]


def k_diffusion(x: Tensor, sigma: Tensor, *, offset: float, class_cond: Tensor | None = None) -> Tensor:
    return MIXTURE.denoise(x, sigma, class_cond)[0] + offset


def v_discrete(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    abar = f64(linear_table())[t.round().long()]
    a, b = abar.sqrt(), (1 - abar).sqrt()
    data, noise = parts(x, a, b, labels)
    return a.reshape(-1, 1, 1) * noise - b.reshape(-1, 1, 1) * data


def v_cosine(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    a, b = torch.cos(math.pi * t / 2), torch.sin(math.pi * t / 2)
    data, noise = parts(x, a, b, labels)
    return a.reshape(-1, 1, 1) * noise - b.reshape(-1, 1, 1) * data


def flow_from_data(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    data, noise = parts(x, 1 - t, t, labels)
    return noise - data


def flow_from_noise(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    data, noise = parts(x, t, 1 - t, labels)
    return data - noise


def flow_in_thousands(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    return flow_from_noise(x, t / 1000, labels)


def score_vp(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    log_a = -(t**2) * (20 - 0.1) / 4 - t * 0.1 / 2  # Song et al. 2021, Eq. 33
    b = torch.sqrt(1 - torch.exp(2 * log_a))
    return -parts(x, log_a.exp(), b, labels)[1] / b.reshape(-1, 1, 1)


def score_ve(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    sigma = 0.01 * (50 / 0.01) ** t
    return -MIXTURE.denoise(x, sigma, labels)[1] / sigma.reshape(-1, 1, 1)


def score_of_sigma(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
    return -MIXTURE.denoise(x, sigma, labels)[1] / sigma.reshape(-1, 1, 1)


class Case(NamedTuple):
    make: Callable[..., Denoiser]  # of (net, shape, num_classes=...)
    net: Callable[..., Tensor]
    low: float
    high: float
    options: Mapping[str, Any] = {}
    whole: bool = False  # times are whole numbers


VP_END = math.sqrt(math.expm1(0.1 + (20 - 0.1) / 2))
VP_BEGIN = math.sqrt(math.expm1(0.1e-3 + (20 - 0.1) * 1e-6 / 2))
CASES = {
    "EDM": Case(Denoiser.from_edm, edm, 0.002, 80),
    "k-diffusion": Case(
        Denoiser.from_k_diffusion,
        k_diffusion,
        0.01,
        20,
        {"sigma_min": 0.01, "sigma_max": 20, "extra_args": {"offset": 0}},
    ),
    "v, discrete": Case(
        Denoiser.from_v, v_discrete, 0.0100005, 157.4, {"path": paths.DiscreteVP(linear_table())}, whole=True
    ),
    "v, cosine": Case(Denoiser.from_v, v_cosine, math.tan(math.pi * 5e-4), math.tan(math.pi * 0.4995)),
    "flow from the data": Case(Denoiser.from_flow, flow_from_data, 1 / 999, 999),
    "flow from the noise": Case(Denoiser.from_flow, flow_from_noise, 1 / 999, 999, {"data_at": 1}),
    "flow in thousands": Case(
        Denoiser.from_flow, flow_in_thousands, 1 / 9, 9, {"data_at": 1, "time_scale": 1000, "noise_range": (0.1, 0.9)}
    ),
    "score, VP": Case(Denoiser.from_score, score_vp, VP_BEGIN, VP_END),
    "score, VE": Case(Denoiser.from_score, score_ve, 0.01, 50, {"path": continuous.VESDE()}),
    "score of sigma": Case(Denoiser.from_score, score_of_sigma, 0.1, 10, {"path": paths.Noise(0.1, 10)}),
}


def model_of(case: Case, classes: int = CLASSES) -> Denoiser:
    return case.make(case.net, SHAPE, num_classes=classes, **case.options)


def levels(case: Case, n: int = 40) -> Tensor:
    if case.whole:
        abar = f64(linear_table())[torch.linspace(0, 999, n).long()]
        return torch.sqrt((1 - abar) / abar)
    return torch.logspace(math.log10(case.low), math.log10(case.high), n, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_the_closed_form_comes_back_at_every_sigma(name):
    case = CASES[name]
    conditional, plain = model_of(case), model_of(case, classes=0)
    for k, sigma in enumerate(levels(case)):
        xbar = MIXTURE.sample(len(LABELS), seed=k, sigma=float(sigma))
        for model, labels in [(plain, None), (conditional, None), (conditional, LABELS)]:
            data, noise = MIXTURE.denoise(xbar, sigma, labels)
            prediction = model(xbar, sigma, labels)
            torch.testing.assert_close(prediction.data, data, rtol=0, atol=1e-10)
            torch.testing.assert_close(prediction.noise, noise, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_the_range_is_that_of_the_network(name):
    model = model_of(CASES[name])
    assert model.sigma_min == pytest.approx(CASES[name].low, rel=1e-4)
    assert model.sigma_max == pytest.approx(CASES[name].high, rel=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_sampling_ends_where_the_exact_denoiser_leads(name):
    # The same sigmas and start on the mixture's own chart, whose only schedule is sigma.
    case = CASES[name]
    sigmas = [*levels(case, 13).flip(0).tolist(), 0.0]
    truth = MIXTURE.denoiser(paths.Noise(case.low * 0.9, case.high * 1.1), "data")
    start = MIXTURE.sample(2, seed=0, sigma=sigmas[0])
    runs = [
        sample(model, "dpmpp_2m", start=start, grid=sigmas, labels=[1, 2], guidance=1.5, dtype=torch.float64)
        for model in (model_of(case), truth)
    ]
    torch.testing.assert_close(runs[0].x, runs[1].x, rtol=0, atol=1e-9)
    assert runs[0].nfe.tolist() == [26, 26]


@pytest.mark.parametrize("name", CASES)
def test_sampling_begins_with_what_the_convention_begins_with(name):
    case, seen = CASES[name], []

    def net(x: Tensor, *inputs: object, **named: object) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    model = model_of(case._replace(net=net), classes=0)
    noise = normal(2, *SHAPE, seed=1)
    sample(model, nfe=2, noise=noise, dtype=torch.float64)
    starts_wide = name in ("EDM", "k-diffusion", "score, VE", "score of sigma")  # variance-exploding
    torch.testing.assert_close(seen[0], (model.sigma_max if starts_wide else 1.0) * noise, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "path", [continuous.VPSDE(), continuous.VPSDE(beta_min=0.0, beta_max=3.0), continuous.VESDE(), continuous.Cosine()]
)
def test_continuous_schedules_are_paths(path):
    u = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
    torch.testing.assert_close(path.u(path.sigma(u)), u, rtol=1e-11, atol=0)
    h = 1e-6
    (a0, b0), (a1, b1) = path.coefficients(u - h), path.coefficients(u + h)
    da, db = path.slopes(u)
    torch.testing.assert_close(da, (a1 - a0) / (2 * h), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(db, (b1 - b0) / (2 * h), rtol=1e-5, atol=1e-7)
    assert path == type(path)(**{name: getattr(path, name) for name in path.__match_args__})
    assert path != continuous.VPSDE(beta_max=19.0)


def test_an_edm_network_says_its_shape_and_range_itself():
    class Net(nn.Module):
        img_channels, img_resolution, label_dim, sigma_min, sigma_max = 3, 8, 10, 0.01, math.inf

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
            return self.weight * x * class_labels.sum()

    model = Denoiser.from_edm(Net())
    assert (model.shape, model.num_classes, model.dtype) == ((3, 8, 8), 10, torch.float64)
    assert (model.sigma_min, model.sigma_max) == (0.01, 80.0)
    # A module stays one, so that it can be moved and leaves the original as it was.
    moved = model.to(dtype=torch.float32)
    assert moved(normal(1, 3, 8, 8, seed=0).float(), 1.0, torch.tensor([0])).data.dtype == torch.float32
    assert model.net.net.weight.dtype == torch.float64


def test_a_k_diffusion_network_says_its_range_itself():
    class Net:
        sigma_min, sigma_max = torch.tensor(0.03), torch.tensor(14.6)

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x

    model = Denoiser.from_k_diffusion(Net(), (3, 8, 8))
    assert (model.sigma_min, model.sigma_max) == pytest.approx((0.03, 14.6))
    assert Denoiser.from_k_diffusion(Net(), (3, 8, 8), sigma_max=5.0).sigma_max == 5.0


@pytest.mark.parametrize(
    ("error", "call", "words"),
    [
        (AdapterError, lambda: Denoiser.from_edm(edm), r"img_channels .* give shape"),
        (AdapterError, lambda: Denoiser.from_k_diffusion(edm, SHAPE), "no sigma_min and sigma_max; give"),
        (AdapterError, lambda: Denoiser.from_v(edm, SHAPE, paths.flow), "not Flow; use from_flow"),
        (AdapterError, lambda: Denoiser.from_flow(edm, SHAPE, data_at=2), "data_at=2 .* 0 or 1"),
        (AdapterError, lambda: Denoiser.from_flow(edm, SHAPE, noise_range=(0.0, 1.0)), "noise_range=.* 0 < low"),
        (PathError, lambda: continuous.VPSDE(beta_min=3, beta_max=2), "beta from 3 to 2 must rise"),
        (PathError, lambda: continuous.Cosine(t_min=0.0), "times 0 to 0.999 are no range"),
        (PathError, lambda: continuous.VESDE(sigma_min=0.0), "0 < sigma_min"),
    ],
)
def test_what_contradicts_a_convention_is_an_error_of_one_line(error, call, words):
    assert re.search(words, one_line(error, call))
