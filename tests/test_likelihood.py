"""Likelihoods against densities known in closed form, and what they cost against a network that counts."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from ddim_ode import METHODS, Denoiser, Guided, data, paths
from ddim_ode.errors import DDIMError
from ddim_ode.likelihood import TRACES, LikelihoodError, carry_density, log_likelihood
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.solvers import Control
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Counting, network, tiny_unet
from tests.helpers.plans import plan_of
from tests.helpers.tensors import f64, normal

LOW, HIGH = 0.02, 20.0
CHART = paths.Noise(LOW, HIGH)
FIVE = GaussianMixture(normal(5, 8, seed=8), [0.2, 0.3, 0.4, 0.5, 0.6], [1, 2, 3, 4, 5])


def weigh(mixture, x, labels=None, **choices):
    """With the mixture's own density as the prior, in float64."""
    choices = {"prior": lambda z: mixture.log_density(z, HIGH, labels), "dtype": torch.float64} | choices
    return log_likelihood(mixture.denoiser(CHART), x, labels, **choices)


@pytest.mark.parametrize("how", [{"tol": 1e-7}, {"method": "rk4", "grid": "trailing_angle"}])
@pytest.mark.parametrize("size", [2, 8, 64])
def test_the_exact_trace_gives_the_density_of_a_mixture(size, how):
    mixture = GaussianMixture(normal(5, size, seed=size), [0.2, 0.3, 0.4, 0.5, 0.6], [1, 2, 3, 4, 5])
    x = mixture.sample(6, seed=1, sigma=LOW)
    nfe = 240 * (1 + size) if "grid" in how else None
    found = weigh(mixture, x, trace="exact", nfe=nfe, **how)
    torch.testing.assert_close(found.nats / size, mixture.log_density(x, LOW) / size, rtol=0, atol=1e-5)
    assert found.standard_error.tolist() == [0.0] * 6


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_hutchinson_is_within_three_standard_errors_of_the_exact_trace(probe):
    x = FIVE.sample(1, seed=1, sigma=LOW)
    exact = weigh(FIVE, x, method="rk4", trace="exact", nfe=40 * 9)
    found = weigh(FIVE, x.expand(100, -1), method="rk4", probes=16, probe=probe, nfe=40 * 17)
    off = (found.nats - exact.nats) / found.standard_error
    assert (off.abs() < 3).double().mean() >= 0.95
    assert off.abs().median() == pytest.approx(0.69, abs=0.2)  # and the errors are no larger than they need to be


def test_the_standard_error_shrinks_with_probes():
    x = FIVE.sample(1, seed=1, sigma=LOW).expand(50, -1)
    few, many = (weigh(FIVE, x, method="rk4", probes=k, nfe=20 * (1 + k)) for k in (8, 128))
    assert few.standard_error.mean() / many.standard_error.mean() == pytest.approx(4.0, rel=0.15)
    assert few.nats.std() == pytest.approx(float(few.standard_error.mean()), rel=0.3)
    assert weigh(FIVE, x, method="rk4").standard_error.isnan().all()


@pytest.mark.parametrize("choices", [{"trace": "exact"}, {"probes": 2}])
def test_the_path_does_not_matter(choices):
    x = FIVE.sample(3, seed=1, sigma=LOW)
    choices |= {"method": "dopri8", "tol": 1e-7, "max_nfe": 10**6}
    found = [weigh(FIVE, x, path=path, **choices) for path in ("noise", "data", "angle", "flow", paths.angle)]
    for other in found[1:]:
        torch.testing.assert_close(other.nats / 8, found[0].nats / 8, rtol=0, atol=1e-6)
        torch.testing.assert_close(other.latent, found[0].latent, rtol=0, atol=1e-5)


@pytest.mark.parametrize("probes", [None, normal(3, 4, 8, seed=2)])
@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_the_direction_does_not_matter(name, probes):
    x = FIVE.sample(4, seed=1, sigma=LOW)
    sigmas = f64([LOW, HIGH]) if METHODS[name].adaptive else torch.logspace(-1.69, 1.3, 200, dtype=torch.float64)
    plan = plan_of(FIVE.denoiser(CHART), name, sigmas, Control(1e-8, 10**6))
    up = carry_density(plan, x, probes)
    down = carry_density(replace(plan, sigmas=sigmas.flip(0)), up.xbar, probes)
    torch.testing.assert_close(down.xbar, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(down.nats / 8, -up.nats / 8, rtol=0, atol=1e-6)


class CountingBoth(Counting):
    """A net that counts the rows it has seen, forwards, and backwards too."""

    back = 0

    def __call__(self, *inputs):
        out = super().__call__(*inputs)
        out.register_hook(self.count)
        return out

    def count(self, gradient):
        self.back += len(gradient)


@pytest.mark.parametrize("choices", [{}, {"probes": 3}, {"trace": "exact"}, {"guidance": 2.0, "probes": 2}])
@pytest.mark.parametrize("how", [{"tol": 0.1}, {"method": "rk4", "nfe": 117}, {"method": "heun", "nfe": 117}])
def test_every_pass_is_counted(how, choices):
    mixture = labelled()
    net = CountingBoth(mixture.denoiser(CHART).net)
    x, labels = mixture.sample(4, seed=1, sigma=LOW), torch.tensor([0, 1, 2, 0])
    found = log_likelihood(Denoiser(net, CHART, "noise", (2, 3), 3), x, labels, **how, **choices)
    products = 6 if "trace" in choices else choices.get("probes", 1)
    assert (net.rows + net.back) / 4 == found.nfe[0] == found.nfe.min() == found.nfe.max()
    assert net.back == net.rows * products
    if "nfe" in how:
        step = METHODS[how["method"]].evaluations * (1 + products) * (2 if "guidance" in choices else 1)
        assert 117 - step < found.nfe[0] <= 117


def test_max_nfe_is_never_exceeded():
    mixture = labelled()
    net = CountingBoth(mixture.denoiser(CHART).net)
    model = Denoiser(net, CHART, "noise", (2, 3), 3)
    line = one_line(LikelihoodError, log_likelihood, model, mixture.sample(1, seed=1), max_nfe=20)
    assert net.rows + net.back <= 20
    assert re.fullmatch(rf"max_nfe ended .* sigma=\S+, after {net.rows + net.back} passes; give more, .*", line)


def test_a_sample_does_not_depend_on_its_companions():
    x = FIVE.sample(5, seed=1, sigma=LOW)
    whole = weigh(FIVE, x, method="rk4", probes=2)
    for size in (1, 2, 3):
        torch.testing.assert_close(weigh(FIVE, x, method="rk4", probes=2, batch_size=size).nats, whole.nats)
    torch.testing.assert_close(weigh(FIVE, x[:2], method="rk4", probes=2).nats, whole.nats[:2])
    assert torch.equal(weigh(FIVE, x, method="rk4", probes=2).nats, whole.nats)
    assert not torch.isclose(weigh(FIVE, x, method="rk4", probes=2, seed=1).nats, whole.nats).any()
    shared = [weigh(FIVE, x, tol=1e-6, batch_size=size).nats / 8 for size in (2, 5)]
    torch.testing.assert_close(*shared, rtol=0, atol=1e-5)


def test_bits_of_bytes_are_those_of_a_gaussian():
    mean, std = f64([[0.1, -0.3, 0.0]]), 0.25
    mixture, codes = GaussianMixture(mean, std), torch.tensor([[100, 90, 127], [150, 60, 160]], dtype=torch.uint8)
    wide = math.hypot(std, LOW)
    edges = [(codes + shift) / 127.5 - 1 for shift in (-0.5, 0.5)]  # of the bin of each byte
    low, high = (torch.special.ndtr((edge - mean) / wide) for edge in edges)
    bits = -(high - low).log2().mean(1)
    middle = weigh(mixture, codes, trace="exact", dequantize=False, tol=1e-7)
    torch.testing.assert_close(middle.bits_per_dim, bits, rtol=0, atol=1e-4)
    torch.testing.assert_close(middle.nats, -(middle.bits_per_dim - math.log2(127.5)) * 3 * math.log(2))
    many = weigh(mixture, codes[:1].expand(400, -1), trace="exact", tol=1e-5)
    assert many.mean == pytest.approx(float(bits[0]), abs=4 * many.mean_error)
    assert many.mean_error < 0.001
    one, other = (weigh(mixture, codes, trace="exact", tol=1e-5, seed=seed).nats for seed in (0, 1))
    assert not torch.isclose(one, other, rtol=1e-4).any()  # dequantised otherwise
    floats = weigh(mixture, data.to_float(codes), trace="exact", tol=1e-7)
    torch.testing.assert_close(floats.nats, middle.nats, rtol=0, atol=1e-5)
    torch.testing.assert_close(floats.bits_per_dim, middle.bits_per_dim - math.log2(127.5), rtol=0, atol=1e-5)


def test_the_prior_is_that_of_the_models_path():
    mixture = GaussianMixture(torch.zeros(1, 3, dtype=torch.float64), 1.0)
    x = mixture.sample(4, seed=1)
    vp = paths.DiscreteVP.linear()  # a standard normal stays one on it
    found = log_likelihood(mixture.denoiser(vp), x, tol=1e-7, trace="exact", dtype=torch.float64)
    torch.testing.assert_close(found.nats, mixture.log_density(x, vp.sigma_min), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.latent, x / math.sqrt(1 + vp.sigma_min**2), rtol=0, atol=1e-5)


def test_labels_choose_the_density():
    mixture = labelled()
    x = mixture.sample(4, seed=1, sigma=LOW)
    for labels in (None, torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 1, 2])):
        found = weigh(mixture, x, labels, trace="exact", tol=1e-7)
        torch.testing.assert_close(found.nats / 6, mixture.log_density(x, LOW, labels) / 6, rtol=0, atol=1e-5)


def test_guidance_has_the_density_of_its_flow():
    mixture = labelled(shape=(2,))
    x, h = mixture.sample(1, seed=1, sigma=LOW), 1e-4
    shifts = h * torch.cat([torch.zeros(1, 2), torch.eye(2), -torch.eye(2)]).double()
    choices = {"guidance": 2.5, "tol": 1e-11, "method": "dopri8", "trace": "exact"}
    found = log_likelihood(mixture.denoiser(CHART), x + shifts, 1, dtype=torch.float64, **choices)
    z, up, down = found.latent.split([1, 2, 2])
    volume = torch.linalg.slogdet((up - down) / (2 * h)).logabsdet
    standard = -0.5 * z.square().sum() - math.log(2 * math.pi)
    assert float(found.nats[0]) == pytest.approx(float(standard + volume), abs=1e-5)
    assert abs(found.nats[0] - log_likelihood(mixture.denoiser(CHART), x, 1, trace="exact").nats[0]) > 0.1


def test_modes_of_autograd_change_nothing_and_no_gradient_stays():
    net = tiny_unet().requires_grad_(True)
    model, x = Denoiser(net, paths.DiscreteVP.linear(), "noise", (1, 8, 8), 3), normal(2, 1, 8, 8, seed=0).clamp(-1, 1)
    seen = []
    plain = log_likelihood(model, x, [0, 1], tol=0.1, probes=2, callback=seen.append)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(log_likelihood(model, x.clone(), [0, 1], tol=0.1, probes=2).nats, plain.nats)
    assert not plain.nats.requires_grad
    assert not plain.latent.requires_grad
    assert all(weight.grad is None for weight in net.parameters())
    assert {step.xbar.shape for step in seen} == {x.shape}


def test_real_images_are_likelier_than_shuffled_ones():
    model, (images, labels) = network(), data.bundled_images()
    images, labels = images[::75], labels[::75]
    shuffled = images.flatten(1)[:, normal(784, seed=0).argsort()].reshape(images.shape)
    real, other = (log_likelihood(model, x, labels, tol=0.1) for x in (images, shuffled))
    assert (real.bits_per_dim < 4).all()
    assert (other.bits_per_dim > real.bits_per_dim + 2).all()
    assert real.nfe.max() < 100


BAD = [
    ({"x": normal(2, 7, seed=0)}, r"x has shape (2, 7); this model needs a tensor (B, 8)"),
    ({"x": torch.full((1, 8), math.nan)}, "x[0] holds NaN or infinity"),
    ({"x": torch.ones(1, 8).long()}, "x is torch.int64; give floats in [-1, 1], or bytes as torch.uint8"),
    ({"dequantize": True}, "x is torch.float64; only bytes, torch.uint8, can be dequantised"),
    ({"probes": 0}, "probes=0 must be a whole number >= 1"),
    ({"probes": 2, "trace": "exact"}, "probes=2 are for trace='hutchinson'; the exact trace has none"),
    ({"trace": "exat"}, "unknown trace 'exat'; did you mean 'exact'? choose one of " + ", ".join(TRACES)),
    ({"probe": "normal"}, "unknown probe 'normal'; choose one of rademacher, gaussian"),
    ({"path": "angel"}, "unknown path 'angel'; did you mean 'angle'? choose one of noise, data, angle, flow"),
    ({"seed": 0.5}, "seed=0.5 is not a whole number"),
    ({"dtype": torch.float16}, "dtype=torch.float16 is no dtype for a state; use torch.float32 or torch.float64"),
    ({"method": "ddim"}, "ddim cannot carry a density; use one of euler, euler_flow, midpoint, heun,"),
    ({"method": METHODS["sde_euler"]}, "this method cannot carry a density; use one of"),
    ({"nfe": 10}, "nfe=10 is for methods on a grid; an adaptive one takes tol and max_nfe"),
    ({"method": "rk4", "tol": 0.1}, "tol=0.1 is for adaptive methods"),
    ({"method": "rk4", "nfe": 7}, "nfe=7 is too small: one step costs 8 network passes; use nfe >= 8"),
    ({"method": "rk4", "nfe": 12, "grid": [4.0, 1.0]}, "nfe=12 contradicts an explicit grid; leave nfe out"),
    ({"grid": [4.0, 1.0, 0.0]}, "the grid ends at sigma=0, where no data lie; end at the model's sigma_min"),
    ({"prior": lambda z: z}, "prior returned shape (2, 8); it must return nats, (2,)"),
    ({"prior": lambda z: [0.0, 0.0]}, "prior returned a list of 2, no tensor of floats; it must return nats, (2,)"),
    ({"prior": lambda z: z[:, 0] * math.nan}, "prior returned NaN"),
    ({"prior": 3}, "prior is the int 3; give a function"),
    ({"labels": 1}, "this model has no classes; leave labels out"),
    ({"path": f64([1.0])}, "path is a Tensor of shape (1,); give a Path, or one of noise"),
    ({"trace": 3}, "trace is the int 3; give one of hutchinson, exact"),
    ({"probes": 10**9}, "probes=1000000000 is too many, each a vector-Jacobian product a slope; give at most 4096"),
    ({"seed": "x"}, "seed='x' is not a whole number"),
    ({"dequantize": "yes"}, "dequantize is the str 'yes'; give True or False"),
    ({"callback": 3}, "callback is the int 3; give a function"),
    ({"guidance": "2"}, "guidance='2' must be a finite number"),
]


@pytest.mark.parametrize(("choices", "line"), BAD)
def test_what_cannot_be_is_one_line(choices, line):
    arguments = {"x": normal(2, 8, seed=0)} | choices
    assert line in one_line(DDIMError, log_likelihood, FIVE.denoiser(CHART), **arguments)


def test_what_a_model_cannot_do_is_one_line():
    guided = Guided(labelled().denoiser(CHART), 2.0)
    x = normal(3, 2, 3, seed=0)
    assert "guided already, at scale 2" in one_line(DDIMError, log_likelihood, guided, x, guidance=3.0)
    assert "no labels to guide to" in one_line(DDIMError, log_likelihood, guided, x)
    large = Denoiser(nn.Identity(), CHART, "noise", (3, 64, 64))
    line = one_line(LikelihoodError, log_likelihood, large, torch.zeros(1, 3, 64, 64), trace="exact")
    assert line == "trace='exact' takes 12288 products a slope here, and the most is 4096; use 'hutchinson'"
    rough = Denoiser(lambda x, t: (0 * x).sqrt(), CHART, "noise", (2, 3))
    assert "derivative is not finite at sigma=0.02" in one_line(LikelihoodError, log_likelihood, rough, x)
    broken = Denoiser(lambda x, t: x.clamp(max=1).sqrt(), CHART, "noise", (1,))
    with pytest.raises(NonFiniteError, match=r"sigma=0\.02 for sample 2 in step 1"):
        log_likelihood(broken, f64([[0.5], [0.6], [-0.5]]), method="euler", batch_size=2)
