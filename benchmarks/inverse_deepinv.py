"""The restorers of deepinv (Tachella et al. 2025) on our network and images, at 20 evaluations.

    python benchmarks/inverse_deepinv.py [MODEL] [--images 16] [--json FILE]

Needs deepinv (https://deepinv.github.io), which nothing else here does. Images, masks, noise and scores are those of
benchmarks/inverse.py; deepinv has images in [0, 1], so that sigmas are halved on the way to it. Its DDRM is for
operators with a singular value decomposition, hence masks alone. Evaluations are counted where the network is called,
and a backward pass counts as one more. Every method has deepinv's own constants and grid.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

import deepinv
from deepinv.optim.data_fidelity import L2
from deepinv.sampling import DDRM, DPS, DiffPIR
from inverse import NOISES, TASKS, WAYS, halves, measured, row

import ddim_ode
from ddim_ode import data
from ddim_ode.inverse import restore
from ddim_ode.support.versions import circumstances

BUDGET = 20
MASKS = ("random 75%", "hole 14x14")
OURS = ("mmps", "mmps, dpmpp_2m", "ddnm", "repaint")


class Network(nn.Module):
    """Our denoiser as deepinv calls one, with its evaluations counted."""

    def __init__(self, model: ddim_ode.Denoiser, labels: Tensor):
        super().__init__()
        self.model, self.labels, self.nfe = model, labels, 0

    def forward(self, x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
        self.nfe += 2 if x.requires_grad else 1
        levels = 2 * torch.as_tensor(sigma, dtype=torch.float64).reshape(-1).clamp(min=1e-4)
        return (self.model((2 * x - 1).float(), levels, self.labels).data + 1) / 2


def restorers(network: Network, noise: float) -> dict[str, Any]:
    """By name, of about `BUDGET` evaluations each, but for DPS, whose backward passes are not all seen."""
    sigmas = torch.linspace(1, 0, BUDGET).tolist()
    return {
        "DDRM": DDRM(network, sigmas=sigmas),
        "DiffPIR": DiffPIR(network, L2(), sigma=max(noise / 2, 1e-3), max_iter=BUDGET),
        "DPS": DPS(network, num_steps=BUDGET // 3 + 1, solver="ddim", alpha=0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model, (images, labels) = ddim_ode.load(arguments.model), data.bundled_images()
    chosen = halves()[1][: arguments.images]
    x, labels = data.to_float(images[chosen]), labels[chosen]
    network, rows = Network(model, labels), []
    print("| task | noise | method | NFE | PSNR | SSIM | residual |\n|---|---|---|---|---|---|---|")

    def keep(task: str, noise: float, name: str, nfe: int, found: Tensor, started: float) -> None:
        rows.append(one := row(task, noise, name, nfe, x, found, time.perf_counter() - started))
        scores = f"{one.psnr:.1f} | {one.ssim:.3f} | {one.residual:.3f}"
        print(f"| {task} | {noise:g} | {name} | {nfe} | {scores} |", flush=True)

    for task in MASKS:
        known = TASKS[task].known
        for noise in NOISES:
            physics = deepinv.physics.Inpainting((1, 28, 28), mask=known.float())
            physics.noise_model = deepinv.physics.GaussianNoise(max(noise / 2, 1e-3))
            seen = measured(TASKS[task], x, noise)
            y = torch.where(known, (seen + 1) / 2, 0)
            for name, restorer in restorers(network, noise).items():
                network.nfe, started = 0, time.perf_counter()
                torch.manual_seed(0)
                found = 2 * restorer(y, physics).detach().float() - 1
                keep(task, noise, f"deepinv {name}", network.nfe, found, started)
            for name in OURS:
                method, solver, settings = WAYS[name]
                how = {"method": method, "solver": solver, "nfe": BUDGET, "noise_std": noise, **settings}
                started = time.perf_counter()
                solution = restore(model, seen, TASKS[task], labels=labels, **how)
                keep(task, noise, name, int(solution.nfe[0]), solution.x, started)
    if arguments.json:
        facts = {"date": f"{date.today()}", "command": " ".join(sys.argv), "deepinv": deepinv.__version__}
        text = json.dumps(facts | circumstances() | {"rows": [asdict(one) for one in rows]}, indent=1)
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
