"""Valid calls of the public functions, one or two of whose arguments are something else."""

import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import ddim_ode
from benchmarks.fuzzing.inputs import FINE, Input
from benchmarks.fuzzing.material import Material
from benchmarks.fuzzing.odd import VALUES
from ddim_ode import continuous, data, grids, metrics, paths
from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Denoiser

Made = Callable[[Material], Any]
SHAPE = (1, 4, 4)
SCHEDULE = paths.DiscreteVP.cosine(50)


@dataclass(frozen=True)
class Call:
    """A function, or what makes it, and valid arguments by name, each made when it is used."""

    function: Made
    valid: Mapping[str, Made]


def net(x: Tensor, *others: Any, **more: Any) -> Tensor:
    """A network that takes whatever it is given."""
    return 0.3 * x


class UNet2DModel(torch.nn.Module):
    """A network as pipelines of diffusers have them."""

    config = SimpleNamespace(in_channels=1, out_channels=1, sample_size=4)

    def forward(self, x: Tensor, t: Tensor) -> Any:
        return SimpleNamespace(sample=0.3 * x)


def denoiser(material: Material | None = None) -> Denoiser:
    return Denoiser(net, SCHEDULE, "noise", SHAPE, 3)


def images(material: Material | None = None) -> Tensor:
    return torch.linspace(-1, 1, 32).reshape(2, *SHAPE)


def mixture(material: Material | None = None) -> ddim_ode.GaussianMixture:
    return ddim_ode.GaussianMixture(torch.arange(48.0).reshape(3, *SHAPE) / 48, 0.5, labels=[0, 1, 2])


def latent(material: Material | None = None) -> ddim_ode.Latent:
    return ddim_ode.encode(denoiser(), images(), nfe=3)


def study(material: Material) -> ddim_ode.Study:
    return ddim_ode.Study.load(material.study)


def points(count: int = 8, width: int = 4) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


def vae() -> Any:
    config = SimpleNamespace(scaling_factor=0.5)
    net = torch.nn.Linear(2, 2)
    net.config = config
    return net


def pipe() -> Any:
    config = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 50}
    return SimpleNamespace(unet=UNet2DModel(), scheduler=SimpleNamespace(config=config))


def always(value: Any) -> Made:
    """An argument that is the same for all."""
    return lambda material: value


def call(function: Callable[..., Any], **valid: Any) -> Call:
    """A function and valid arguments; those that are functions of one argument, the material, make theirs."""
    made = {name: value if callable(value) and value in MAKERS else always(value) for name, value in valid.items()}
    return Call(always(function), made)


def method(of: Made, name: str, **valid: Any) -> Call:
    """A method of an object."""
    return Call(lambda material: getattr(of(material), name), call(len, **valid).valid)


MAKERS = (denoiser, images, mixture, latent, study)
MODEL: dict[str, Any] = {"model": denoiser}
SIGMAS = torch.tensor([2.0, 1.0], dtype=torch.float64)
CALLS: dict[str, Call] = {
    "sample": call(ddim_ode.sample, **MODEL, method="ddim", nfe=3, seeds=[0, 1], labels=1, guidance=2.0),
    "sample adaptive": call(ddim_ode.sample, **MODEL, method="adaptive", tol=0.1, seeds=[0], max_nfe=50),
    "sample noise": call(ddim_ode.sample, **MODEL, method="ddim", nfe=4, noise=images, eta=0.5),
    "sample start": call(ddim_ode.sample, **MODEL, method="heun", start=images, grid=[5.0, 1.0, 0.0]),
    "encode": call(ddim_ode.encode, **MODEL, x=images, method="exact_heun", nfe=3, labels=[0, 1]),
    "decode": call(ddim_ode.decode, **MODEL, latent=latent),
    "reconstruct": call(ddim_ode.reconstruct, **MODEL, x=images, method="ddim", nfe=3),
    "interpolate": call(ddim_ode.interpolate, **MODEL, ends=images, frames=3, nfe=3, method="ddim"),
    "between": call(ddim_ode.between, ends=images, frames=3),
    "slerp": call(ddim_ode.slerp, z0=points(1, 4)[0], z1=points(2, 4)[0], weights=[0.0, 0.5]),
    "log_likelihood": call(ddim_ode.log_likelihood, **MODEL, x=images, method="heun", nfe=8, seed=1, probes=1),
    "compare": call(ddim_ode.compare, **MODEL, methods=["ddim"], nfe=[2], seeds=[0, 1], reference_tol=0.5, labels=1),
    "recommend": call(ddim_ode.recommend, **MODEL, nfe=2, seeds=[0, 1], labels=1),
    "load": Call(always(ddim_ode.load), {"what": lambda m: m.model, "check": always(True)}),
    "load ckpt": Call(
        always(ddim_ode.load),
        {"what": lambda m: m.original / "ckpt.pth", "config": lambda m: m.original / "config.yml"},
    ),
    "probe": call(ddim_ode.probe, **MODEL, seed=0),
    "adams": call(ddim_ode.adams, order=3, path="angle", basis="angle", corrector=False, grid="karras"),
    "from_pipeline": call(ddim_ode.from_pipeline, pipe=pipe(), quantize=False),
    "Denoiser": call(Denoiser, net=net, path=SCHEDULE, predicts="noise", shape=SHAPE, num_classes=3),
    "Denoiser()": method(denoiser, "__call__", xbar=images, sigma=1.0, labels=torch.tensor([0, 1])),
    "Denoiser.to": method(denoiser, "to", device="cpu", dtype=torch.float64),
    "from_edm": call(Denoiser.from_edm, net=net, shape=SHAPE, num_classes=3, sigma_min=0.01, sigma_max=80.0),
    "from_k_diffusion": call(Denoiser.from_k_diffusion, net=net, shape=SHAPE, sigma_min=0.01, sigma_max=80.0),
    "from_v": call(Denoiser.from_v, net=net, shape=SHAPE, path=continuous.Cosine()),
    "from_flow": call(Denoiser.from_flow, net=net, shape=SHAPE, data_at=0, time_scale=1000.0),
    "from_score": call(Denoiser.from_score, net=net, shape=SHAPE, path=continuous.VPSDE()),
    "GaussianMixture": call(
        ddim_ode.GaussianMixture, means=points(3, 4), stds=[0.1, 0.2, 0.3], weights=[1, 2, 3], labels=[0, 1, 2]
    ),
    "mixture.denoise": method(mixture, "denoise", xbar=images, sigma=1.0, labels=torch.tensor([0, 1])),
    "mixture.log_density": method(mixture, "log_density", xbar=images, sigma=1.0),
    "mixture.sample": method(mixture, "sample", n=3, seed=0, sigma=1.0),
    "mixture.denoiser": method(mixture, "denoiser", path=paths.angle, predicts="velocity"),
    "Guided": call(ddim_ode.Guided, **MODEL, scale=2.0, sigma_range=(0.1, 5.0)),
    "Latent[]": method(latent, "__getitem__", rows=[0]),
    "Latent.save": method(latent, "save", file="x.safetensors"),
    "Latent.load": Call(always(ddim_ode.Latent.load), {"file": lambda m: m.latent / "x.safetensors"}),
    "Study.load": Call(always(ddim_ode.Study.load), {"folder": lambda m: m.study}),
    "Study.save": method(study, "save", folder="out"),
    "Study.row": Call(lambda m: study(m).row, {"key": lambda m: study(m).rows[0].key}),
    "Autoencoder": call(ddim_ode.Autoencoder, encoder=net, decoder=net, scale=0.5, shift=0.1, batch_size=1),
    "to_latent": method(lambda m: ddim_ode.Autoencoder(net, net), "to_latent", images=images),
    "to_image": method(lambda m: ddim_ode.Autoencoder(net, net), "to_image", z=images),
    "from_diffusers": call(ddim_ode.Autoencoder.from_diffusers, vae=vae(), batch_size=2),
    **{f"grids.{name}": call(rule, path=SCHEDULE, n=4) for name, rule in grids.GRIDS.items()},
    "make_grid": call(grids.make_grid, grid="karras", path=SCHEDULE, intervals=4, final="denoise"),
    "check_grid": call(grids.check_grid, sigmas=[5.0, 1.0, 0.0], path=SCHEDULE),
    "explicit_grid": call(grids.explicit_grid, sigmas=[5.0, 1.0, 0.0]),
    "most_intervals": call(grids.most_intervals, grid="leading", path=SCHEDULE, final="denoise"),
    "DiscreteVP": call(paths.DiscreteVP, alphas_cumprod=[0.9, 0.5, 0.1]),
    "from_betas": call(paths.DiscreteVP.from_betas, betas=[0.1, 0.2, 0.3]),
    "linear": call(paths.DiscreteVP.linear, timesteps=50, first=1e-4, last=0.02),
    "scaled_linear": call(paths.DiscreteVP.scaled_linear, timesteps=50, first=1e-4, last=0.02),
    "cosine": call(paths.DiscreteVP.cosine, timesteps=50, offset=0.008, largest=0.999),
    "paths.f64": call(paths.f64, x=[1.0, 2.0]),
    **{
        kind.__name__: call(kind, sigma_min=0.1, sigma_max=10.0)
        for kind in (paths.Noise, paths.Data, paths.Angle, paths.Flow)
    },
    "VPSDE": call(continuous.VPSDE, t_min=1e-3, t_max=1.0, beta_min=0.1, beta_max=20.0),
    "VESDE": call(continuous.VESDE, sigma_min=0.01, sigma_max=50.0),
    "Cosine": call(continuous.Cosine, t_min=1e-3, t_max=0.999),
    "fashion_mnist": Call(always(data.fashion_mnist), {"split": always("test"), "folder": lambda m: m.idx}),
    "image_folder": Call(always(data.image_folder), {"folder": lambda m: m.images, "shape": always((1, 8, 8))}),
    "image_files": Call(always(data.image_files), {"folder": lambda m: m.images}),
    "load_images": Call(
        always(data.load_images), {"files": lambda m: [m.images / "0.png"], "shape": always((3, 8, 8))}
    ),
    "to_float": call(data.to_float, images=torch.zeros(2, *SHAPE, dtype=torch.uint8)),
    "to_uint8": call(data.to_uint8, x=images),
    "is_picture": call(data.is_picture, shape=SHAPE),
    "save_grid": call(data.save_grid, x=images, file=Path("grid.png"), columns=2, margin=2, zoom=2),
    "save_images": call(data.save_images, x=images, folder=Path("images")),
    "png_of": call(data.png_of, pixels=torch.zeros(2, *SHAPE, dtype=torch.uint8)),
    "psnr": call(metrics.psnr, x=images, y=images),
    "ssim": call(metrics.ssim, x=torch.zeros(2, 1, 16, 16), y=torch.zeros(2, 1, 16, 16)),
    "consistency": call(metrics.consistency, x=images, y=images, features="pixels"),
    "frechet_distance": call(metrics.frechet_distance, a=points(8), b=points(9)),
    "kid": call(metrics.kid, a=points(20), b=points(21), seed=0),
    "precision_recall": call(metrics.precision_recall, a=points(8), b=points(9), k=3),
    "sliced_wasserstein": call(metrics.sliced_wasserstein, x=images, y=images, projections=8, seed=0),
    "distribution": call(metrics.distribution, samples=images, real=images, features="pixels", seed=0),
    "evaluate": call(metrics.evaluate, samples=images, real=images, features="pixels", seed=0, most=8, shard_size=3),
    "inception_score": call(metrics.inception_score, logits=points(20), seed=0),
    "RealImages": call(metrics.RealImages, images=images, features="pixels", seed=0),
    "feature_space": call(metrics.feature_space, what="pixels", model_shape=SHAPE),
    "default_features": call(metrics.default_features, shape=SHAPE),
    "quality": call(metrics.quality, samples=torch.zeros(4, 1, 28, 28), labels=torch.tensor([0, 1, 2, 3])),
}
SUBJECTS = tuple(CALLS)


def make(subject: str, name: str, rng: random.Random | None, material: Material, scratch: Path) -> Input:
    """A call with one or two odd arguments, of those that it has and of those that it could have."""
    given = CALLS[subject]
    function = given.function(material)
    known = list(dict.fromkeys([*given.valid, *_parameters(function)]))
    odd = rng.sample(known, min(len(known), rng.choice((1, 1, 2)))) if rng else []
    changed = {key: rng.choice(list(VALUES)) for key in odd} if rng else {}
    made = {key: value(material) for key, value in given.valid.items()}
    made |= {key: VALUES[what]() for key, what in changed.items()}
    words = ", ".join(f"{key}={what}" for key, what in changed.items())
    return Input(name, f"{subject}: {words}", partial(_run, function, made), refusals=(DDIMError,))


def _run(function: Callable[..., Any], arguments: Mapping[str, Any]) -> str:
    function(**arguments)
    return FINE


def _parameters(function: Any) -> list[str]:
    """Names of arguments that can be given by name; none of a module, which no call is of."""
    if isinstance(function, ModuleType):
        return []
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in kinds]
