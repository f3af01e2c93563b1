"""Our methods inside of ComfyUI, against its own samplers: the same numbers, fewer calls, and inpainting.

python benchmarks/comfyui.py --comfy FOLDER [--samples N] [--json]

FOLDER is ComfyUI's, and this Python the one that runs it. All runs go through its own `KSAMPLER`, schedulers and
`ModelSampling` classes; the network is a stand-in: a mixture of Gaussians (4 x 8 x 8, closed form), or the bundled
Fashion-MNIST model. What is printed:

    the same    relative difference (RMS over all samples) of a method here and ComfyUI's of the same name
    calls       of `adaptive` at the coarsest of some tolerances whose error is no larger than that of `dpm_adaptive`
                as ComfyUI has it. Errors are medians over samples, RMS in units of the data, against the image that a
                fine Runge-Kutta solution leads to. `dpm_adaptive` stops at the last sigma but one and leaves the noise
                of that in; so "there" compares it with the solution there, and ours with the image said there
    kept        how far the kept region of an inpainting run ends from what it was, largest absolute difference

Exits with 1 if a method differs by more than 1e-4, `adaptive` needs more than half of the calls to the image, or the
kept region moves by more than 1e-6.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from torch import Tensor

import ddim_ode
from ddim_ode.integrations.k_diffusion import sampler
from ddim_ode.models.analytic import GaussianMixture

SAME = ("euler", "heun", "lms", "dpmpp_2m", "ipndm")
KEPT = (*SAME, "adams2", "adams3", "adams4", "unipc_3", "dpm_solver_3", "sde_dpmpp_2m", "adaptive", "dopri5")
SEED = 7
NEAR = 1e-3  # the sigma at which an image is one


class Diffusion:
    """What ComfyUI's samplers ask of a model: its sampling, and how it mixes a kept region in."""

    def __init__(self, sampling: Any):
        self.model_sampling = sampling

    def scale_latent_inpaint(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, **_: Any) -> Tensor:
        return self.model_sampling.noise_scaling(sigma.reshape(-1, *[1] * (noise.ndim - 1)), noise, latent_image)


class Guider:
    """The denoised image, as a guider of ComfyUI returns it, counting its calls."""

    def __init__(self, sampling: Any, denoise: Callable[[Tensor, Tensor], Tensor], flow: bool):
        self.inner_model, self.denoise, self.flow, self.calls = Diffusion(sampling), denoise, flow, 0

    def ratio(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(sigma, scale of x) in float64."""
        s = sigma.double()
        return (s / (1 - s).clamp(min=1e-9), (1 - s).clamp(min=1e-9)) if self.flow else (s, torch.ones_like(s))

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Any = None, seed: int | None = None) -> Tensor:
        self.calls += 1
        ratio, scale = self.ratio(sigma)
        return self.denoise(x.double() / scale.reshape(-1, *[1] * (x.ndim - 1)), ratio).to(x.dtype)


def mixture(components: int = 24) -> GaussianMixture:
    means = torch.randn(components, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return GaussianMixture(0.8 * means, [0.1 + 0.02 * k for k in range(components)])


def problems(comfy: Any) -> dict[str, tuple[Guider, tuple[int, ...], Tensor]]:
    """Of each the model, the shape of a sample, and sigmas of 20 steps by ComfyUI's own scheduler."""
    ms, data = comfy.model_sampling, mixture()
    fashion = ddim_ode.load("fashion")

    def of_data(xbar: Tensor, sigma: Tensor) -> Tensor:
        return data.denoise(xbar, sigma)[0]

    def of_fashion(xbar: Tensor, sigma: Tensor) -> Tensor:
        return fashion(xbar, sigma, torch.arange(len(xbar)) % 10).data

    def made(*kinds: type) -> Any:
        return type("ModelSampling", kinds, {})()

    def table() -> Any:  # of the bundled model, whose schedule goes to sigma = 20000
        sampling = made(ms.ModelSamplingDiscrete, ms.EPS)
        sigmas = fashion.path.sigma(torch.arange(fashion.path.num_timesteps, dtype=torch.float64))
        sampling.set_sigmas(sigmas[sigmas < 80])
        return sampling

    def sigmas(sampling: Any, scheduler: str) -> Tensor:
        return comfy.samplers.calculate_sigmas(sampling, scheduler, 20).cpu()

    found = {}
    for name, sampling, scheduler, denoise, shape in (
        ("mixture, eps, karras", made(ms.ModelSamplingDiscrete, ms.EPS), "karras", of_data, data.shape),
        ("mixture, eps, normal", made(ms.ModelSamplingDiscrete, ms.EPS), "normal", of_data, data.shape),
        ("mixture, flow, simple", made(ms.ModelSamplingDiscreteFlow, ms.CONST), "simple", of_data, data.shape),
        ("mixture, flow, beta", made(ms.ModelSamplingFlux, ms.CONST), "beta", of_data, data.shape),
        ("fashion, eps, karras", table(), "karras", of_fashion, fashion.shape),
    ):
        found[name] = (Guider(sampling, denoise, "flow" in name), shape, sigmas(sampling, scheduler))
    return found


def sampled(comfy: Any, ours: Any, guider: Guider, x: dict[str, Any], sigmas: Tensor) -> Tensor:
    """What ComfyUI makes of a sampler function of ours, or of the name of one of its own; calls are counted anew."""
    sampling = comfy.samplers.ksampler(ours) if isinstance(ours, str) else comfy.samplers.KSAMPLER(ours)
    guider.calls = 0
    return sampling.sample(guider, sigmas, {"seed": SEED, "model_options": {}}, None, disable_pbar=True, **x)


def start(shape: tuple[int, ...], n: int, latent: bool = False) -> dict[str, Any]:
    g = torch.Generator().manual_seed(SEED)
    noise, image = torch.randn(2, n, *shape, generator=g)
    return {"noise": noise, "latent_image": 0.8 * image if latent else torch.zeros_like(noise)}


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().square().mean().sqrt() / b.double().square().mean().sqrt())


def the_same(comfy: Any, n: int) -> dict[str, dict[str, float]]:
    """Whole runs, runs that stop with noise left and runs that begin in the middle."""
    rows = {}
    for problem, (guider, shape, sigmas) in problems(comfy).items():
        for way, part, latent in (
            ("", sigmas, False),
            (" to step 12", sigmas[:13], False),
            (" from 8", sigmas[8:], True),
        ):
            x = start(shape, n, latent)
            theirs = {name: sampled(comfy, name, guider, x, part) for name in SAME}
            rows[problem + way] = {
                name: apart(sampled(comfy, sampler(name), guider, x, part), theirs[name]) for name in SAME
            }
    return rows


def solution(guider: Guider, x: Tensor, first: float, last: float, steps: int) -> Tensor:
    """dx/ds = (x - D) / s from the first sigma to the last, in float64, by the classical Runge-Kutta method."""
    s = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    u0, u1 = (torch.atan(torch.tensor(v, dtype=torch.float64)) for v in (first, last))
    nodes, x = torch.tan(u0 + s * (u1 - u0)), x.double()

    def slope(x: Tensor, s: Tensor) -> Tensor:
        return (x - guider(x, s.expand(len(x)))) / s

    for a, b in pairwise(nodes):
        h, middle = b - a, (a + b) / 2
        k1 = slope(x, a)
        k2 = slope(x + h / 2 * k1, middle)
        k3 = slope(x + h / 2 * k2, middle)
        k4 = slope(x + h * k3, b)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def calls(comfy: Any, n: int) -> dict[str, dict[str, float]]:
    rows = {}
    for problem, (guider, shape, sigmas) in problems(comfy).items():
        x = start(shape, n)
        first, last = float(sigmas[0]), float(sigmas[-2])
        # What KSAMPLER hands over, by a sampler that does nothing; its way out divides by 1 - s.
        begun = sampled(comfy, lambda model, x, sigmas, **_: x, guider, x, sigmas[:-1])
        end = solution(guider, begun * (1 - last if guider.flow else 1.0), first, last, 300)
        said = guider(end, torch.full((n,), last, dtype=torch.float64))
        image = guider(solution(guider, end, last, NEAR, 50), torch.full((n,), NEAR, dtype=torch.float64))

        def error(found: Tensor, truth: Tensor) -> float:
            return float((found.double() - truth).flatten(1).square().mean(1).sqrt().median())

        theirs = sampled(comfy, "dpm_adaptive", guider, x, sigmas)
        row: dict[str, float] = {"dpm_adaptive": guider.calls}
        goals = {"": (error(theirs, image), image), " there": (error(theirs, end), said)}
        for k in range(2, 25):
            found = sampled(comfy, sampler("adaptive", tol=10 ** (-k / 8)), guider, x, sigmas)
            for goal, (most, truth) in goals.items():
                if f"adaptive{goal}" not in row and error(found, truth) <= most:
                    own = {f"error{goal}": error(found, truth), f"tol{goal}": 10 ** (-k / 8)}
                    row |= {f"its error{goal}": most, f"adaptive{goal}": guider.calls} | own
        rows[problem] = row
    return rows


def kept(comfy: Any, n: int) -> dict[str, dict[str, float]]:
    rows = {}
    for problem, (guider, shape, sigmas) in problems(comfy).items():
        x = start(shape, n, latent=True)
        mask = torch.zeros_like(x["noise"])
        mask[..., : shape[-1] // 2] = 1
        outside = (mask == 0).expand_as(x["noise"])
        rows[problem] = {
            name: float(
                (sampled(comfy, sampler(name), guider, x | {"denoise_mask": mask}, sigmas) - x["latent_image"])[outside]
                .abs()
                .max()
            )
            for name in KEPT
        }
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfy", type=Path, required=True, help="ComfyUI's folder")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sys.path.insert(0, str(given.comfy))
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.model_sampling
    import comfy.samplers

    found = {
        "the same": the_same(comfy, given.samples),
        "calls": calls(comfy, given.samples),
        "kept": kept(comfy, given.samples),
    }
    if given.json:
        print(json.dumps(found, indent=1))
    else:
        for part, rows in found.items():
            print(f"\n{part}")
            for problem, row in rows.items():
                print(f"  {problem:42}", "  ".join(f"{name} {value:.3g}" for name, value in row.items()))
    worst = max(value for row in found["the same"].values() for value in row.values())
    moved = max(value for row in found["kept"].values() for value in row.values())
    halved = all(2 * row.get("adaptive", 1e9) <= row["dpm_adaptive"] for row in found["calls"].values())
    return int(worst > 1e-4 or moved > 1e-6 or not halved)


if __name__ == "__main__":
    sys.exit(main())
