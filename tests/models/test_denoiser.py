"""Whatever a network predicts, on whatever path: the same two parts, against the closed form."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from ddim_ode import paths
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.denoiser import Denoiser, DenoiserError
from ddim_ode.models.equations import PREDICTS
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Recording, tiny_unet
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, normal

CHART = paths.Noise(0.01, 100.0)


def levels(path: paths.Path) -> list[float]:
    low, high = max(path.sigma_min, 0.01), min(path.sigma_max, 150.0)
    return [low, 0.3, 1.0, 5.0, high]


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("name", PATHS)
def test_the_closed_form_comes_back(name, predicts):
    path, mixture = PATHS[name], labelled()
    model = mixture.denoiser(path, predicts)
    for k, sigma in enumerate(levels(path)):
        xbar = mixture.sample(8, seed=k, sigma=sigma)
        data, noise = mixture.denoise(xbar, sigma)
        prediction = model(xbar, sigma)
        torch.testing.assert_close(prediction.data, data, rtol=0, atol=1e-10)
        torch.testing.assert_close(prediction.noise, noise, rtol=0, atol=1e-10)
        torch.testing.assert_close(prediction.data + sigma * prediction.noise, xbar, rtol=1e-13, atol=1e-13)
        assert prediction.evaluations == 1


@pytest.mark.parametrize(
    ("predicts", "output"),
    [
        ("noise", lambda a, b, x0, eps: eps),
        ("data", lambda a, b, x0, eps: x0),
        ("velocity", lambda a, b, x0, eps: a * eps - b * x0),
        ("flow", lambda a, b, x0, eps: eps - x0),
        ("score", lambda a, b, x0, eps: -eps / b),
    ],
)
def test_the_network_is_fed_and_read_as_its_paper_says(predicts, output):
    # A net that knows both parts: it must be handed x = a x0 + b eps and the timestep, and understood again.
    path, t = PATHS["linear"], 321.0
    abar = float(path.alphas_cumprod[321])
    a, b = math.sqrt(abar), math.sqrt(1 - abar)
    x0, eps = normal(2, 3, 4, seed=0), normal(2, 3, 4, seed=1)

    def net(x, time):
        torch.testing.assert_close(x, a * x0 + b * eps, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(time, torch.full((2,), t, dtype=torch.float64), rtol=1e-12, atol=0)
        return output(a, b, x0, eps)

    prediction = Denoiser(net, path, predicts, (3, 4))(x0 + b / a * eps, b / a)
    torch.testing.assert_close(prediction.data, x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(prediction.noise, eps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("name", PATHS)
def test_a_sigma_for_each_sample_agrees_with_one_at_a_time(name, predicts):
    mixture = labelled()
    model = mixture.denoiser(PATHS[name], predicts)
    sigmas = f64(levels(PATHS[name]))
    labels = torch.tensor([0, 1, 2, 3, 0])
    xbar = mixture.sample(5, seed=0) + sigmas.reshape(-1, 1, 1) * normal(5, 2, 3, seed=1)
    together = model(xbar, sigmas, labels)
    for i, sigma in enumerate(sigmas):
        for alone in [
            model(xbar[i : i + 1], float(sigma), labels[i : i + 1]),
            model(xbar[i : i + 1], sigma, labels[i : i + 1]),
        ]:
            torch.testing.assert_close(together.data[i], alone.data[0], rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(together.noise[i], alone.noise[0], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("factor", "end", "label"), [(0.1, "sigma_min", 0.0), (10.0, "sigma_max", 999.0)])
def test_outside_the_range_the_time_is_clamped_and_the_scale_is_not(factor, end, label):
    net, path = Recording(), PATHS["linear"]
    sigma = factor * getattr(path, end)
    xbar = normal(2, 3, seed=0)
    prediction = Denoiser(net, path, "noise", (3,))(xbar, sigma)
    x, t = net.calls[0]
    assert t.tolist() == [label, label]
    torch.testing.assert_close(x, xbar / math.sqrt(1 + sigma**2), rtol=1e-13, atol=0)
    torch.testing.assert_close(prediction.data, xbar, rtol=1e-13, atol=0)  # the noise is predicted to be 0


@pytest.mark.parametrize(
    ("quantize", "expected"), [(False, [10.25, 10.75, 3.0]), (True, [10.0, 11.0, 3.0]), ("int", [10, 11, 3])]
)
def test_quantize_rounds_the_time_and_nothing_else(quantize, expected):
    net, path = Recording(), PATHS["linear"]
    sigma = path.sigma(f64([10.25, 10.75, 3.0]))
    xbar = normal(3, 2, seed=0)
    Denoiser(net, path, "noise", (2,), quantize=quantize)(xbar, sigma)
    x, t = net.calls[0]
    assert t.tolist() == pytest.approx(expected, abs=1e-10)
    torch.testing.assert_close(x, xbar / torch.sqrt(1 + sigma[:, None] ** 2), rtol=1e-13, atol=0)
    assert t.dtype == (torch.int64 if quantize == "int" else torch.float64)
    if quantize:
        assert t.tolist() == expected


class Linear(nn.Module):
    """A net with parameters, which therefore has a precision; it keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen: list[tuple[torch.dtype, torch.dtype]] = []

    def forward(self, x, t):
        self.seen.append((x.dtype, t.dtype))
        return self.layer(x)


@pytest.mark.parametrize("state", [torch.float32, torch.float64])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64, torch.bfloat16])
def test_the_network_computes_in_its_own_precision_and_the_state_keeps_its_own(state, precision):
    net = Linear().to(precision)
    prediction = Denoiser(net, CHART, "noise", (4,))(normal(2, 4, seed=0).to(state), 1.0)
    # times stay in float32 at least: bfloat16 would round 999 to 1000
    assert net.seen == [(precision, torch.promote_types(precision, torch.float32))]
    assert prediction.data.dtype == prediction.noise.dtype == state


def test_the_precision_can_be_given():
    net = Recording()
    Denoiser(net, CHART, "noise", (4,), dtype=torch.float32)(normal(2, 4, seed=0), 1.0)
    assert net.calls[0][0].dtype == torch.float32


@pytest.mark.parametrize("state", [torch.float32, torch.float64])
def test_a_network_without_parameters_computes_in_the_precision_of_the_state(state):
    net = Recording()
    Denoiser(net, CHART, "noise", (4,))(normal(2, 4, seed=0).to(state), 1.0)
    assert [x.dtype for x in net.calls[0]] == [state, state]


def test_a_double_network_is_exact_in_double():
    # In float32 the same prediction would be off by 1e-7.
    net = Linear().double()
    xbar = normal(2, 4, seed=0)
    expected = xbar @ net.layer.weight.T + net.layer.bias
    torch.testing.assert_close(Denoiser(net, CHART, "noise", (4,))(xbar, 2.0).noise, expected, rtol=1e-14, atol=1e-14)


def test_to_leaves_the_original_alone():
    net = tiny_unet()
    before = copy.deepcopy(net.state_dict())
    model = Denoiser(net, PATHS["linear"], "noise", (1, 8, 8), 3)
    double = model.to(dtype=torch.float64)
    assert double.dtype == next(double.net.parameters()).dtype == torch.float64
    assert model.dtype == next(net.parameters()).dtype == torch.float32
    with torch.no_grad():
        for p in double.net.parameters():
            p.zero_()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert (double.path, double.predicts, double.shape, double.num_classes) == (model.path, "noise", (1, 8, 8), 3)


def test_to_changes_the_precision_of_the_answer():
    model = Denoiser(tiny_unet(), PATHS["linear"], "noise", (1, 8, 8), 3)
    xbar = normal(2, 1, 8, 8, seed=0)
    exact = model.to(dtype=torch.float64)(xbar, 1.0).noise
    single = model(xbar, 1.0).noise
    difference = (exact - single).abs().max() / exact.abs().max()
    assert 1e-9 < difference < 1e-5


def test_a_denoiser_is_immutable():
    model = labelled().denoiser(CHART)
    for name, value in [("predicts", "data"), ("path", paths.flow), ("net", None), ("quantize", True)]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(model, name, value)


def test_it_tells_what_a_sampler_needs_to_know():
    model = Denoiser(Recording(), paths.Noise(0.002, 80.0), "data", [3, 32, 32], 10)
    assert (model.sigma_min, model.sigma_max, model.shape, model.num_classes) == (0.002, 80.0, (3, 32, 32), 10)
    assert model.evaluations(1.0) == 1
    assert model.device == torch.device("cpu")


def test_an_unknown_prediction_lists_the_known():
    with pytest.raises(ValueError, match="predicts='x0' is unknown; choose one of noise, data, velocity, flow, score"):
        Denoiser(Recording(), CHART, "x0", (4,))


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 0])])
@pytest.mark.parametrize("num_classes", [0, 2])
def test_only_a_conditional_network_is_given_labels(num_classes, labels):
    net = Recording()
    Denoiser(net, CHART, "noise", (3,), num_classes)(normal(2, 3, seed=0), 1.0, labels)
    assert len(net.calls[0]) == (3 if num_classes else 2)
    if num_classes:
        assert net.calls[0][2].tolist() == ([2, 2] if labels is None else [1, 0])


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda x, t: x[:, :1], r"net returned shape \(2, 1, 4\) for an input of shape \(2, 3, 4\)"),
        (lambda x, t: torch.cat([x, x], dim=1), r"net returned shape \(2, 6, 4\).*learned variances"),
        (lambda x, t: (x,), "net returned tuple.*take .sample"),
    ],
)
def test_an_output_of_another_shape_is_refused(net, message):
    with pytest.raises(DenoiserError, match=message):
        Denoiser(net, CHART, "noise", (3, 4))(normal(2, 3, 4, seed=0), 1.0)


def test_a_network_in_training_mode_is_refused():
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1))
    with pytest.raises(DenoiserError, match=r"training mode.*call net.eval\(\)"):
        Denoiser(net, CHART, "noise", (4,))
    Denoiser(net.eval(), CHART, "noise", (4,))


def test_a_function_cannot_be_moved_but_can_say_where_it_is():
    net = Recording()
    with pytest.raises(DenoiserError, match="move what it calls to meta"):
        Denoiser(net, CHART, "noise", (4,)).to("meta")
    model = Denoiser(net, CHART, "noise", (4,), device="meta")
    assert model.device == torch.device("meta")
    assert model.to("meta") is model


def test_a_continuous_time_is_clamped_to_the_models_range():
    net = Recording()
    model = Denoiser(net, paths.Noise(0.01, 80.0), "noise", (4,))
    for sigma in (1e-5, 500.0):
        model(normal(2, 4, seed=0), sigma)
    assert [call[1].tolist() for call in net.calls] == [[0.01, 0.01], [80.0, 80.0]]


def test_predictions_do_not_touch_their_inputs():
    mixture = GaussianMixture(normal(3, 2, seed=0), 0.2)
    xbar, sigma = normal(4, 2, seed=1), f64([1.0, 2.0, 3.0, 4.0])
    copies = xbar.clone(), sigma.clone()
    mixture.denoiser(PATHS["linear"], "velocity")(xbar, sigma)
    assert torch.equal(xbar, copies[0])
    assert torch.equal(sigma, copies[1])


PARTS = {  # of xbar at sigma = 0, where x = xbar and a network says 0.5 x: the data and the noise
    "noise": (1.0, 0.5),
    "velocity": (1.0, 0.5),
    "flow": (1.0, 1.5),  # eps - x0
}


@pytest.mark.parametrize(
    "path", [PATHS["linear"], paths.Noise(0.01, 80.0), paths.Flow(0.01, 80.0)], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize("predicts", ["noise", "velocity", "flow", "data", "score"])
@pytest.mark.parametrize("sigma", [0, 0.0, [0.0, 0.0]])
def test_without_noise_where_both_parts_are_told(path, predicts, sigma):
    xbar = normal(2, 2, 3, seed=0)
    model = Denoiser(lambda x, t: 0.5 * x, path, predicts, (2, 3))
    if predicts in PARTS:
        data, noise = model(xbar, sigma)[:2]
        for found, factor in zip((data, noise), PARTS[predicts], strict=True):
            torch.testing.assert_close(found, factor * xbar)
    else:
        assert "sigma=0 is no noise level; give finite numbers > 0" in one_line(DenoiserError, model, xbar, sigma)
