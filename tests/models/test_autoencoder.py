"""Images and latents, against the formulas of Stable Diffusion's pipelines."""

import re

import pytest
import torch
from diffusers import VQModel
from torch import Tensor

from ddim_ode import paths
from ddim_ode.data import to_float
from ddim_ode.inversion import reconstruct
from ddim_ode.models.autoencoder import Autoencoder, AutoencoderError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.pipelines import random_module, tiny_vae
from tests.helpers.tensors import normal

BYTES = torch.randint(256, (5, 1, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
VQ = random_module(
    VQModel, in_channels=1, out_channels=1, block_out_channels=(8,), latent_channels=2, norm_num_groups=4
)


@pytest.mark.parametrize("shift", [None, 0.3])
def test_latents_are_those_of_the_pipelines(shift):
    vae = tiny_vae(scaling_factor=1.5, shift_factor=shift)
    auto, x = Autoencoder.from_diffusers(vae, batch_size=2), to_float(BYTES)
    z = auto.to_latent(BYTES)
    assert z.shape == (5, 2, 8, 8)
    expected = (vae.encode(x).latent_dist.mean - (shift or 0)) * 1.5
    torch.testing.assert_close(z, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(auto.to_latent(x), z, rtol=0, atol=0)
    image = auto.to_image(z)
    assert image.shape == x.shape
    torch.testing.assert_close(image, vae.decode(z / 1.5 + (shift or 0)).sample, rtol=1e-5, atol=1e-5)


def test_a_quantising_autoencoder():
    auto, x = Autoencoder.from_diffusers(VQ), to_float(BYTES)
    z = auto.to_latent(x)
    torch.testing.assert_close(z, VQ.encode(x).latents * 0.18215, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(auto.to_image(z), VQ.decode(z / 0.18215).sample, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_autoencoder_has_its_precision_and_the_state_keeps_its_own(dtype):
    auto = Autoencoder.from_diffusers(tiny_vae().to(dtype))
    for state in (torch.float32, torch.float64):
        z = auto.to_latent(to_float(BYTES).to(state))
        assert z.dtype == auto.to_image(z).dtype == state
    exact = Autoencoder.from_diffusers(tiny_vae().double()).to_latent(BYTES)
    torch.testing.assert_close(auto.to_latent(BYTES), exact, rtol=0.05, atol=0.02)


def test_sampling_and_encoding_work_on_images():
    auto = Autoencoder.from_diffusers(tiny_vae(scaling_factor=1.0))
    model = Denoiser(lambda x, t: 0.3 * x, paths.DiscreteVP.linear(), "velocity", (2, 8, 8))
    assert auto.to_image(sample(model, nfe=5, seeds=[0, 1]).x).shape == (2, 1, 16, 16)
    z = auto.to_latent(BYTES)
    back = reconstruct(model, z, nfe=6)
    assert back.bit_exact.all()
    assert torch.equal(auto.to_image(back.solution.x), auto.to_image(z))


def test_any_pair_of_functions_will_do():
    def double(x: Tensor) -> Tensor:
        return 2 * x

    auto, x = Autoencoder(double, lambda z: z / 2, scale=0.5, shift=1.0), normal(3, 1, 4, 4, seed=0)
    torch.testing.assert_close(auto.to_latent(x), x - 0.5, rtol=0, atol=1e-6)
    torch.testing.assert_close(auto.to_image(auto.to_latent(x)), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("vae", "words"),
    [
        (tiny_vae(latents_mean=[0.0, 1.0]), "latents_mean and latents_std; give"),
        (torch.nn.Module(), "no scaling_factor; use"),
    ],
)
def test_what_an_autoencoder_does_not_say_is_an_error_of_one_line(vae, words):
    if not hasattr(vae, "config"):
        vae.config = None
    assert re.search(words, one_line(AutoencoderError, Autoencoder.from_diffusers, vae))
