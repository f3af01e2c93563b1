"""eta > 0: DDIM's kernel is the paper's, samples depend on their seeds alone, and what cannot be is one line."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ddim_ode import METHODS, paths
from ddim_ode.checkpoints import load
from ddim_ode.grids import make_grid
from ddim_ode.inversion import encode
from ddim_ode.ode.brownian import Brownian, BrownianError
from ddim_ode.planning.inputs import SampleError, seeded_noise
from ddim_ode.sampling import sample
from ddim_ode.solvers import MethodError, adams
from ddim_ode.solvers.eta import Eta, EtaError
from ddim_ode.solvers.torch_sde import TorchSDE
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled, two_modes
from tests.helpers.networks import Counting, network, random_network
from tests.helpers.tables import PATHS, linear_table
from tests.helpers.tensors import normal

SDE = [name for name, method in METHODS.items() if not method.deterministic]
GRIDDED = [name for name in SDE if not METHODS[name].adaptive]
MIXTURE, MODES = labelled(), two_modes()


# --- the kernel, against the paper


def paths_of(seeds: list[int], shape: tuple[int, ...], sigmas: list[float]) -> list[Tensor]:
    """The z of every step."""
    brownian = Brownian(seeds, shape, dtype=torch.float64)
    return [brownian.increment(a, b)[0] for a, b in pairwise(sigmas) if b > 0]


def ddim_loop(x: Tensor, abar: list[float], eta: float | str, z: list[Tensor], predict) -> Tensor:
    """Song et al. 2021, Eq. 12 with the sigma of Eq. 16, or DDPM's sigma-hat; abar of the steps, a last 1 included."""
    for n, (now, then) in enumerate(pairwise(abar)):
        eps = predict(x, now)
        x0 = (x - math.sqrt(1 - now) * eps) / math.sqrt(now)
        scale = 1.0 if eta == "ddpm_large" else eta
        std = scale * math.sqrt((1 - then) / (1 - now)) * math.sqrt(1 - now / then)
        x = math.sqrt(then) * x0 + math.sqrt(max(1 - then - std**2, 0.0)) * eps
        if then < 1:
            x = x + (math.sqrt(1 - now / then) if eta == "ddpm_large" else std) * z[n]
    return x


@pytest.mark.parametrize("eta", [0, 0.2, 0.5, 1, "ddpm_large"])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_kernel_is_the_papers(steps, eta):
    model, seeds = MIXTURE.denoiser(PATHS["linear"]), [3, 8, 21]
    sigmas = make_grid("leading", model.path, steps, "denoise")
    abar = [1 / (1 + s**2) for s in sigmas.tolist()]
    noise = seeded_noise(seeds, model.shape).double()

    def predict(x: Tensor, abar: float) -> Tensor:
        return MIXTURE.denoise(x / math.sqrt(abar), math.sqrt(1 / abar - 1))[1]

    expected = ddim_loop(noise, abar, eta, paths_of(seeds, model.shape, sigmas.tolist()), predict)
    found = sample(model, "ddim", grid=sigmas, seeds=seeds, eta=eta, dtype=torch.float64).x
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_eta_0_is_ddim_to_the_last_bit():
    model = network()
    plain = sample(model, nfe=5, seeds=range(3)).x
    assert torch.equal(sample(model, nfe=5, seeds=range(3), eta=0).x, plain)
    assert torch.equal(sample(model, nfe=5, seeds=range(3), eta=1.0, eta_range=(1e6, 1e7)).x, plain)
    assert not torch.equal(sample(model, nfe=5, seeds=range(3), eta=0.1).x, plain)


def test_eta_1_on_all_steps_is_ddpms_ancestral_loop():
    """Ho et al. 2020, Alg. 2, with the posterior's variance (their Eq. 7)."""
    model, seeds = MIXTURE.denoiser(PATHS["linear"]), [5]
    sigmas = make_grid("trailing", model.path, 1000, "denoise")
    z = paths_of(seeds, model.shape, sigmas.tolist())
    abar, x = linear_table(), seeded_noise(seeds, model.shape).double()
    for t in reversed(range(1000)):
        before = abar[t - 1] if t else 1.0
        beta = 1 - abar[t] / before
        eps = MIXTURE.denoise(x / math.sqrt(abar[t]), math.sqrt(1 / abar[t] - 1))[1]
        x = (x - beta / math.sqrt(1 - abar[t]) * eps) / math.sqrt(1 - beta)
        if t:
            x = x + math.sqrt(beta * (1 - before) / (1 - abar[t])) * z[999 - t]
    found = sample(model, "ddim", grid=sigmas, seeds=seeds, eta=1, dtype=torch.float64).x
    torch.testing.assert_close(found, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_diffusers_agrees_given_the_same_noise(eta):
    diffusers = pytest.importorskip("diffusers")
    model, seeds = random_network(), [1, 2]
    scheduler = diffusers.DDIMScheduler(1000, clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading")
    scheduler.set_timesteps(20)
    sigmas = make_grid("leading", model.path, 20, "denoise")
    z = [*paths_of(seeds, model.shape, sigmas.tolist()), torch.zeros(2, *model.shape)]
    x = seeded_noise(seeds, model.shape)
    with torch.no_grad():
        for t, noise in zip(scheduler.timesteps, z, strict=True):
            out = model.net(x, t.float().expand(2), torch.full((2,), 3))
            x = scheduler.step(out, t, x, eta=eta, variance_noise=noise.float()).prev_sample
    found = sample(model, "ddim", grid=sigmas, seeds=seeds, eta=eta).x
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("variance", "eta"), [("fixed_small", 1), ("fixed_large", "ddpm_large")])
def test_diffusers_ddpm_agrees_given_the_same_noise(variance, eta):
    """Its variance is clamped at 1e-20 and its mean is that of x0 and x, not of x0 and eps: the same, rounded apart."""
    diffusers = pytest.importorskip("diffusers")
    model, seeds = random_network(), [1, 2]
    scheduler = diffusers.DDPMScheduler(1000, clip_sample=False, variance_type=variance, timestep_spacing="leading")
    scheduler.set_timesteps(20)
    sigmas = make_grid("leading", model.path, 20, "denoise")
    z = [*paths_of(seeds, model.shape, sigmas.tolist()), torch.zeros(2, *model.shape)]
    x = seeded_noise(seeds, model.shape)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        for t, noise in zip(scheduler.timesteps, z, strict=True):
            drawn = noise.float()
            patch.setattr(f"{scheduler.__module__}.randn_tensor", lambda *_, drawn=drawn, **__: drawn)
            x = scheduler.step(model.net(x, t.float().expand(2), torch.full((2,), 3)), t, x).prev_sample
    found = sample(model, "ddim", grid=sigmas, seeds=seeds, eta=eta).x
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [*GRIDDED, "ddim", "rk4"])
def test_a_sample_does_not_see_its_companions_and_every_pass_is_counted(name):
    counting = Counting(MIXTURE.denoiser(PATHS["linear"]).net)
    model = dataclasses.replace(MIXTURE.denoiser(PATHS["linear"]), net=counting)
    whole = sample(model, name, nfe=13, seeds=range(5), eta=None if name == "edm_churn" else 0.7, dtype=torch.float64)
    assert whole.nfe.sum() == counting.rows
    assert 13 - METHODS[name].evaluations < whole.nfe[0] <= 13
    alone = sample(
        model, name, nfe=13, seeds=[4, 1], eta=None if name == "edm_churn" else 0.7, dtype=torch.float64, batch_size=1
    )
    torch.testing.assert_close(alone.x, whole.x[[4, 1]], rtol=0, atol=1e-10)


def test_a_function_of_sigma_and_a_range_are_the_same_where_they_agree():
    model = MODES.denoiser(paths.Flow(0.02, 60.0))
    for name in ("ddim", "sde_euler"):
        one = sample(model, name, nfe=30, seeds=range(4), eta=lambda sigma: 0.8 * (0.1 <= sigma <= 5)).x
        other = sample(model, name, nfe=30, seeds=range(4), eta=0.8, eta_range=(0.1, 5)).x
        assert torch.equal(one, other)


BAD = [
    (EtaError, "ddim", {"eta": -0.1}, "eta=-0.1 must be a number >= 0, a function of sigma, or 'ddpm_large'"),
    (EtaError, "ddim", {"eta": "large"}, "eta='large' must be a number >= 0"),
    (EtaError, "ddim", {"eta": 1.5}, "DDIM's kernel takes eta <= 1; use method='sde_euler'"),
    (EtaError, "ddim", {"eta": torch.ones(2)}, "must be a number >= 0, a function of sigma, or 'ddpm_large'"),
    (EtaError, "ddim", {"eta": True}, "eta=True must be a number >= 0"),
    (EtaError, "ddim", {"eta": lambda sigma: None}, "eta=None at sigma="),
    (EtaError, "ddim", {"eta": 1, "eta_range": 3}, "eta_range=3 is no range; give (low, high) in sigma"),
    (EtaError, "edm_churn", {"eta": 0}, "edm_churn has its S_churn instead of eta; leave eta=0 out"),
    (EtaError, adams(2, corrector=True), {"eta": 1}, "this method cannot have noise with eta=1 between its steps"),
    (BrownianError, "sde_euler", {"grid": [1.0, 0.99999, 0.5]}, "is too small for a Brownian path"),
    (SampleError, "sde_euler", {"seeds": 5}, "seeds=5 is not a sequence; give one int a sample"),
    (EtaError, "ddim", {"eta": lambda sigma: math.nan}, "must be a finite number >= 0"),
    (EtaError, "ddim", {"eta_range": (0.1, 1.0)}, "does nothing without eta; give eta"),
    (EtaError, "ddim", {"eta": 1, "eta_range": (2.0, 1.0)}, "eta_range=2:1 is empty; give 0 <= low < high"),
    (EtaError, "dpmpp_2m", {"eta": 0.5}, "dpmpp_2m cannot have noise with eta=0.5 between its steps; use one of ddim"),
    (EtaError, "adaptive", {"eta": 0.5}, "adaptive cannot have noise with eta=0.5 between its steps"),
    (EtaError, "sde_srk", {"eta": "ddpm_large"}, "sde_srk cannot have noise with eta='ddpm_large'"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "method", "choices", "line"), BAD)
def test_noise_that_cannot_be_is_one_line(error, method, choices, line):
    assert line in one_line(error, sample, MIXTURE.denoiser(PATHS["linear"]), method, **choices)


@pytest.mark.parametrize("name", SDE)
def test_noise_cannot_encode(name):
    line = one_line(MethodError, encode, MIXTURE.denoiser(PATHS["linear"]), normal(2, 2, 3, seed=0), name)
    assert line.startswith(f"{name} draws noise on its way, so nothing can be encoded")


@pytest.mark.parametrize("seeds", [np.arange(3), torch.arange(3), (k for k in range(3)), [np.int64(0), 1, 2]])
def test_a_seed_is_a_number_whatever_its_type(seeds):
    model = MIXTURE.denoiser(PATHS["linear"])
    found, own = (sample(model, "sde_euler", nfe=5, seeds=given).x for given in (seeds, range(3)))
    assert torch.equal(found, own)


@pytest.mark.parametrize("name", [*SDE, "ddim"])
def test_torchs_own_generator_is_left_alone(name):
    before = torch.random.get_rng_state()
    cost = {"tol": 0.1} if METHODS[name].adaptive else {"nfe": 5}
    sample(MIXTURE.denoiser(PATHS["linear"]), name, eta=None if name == "edm_churn" else 1, **cost)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_range_alone_leaves_a_methods_own_scale():
    model, own = (
        MIXTURE.denoiser(PATHS["linear"]),
        dataclasses.replace(METHODS["sde_euler"], solver=TorchSDE("euler", Eta(0.3))),
    )
    found = sample(model, own, nfe=6, eta_range=(0.1, 5)).x
    assert torch.equal(found, sample(model, "sde_euler", nfe=6, eta=0.3, eta_range=(0.1, 5)).x)
    churn = sample(model, "edm_churn", nfe=9, eta_range=(1e3, 2e3)).x
    assert torch.equal(churn, sample(model, "heun", nfe=9, grid="karras").x)


# --- the command line


def test_the_command_draws_what_the_library_does_and_its_manifest_again(run, fails, model, tmp_path):
    common = ["sample", model, "-n", 3, "--nfe", 6, "--method", "sde_srk", "--eta", 0.5, "--eta-range", "0.05:50"]
    assert run(*common, "--out", tmp_path / "a").code == 0
    found = load_file(tmp_path / "a" / "samples.safetensors")["x"]
    own = sample(load(model), "sde_srk", nfe=6, seeds=range(3), eta=0.5, eta_range=(0.05, 50.0)).x
    assert torch.equal(found, own)
    assert run("sample", "--manifest", tmp_path / "a" / "manifest.json", "--out", tmp_path / "b").code == 0
    assert torch.equal(load_file(tmp_path / "b" / "samples.safetensors")["x"], found)
    large = ["sample", model, "-n", 2, "--nfe", 4, "--eta", "ddpm_large", "--out", tmp_path / "large"]
    assert run(*large).code == 0
    again = ["sample", "--manifest", tmp_path / "large" / "manifest.json", "--out", tmp_path / "again"]
    assert run(*again).code == 0
    first, second = (load_file(tmp_path / name / "samples.safetensors")["x"] for name in ("large", "again"))
    assert torch.equal(first, second)
    assert not torch.equal(first, sample(load(model), nfe=4, seeds=range(2), eta=1).x)
    out = ["--out", tmp_path / "c"]
    assert "eta='much' is no number" in fails("sample", model, "--eta", "much", *out)
    assert "the eta range '3' is not LOW:HIGH" in fails("sample", model, "--eta", 1, "--eta-range", 3, *out)
    assert "dpmpp_2m cannot have noise" in fails("sample", model, "--method", "dpmpp_2m", "--eta", 1, *out)
