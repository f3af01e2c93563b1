"""Images and latents, against the formulas of Stable Diffusion's pipelines."""

import copy
import math
import pickle
import re

import pytest
import torch
from accelerate import cpu_offload
from diffusers import VQModel
from torch import Tensor

from ddim_ode import paths
from ddim_ode.data import to_float
from ddim_ode.errors import DDIMError
from ddim_ode.inversion import reconstruct
from ddim_ode.models.autoencoder import Autoencoder, AutoencoderError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line, same
from tests.helpers.denoising import random_module, tiny_vae
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


# --- what overflows


def loud(**config: object) -> torch.nn.Module:
    """One whose activations are beyond float16, as those of SDXL's are."""
    vae = tiny_vae(**config)
    for p in vae.parameters():
        p.mul_(40)
    return vae


@pytest.mark.parametrize("call", ["to_latent", "to_image"])
def test_what_overflows_is_named_with_its_sample(call):
    auto = Autoencoder.from_diffusers(loud(force_upcast=False).half(), batch_size=2)
    x = torch.zeros(5, *((1, 16, 16) if call == "to_latent" else (2, 8, 8)))
    vae = loud().double()
    with torch.no_grad():
        whole = vae.encode(x.double()).latent_dist.mean if call == "to_latent" else vae.decode(x.double()).sample
    assert whole.isfinite().all()
    words = one_line(AutoencoderError, getattr(auto, call), x)
    assert "output is not finite for sample 0, in float16; give dtype=torch.float32" in words


@pytest.mark.parametrize("bad", [0, 1, 4])
def test_the_first_sample_that_is_not_finite_is_named(bad):
    def coder(x: Tensor) -> Tensor:
        return x / (x.flatten(1).sum(1).reshape(-1, 1, 1, 1) != bad)

    auto = Autoencoder(coder, coder, batch_size=2)
    x = torch.arange(5.0).reshape(5, 1, 1, 1)
    x[0] = 0.5 if bad else 0.0
    for call in (auto.to_latent, auto.to_image):
        assert f"not finite for sample {bad}," in one_line(AutoencoderError, call, x)


Z = normal(2, 2, 8, 8, seed=0, dtype=torch.float32)


@pytest.mark.parametrize(("says", "dtype"), [(True, None), (True, torch.float32), (False, torch.float32)])
def test_one_in_float16_computes_in_float32_and_stays_as_it_is(says, dtype):
    half = loud(force_upcast=says).half()
    before = copy.deepcopy(half.state_dict())
    auto = Autoencoder.from_diffusers(half, dtype=dtype)
    exact = Autoencoder.from_diffusers(copy.deepcopy(half).float())
    assert auto.dtype == torch.float32
    assert torch.equal(auto.to_image(Z), exact.to_image(Z))
    assert torch.equal(auto.to_latent(BYTES), exact.to_latent(BYTES))
    assert same(dict(half.state_dict()), dict(before))
    assert next(half.parameters()).dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_computes_in_what_is_asked_for(dtype):
    plain = tiny_vae()
    auto = Autoencoder.from_diffusers(plain, dtype=dtype)
    with torch.no_grad():
        wanted = copy.deepcopy(plain).to(dtype).decode((Z / auto.scale).to(dtype)).sample.float()
    assert torch.equal(auto.to_image(Z), wanted)
    assert next(plain.parameters()).dtype == torch.float32


def more(vae: torch.nn.Module) -> None:
    """A layer is put into it, as LoRA's are."""
    vae.decoder.conv_out = torch.nn.Sequential(vae.decoder.conv_out, torch.nn.Conv2d(1, 1, 1).half().eval())


def weights(vae: torch.nn.Module) -> None:
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(2)


CHANGES = {
    "weights": weights,
    "new weights": lambda vae: vae.load_state_dict({k: v + 0.01 for k, v in vae.state_dict().items()}, assign=True),
    "layers": more,
    "precision": lambda vae: vae.to(torch.bfloat16),
    "tiling": lambda vae: vae.enable_tiling(),
    "slicing": lambda vae: vae.enable_slicing(),
}


@pytest.mark.filterwarnings("ignore:.*kept in float32")
@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_never_an_old_one(change):
    vae = tiny_vae(force_upcast=True).half()
    auto = Autoencoder.from_diffusers(vae)
    before = auto.to_image(Z)
    used = auto.decoder.__self__._net()
    assert auto.decoder.__self__._net() is used  # one copy, while nothing changes
    CHANGES[change](vae)
    expected = Autoencoder.from_diffusers(copy.deepcopy(vae).float()).to_image(Z)
    assert torch.equal(auto.to_image(Z), expected)
    if change in ("weights", "new weights", "layers", "precision"):
        assert not torch.equal(expected, before)
    else:
        assert getattr(auto.decoder.__self__._net(), f"use_{change}")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda auto: pickle.loads(pickle.dumps(auto))])  # noqa: S301
def test_it_can_be_copied_and_pickled(copied):
    auto = Autoencoder.from_diffusers(tiny_vae().half())
    assert torch.equal(copied(auto).to_latent(BYTES), auto.to_latent(BYTES))


def test_an_offloaded_autoencoder():
    plain = tiny_vae()
    auto = Autoencoder.from_diffusers(cpu_offload(copy.deepcopy(plain), execution_device=torch.device("cpu")))
    assert torch.equal(auto.to_latent(BYTES), Autoencoder.from_diffusers(plain).to_latent(BYTES))
    away = cpu_offload(copy.deepcopy(plain).half(), execution_device=torch.device("cpu"))
    assert Autoencoder.from_diffusers(away).dtype == torch.float16
    assert "vae is offloaded" in one_line(AutoencoderError, Autoencoder.from_diffusers, away, dtype=torch.float32)
    assert "weights of vae are not loaded" in one_line(
        AutoencoderError, Autoencoder.from_diffusers, copy.deepcopy(plain).to("meta")
    )


def test_training_mode_is_refused_whenever_it_begins():
    vae = tiny_vae()
    vae.add_module("more", torch.nn.Dropout(0.5))
    auto = Autoencoder.from_diffusers(vae.eval())
    vae.train()
    for call in (lambda: auto.to_latent(BYTES), lambda: Autoencoder.from_diffusers(vae)):
        assert "is in training mode" in one_line(AutoencoderError, call)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scale": 0}, "scale=0 leaves nothing"),
        ({"scale": math.nan}, "scale=nan must be a number"),
        ({"scale": math.inf}, "scale=inf must be a number"),
        ({"scale": "1"}, "scale='1' must be a number"),
        ({"shift": math.nan}, "shift=nan must be a number"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number"),
        ({"batch_size": 1.5}, "batch_size=1.5 must be a whole number"),
        ({"dtype": "float32"}, "dtype is the str 'float32'; give"),
        ({"dtype": torch.int64}, "dtype=torch.int64 is no precision"),
        ({"device": "nope"}, "device='nope' is no device"),
        ({"encoder": "x"}, "encoder is the str 'x'; give a module or a function"),
        ({"decoder": torch.nn.Identity}, "decoder is the class Identity; give an instance"),
    ],
)
def test_what_an_autoencoder_cannot_be_made_of(changes, words):
    given = {"encoder": torch.nn.Identity(), "decoder": torch.nn.Identity(), **changes}
    assert words in one_line(DDIMError, lambda: Autoencoder(**given))


@pytest.mark.parametrize(
    ("call", "given", "words"),
    [
        ("to_image", "x", "z is the str 'x'; give latents"),
        ("to_image", [1.0], "z is a list of 1; give latents"),
        ("to_image", torch.zeros(2, 2, 8, 8, dtype=torch.uint8), "z is torch.uint8; give floats"),
        ("to_image", torch.zeros(0, 2, 8, 8), "z has shape (0, 2, 8, 8)"),
        ("to_image", torch.zeros(()), "z has shape ()"),
        ("to_image", torch.full((2, 2, 8, 8), math.nan), "z[0] holds NaN or infinity"),
        ("to_latent", None, "images is None; give images"),
        ("to_latent", torch.zeros(2, 1, 16, 16, dtype=torch.int64), "images is torch.int64; give floats"),
        ("to_latent", torch.zeros(0, 1, 16, 16), "images has shape (0, 1, 16, 16)"),
        ("to_latent", torch.full((2, 1, 16, 16), 255.0), "images reach 255, and lie in [-1, 1]; give bytes"),
        ("to_latent", torch.full((2, 1, 16, 16), math.inf), "images[0] holds NaN or infinity"),
    ],
)
def test_what_is_no_image_or_latent_is_refused(call, given, words):
    auto = Autoencoder(torch.nn.Identity(), torch.nn.Identity())
    assert words in one_line(DDIMError, getattr(auto, call), given)


@pytest.mark.parametrize("vae", ["x", None, 3, torch.nn.Identity])
def test_what_is_no_autoencoder_is_refused(vae):
    assert "vae is " in one_line(DDIMError, Autoencoder.from_diffusers, vae)


def test_an_autoencoder_must_return_what_it_was_given():
    auto = Autoencoder(lambda x: (x,), lambda z: z[:1])
    assert "the encoder returned tuple" in one_line(AutoencoderError, auto.to_latent, BYTES)
    assert "the decoder returned shape (1, 1, 16, 16) for 5 samples" in one_line(
        AutoencoderError, auto.to_image, to_float(BYTES)
    )
