"""Encoding and decoding: the same bits with the exact methods, through a file and another process, for any method."""

import dataclasses
import math
import subprocess
import sys

import pytest
import torch

import ddim_ode
from ddim_ode import METHODS, data, paths
from ddim_ode.data import to_float
from ddim_ode.grids import GridError, make_grid
from ddim_ode.inversion import decode, encode, reconstruct
from ddim_ode.latents import LatentError
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.planning.inputs import SampleError
from ddim_ode.sampling import sample
from ddim_ode.solvers import DivergedError, MethodError
from ddim_ode.support.checks import ArgumentError
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Counting, network, random_network
from tests.helpers.tensors import normal

MIXTURE = labelled()
MODEL = MIXTURE.denoiser(paths.Flow(0.02, 60.0))
EXACT = ["leapfrog", "exact_heun"]
#: EDICT and O-BELM lose all where sigma grows by a constant factor a step; tests/solvers/test_reversible.py has them.
ABLE = [
    name
    for name, method in METHODS.items()
    if method.deterministic and not method.adaptive and name not in ("edict", "belm")
]


def real_images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = data.bundled_images()
    chosen = torch.linspace(0, len(images) - 1, count).long()
    return images[chosen], labels[chosen]


@pytest.mark.parametrize("nfe", [10, 20])
@pytest.mark.parametrize("name", EXACT)
def test_bytes_come_back_as_the_same_bits(name, nfe):
    images, labels = real_images(6)
    found = reconstruct(network(), images, name, nfe, labels=labels)
    assert torch.equal(found.solution.x, to_float(images))
    assert torch.equal(data.to_uint8(found.solution.x), images)
    assert found.bit_exact.all()
    assert found.same_bytes.all()
    assert found.max_error.tolist() == found.mse.tolist() == [0.0] * 6
    assert found.psnr.tolist() == [math.inf] * 6


@pytest.mark.slow
@pytest.mark.parametrize("nfe", [10, 20, 50, 100])
@pytest.mark.parametrize("name", EXACT)
def test_256_images_come_back_as_the_same_bits(name, nfe, tmp_path):
    """Saved in between, and decoded by another process."""
    images, labels = real_images(256)
    encode(network(), to_float(images), name, nfe, labels=labels).save(tmp_path / "z.safetensors")
    code = f"""
import torch, ddim_ode
latent = ddim_ode.Latent.load({str(tmp_path / "z.safetensors")!r})
torch.save(ddim_ode.decode(ddim_ode.load("fashion"), latent).x, {str(tmp_path / "x.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert torch.equal(torch.load(tmp_path / "x.pt", weights_only=True), to_float(images))


def test_another_process_decodes_the_same_bits(tmp_path):
    images, labels = real_images(4)
    encode(network(), images, nfe=8, labels=labels, batch_size=3).save(tmp_path / "z.safetensors")
    code = f"""
import torch, ddim_ode
latent = ddim_ode.Latent.load({str(tmp_path / "z.safetensors")!r})
torch.save(ddim_ode.decode(ddim_ode.load("fashion"), latent).x, {str(tmp_path / "x.pt")!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert torch.equal(torch.load(tmp_path / "x.pt", weights_only=True), to_float(images))


@pytest.mark.parametrize("grid", ["uniform", "quadratic", "karras", "log_snr", "near_image", [900.0, 30.0, 2.0, 0.1]])
@pytest.mark.parametrize("name", EXACT)
def test_on_any_grid(name, grid):
    model = random_network()
    images = torch.randint(256, (3, *model.shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    nfe = None if isinstance(grid, list) else 6
    grid = [min(sigma, model.sigma_max) for sigma in grid] if isinstance(grid, list) else grid
    assert reconstruct(model, images, name, nfe, grid=grid).bit_exact.all()


def test_labels_and_guidance_are_part_of_the_way():
    model = MODEL
    x = MIXTURE.sample(4, seed=0, sigma=0.02).float()
    labels = torch.tensor([0, 1, 2, 1])
    found = reconstruct(model, x, nfe=13, labels=labels, guidance=2.0, method="leapfrog")
    assert found.bit_exact.all()
    assert found.latent.nfe.tolist() == [12] * 4  # two passes a prediction
    without = encode(model, x, "leapfrog", grid=found.latent.sigmas, labels=labels).noise
    assert (found.latent.noise - without).abs().max() > 0.1


@pytest.mark.parametrize("name", ABLE)
def test_any_method_on_a_grid_comes_back_as_near_as_it_is_accurate(name):
    x = MIXTURE.sample(6, seed=0, sigma=0.02)
    errors = []
    for nfe in (60, 600):
        found = reconstruct(MODEL, x, name, nfe, grid="log_snr", dtype=torch.float64)
        errors.append(float(found.rms.max()))
        assert (found.latent.nfe <= nfe).all()
    assert errors[1] < 0.05
    assert errors[1] <= max(0.3 * errors[0], 1e-11)


@pytest.mark.parametrize("tol", [0.01, 0.001])
@pytest.mark.parametrize("name", ["adaptive", "dopri5"])
def test_an_adaptive_method_comes_back_within_its_tolerance(name, tol):
    x = MIXTURE.sample(16, seed=0, sigma=0.02)
    found = reconstruct(MODEL, x, name, tol=tol, dtype=torch.float64)
    assert found.rms.median() < 3 * tol
    assert found.latent.options.tol == tol
    assert (found.latent.nfe > 5).all()


def test_an_adaptive_method_says_where_it_was_stopped():
    x = MIXTURE.sample(4, seed=0, sigma=0.02)
    latent = encode(MODEL, x, "adaptive", tol=1e-4, max_nfe=8, dtype=torch.float64)
    assert not latent.converged.any()
    assert latent.nfe.max() <= 8
    assert encode(MODEL, x, "adaptive", tol=0.1, dtype=torch.float64).converged.all()


def test_the_way_back_has_the_tolerance_and_the_limit_of_the_latent():
    latent = encode(MODEL, MIXTURE.sample(4, seed=0, sigma=0.02), "adaptive", tol=1e-4, dtype=torch.float64)
    found = decode(MODEL, latent)
    own = sample(MODEL, "adaptive", tol=1e-4, start=latent.states[0], final="sigma_min", dtype=torch.float64)
    assert torch.equal(found.x, own.x)
    assert torch.equal(found.nfe, own.nfe)
    limited = dataclasses.replace(latent, options=dataclasses.replace(latent.options, max_nfe=8))
    assert not decode(MODEL, limited).converged.any()


@pytest.mark.parametrize("name", [*ABLE, "adaptive", "edict", "belm"])
def test_every_pass_is_counted_each_way(name):
    steering = {"tol": 0.1} if name == "adaptive" else {"nfe": 12}
    counting = Counting(MODEL.net)
    model = dataclasses.replace(MODEL, net=counting)
    latent = encode(model, MIXTURE.sample(3, seed=0, sigma=0.02), name, dtype=torch.float64, **steering)
    assert counting.rows == latent.nfe.sum()
    counting.rows = 0
    try:
        assert decode(model, latent).nfe.sum() == counting.rows > 0
    except DivergedError:
        assert name == "belm"


def test_a_latent_decodes_in_other_batches_once_it_is_deterministic():
    images, labels = real_images(5)
    latent = encode(network(), images, nfe=8, labels=labels, deterministic=True)
    assert latent.options.batch_size == 1
    assert torch.equal(decode(network(), latent[[3, 1]]).x, to_float(images[[3, 1]]))


def test_decoding_uses_as_many_threads_as_then_and_leaves_them_alone():
    had, seen = torch.get_num_threads(), []

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return x

    model = ddim_ode.Denoiser(net, paths.Flow(0.02, 60.0), "noise", (2,))
    latent = encode(model, normal(1, 2, seed=0), nfe=4)
    assert set(seen) == {had}
    decode(model, dataclasses.replace(latent, threads=had + 1))
    assert seen[-1] == had + 1
    assert torch.get_num_threads() == had


def test_the_noise_of_a_gaussian_is_its_whitened_image():
    """x0 ~ N(0, s^2): the flow multiplies by sqrt((s^2 + sigma1^2) / (s^2 + sigma0^2))."""
    s, low, high = 0.5, 0.02, 60.0
    model = GaussianMixture(torch.zeros(1, 4), s).denoiser(paths.Flow(low, high))
    x = normal(5, 4, seed=0) * s
    expected = x * math.sqrt((s**2 + high**2) / (s**2 + low**2)) / high
    for name in ("leapfrog", "exact_heun", "rk4", "adams4"):
        z = encode(model, x, name, nfe=400, dtype=torch.float64).noise
        prior = float(model.path.prior_std(torch.tensor(high)))
        torch.testing.assert_close(z * prior / high, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", EXACT)
def test_noise_alone_gives_the_image_up_to_the_methods_error(name):
    x = MIXTURE.sample(6, seed=0, sigma=0.02)
    errors = []
    for nfe in (40, 160):
        latent = encode(MODEL, x, name, nfe, dtype=torch.float64)
        back = sample(MODEL, name, grid=latent.sigmas, noise=latent.noise, dtype=torch.float64)
        errors.append(float((back.x - x).square().mean().sqrt()))
    assert 0 < errors[1] < 0.3 * errors[0]


def test_what_a_reconstruction_says():
    x = MIXTURE.sample(5, seed=0, sigma=0.02)
    found = reconstruct(MODEL, x, "ddim", nfe=30, dtype=torch.float64)
    error = found.solution.x - x
    torch.testing.assert_close(found.max_error, error.abs().flatten(1).amax(1))
    torch.testing.assert_close(found.rms, error.flatten(1).square().mean(1).sqrt())
    torch.testing.assert_close(found.mse, (error / 2).flatten(1).square().mean(1))
    torch.testing.assert_close(found.psnr, 10 * torch.log10(1 / found.mse))
    negative = reconstruct(MODEL, torch.full((1, 2, 3), -0.0), nfe=4)
    assert not negative.bit_exact.any()  # 0.0 came back, which is equal and yet not the same
    assert negative.max_error == 0
    assert not reconstruct(MODEL, x, nfe=4).bit_exact.any()  # float64 images, rounded to a float32 state
    torch.testing.assert_close(found.latent_mean, found.latent.noise.flatten(1).mean(1))
    torch.testing.assert_close(found.latent_std, found.latent.noise.flatten(1).std(1, correction=0))
    bytes_ = [data.to_uint8(images).flatten(1) for images in (found.solution.x, x)]
    assert torch.equal(found.same_bytes, (bytes_[0] == bytes_[1]).all(1))
    assert not found.same_bytes.all()


def test_normality_tells_normals_from_others():
    wide = GaussianMixture(torch.zeros(1, 4000), 1.0).denoiser(paths.Flow(0.02, 60.0))
    x = torch.stack([normal(4000, seed=seed) for seed in range(40)])
    p = reconstruct(wide, x, nfe=4).normality
    assert 0.02 < (p < 0.1).double().mean() < 0.25
    assert (reconstruct(wide, torch.sign(x), nfe=4).normality < 1e-6).all()


# --- what cannot be

BAD = [
    (SampleError, {"x": normal(2, 7, seed=0)}, "x has shape (2, 7); this model needs a tensor (B, 2, 3)"),
    (SampleError, {"x": [0.5]}, "x has type list; this model needs a tensor (B, 2, 3)"),
    (SampleError, {"x": torch.full((1, 2, 3), math.nan)}, "x[0] holds NaN or infinity"),
    (SampleError, {"x": torch.ones(1, 2, 3).long()}, "x is torch.int64; give floats in [-1, 1], or bytes as torch"),
    (MethodError, {"method": "leapfrogs"}, "unknown method 'leapfrogs'; did you mean 'leapfrog'?"),
    (SampleError, {"tol": 0.1}, "tol=0.1 is for adaptive methods"),
    (SampleError, {"method": "adaptive", "nfe": 9}, "finds the tolerance of a budget for sampling only; give tol"),
    (SampleError, {"nfe": 0}, "nfe=0 must be a whole number >= 1"),
    (SampleError, {"method": "fixed_point", "nfe": 4}, "nfe=4 is too small: one step costs 5 evaluations"),
    (
        SampleError,
        {"grid": [4.0, 1.0, 0.0]},
        "the grid ends at sigma=0, where no data lie; end at the model's sigma_min",
    ),
    (SampleError, {"method": "adaptive", "grid": [4.0, 1.0, 0.0]}, "the grid ends at sigma=0"),
    (GridError, {"grid": "near"}, "unknown grid 'near'"),
    (SampleError, {"deterministic": True, "batch_size": 4}, "batch_size=4 contradicts deterministic"),
    (SampleError, {"labels": 3}, "label 3 does not exist; this model has labels 0..2"),
    (ArgumentError, {"deterministic": 3}, "deterministic is the int 3; give True or False"),
    (ArgumentError, {"callback": 3}, "callback is the int 3; give a function"),
    (ArgumentError, {"model": "fashion"}, "model is the str 'fashion'; give a Denoiser, such as load('fashion')"),
]


@pytest.mark.parametrize(("error", "choices", "line"), BAD)
def test_what_cannot_be_encoded_is_one_line(error, choices, line):
    arguments = {"model": MODEL, "x": normal(2, 2, 3, seed=0)} | choices
    assert line in one_line(error, encode, **arguments)


@pytest.mark.parametrize("latent", ["file", None, 3, normal(2, 2, 3, seed=0)], ids=lambda x: type(x).__name__)
def test_what_is_no_latent_is_named(latent):
    assert "nothing to decode; give a Latent" in one_line(LatentError, decode, MODEL, latent)
    assert "model is None" in one_line(ArgumentError, decode, None, latent)


def test_a_stochastic_method_cannot_encode():
    line = one_line(MethodError, encode, MODEL, normal(2, 2, 3, seed=0), METHODS["sde_euler"])
    assert line == "this method draws noise on its way, so nothing can be encoded; use 'exact_heun' or 'ddim'"


def test_the_grid_that_encodes_is_the_grid_that_decodes():
    latent = encode(MODEL, normal(2, 2, 3, seed=0), nfe=5)
    assert latent.nfe.tolist() == [5, 5]  # one evaluation to begin with, and one a step
    assert torch.equal(latent.sigmas, make_grid("near_image", MODEL.path, 4, "sigma_min"))
    assert torch.equal(decode(MODEL, latent).sigmas, latent.sigmas)
