"""Does `adaptive` keep its tolerance on large images? On one whose denoiser and flow are known in closed form.

python benchmarks/adaptive_size.py [--count N] [--tols TOL ...]

Images are Gaussian: a brightness that all pixels share, of standard deviation 0.4, and pixels of 0.05 each. Brightness
comes out of the noise at a sigma as large as the square root of the number of pixels. The error of a sample is its RMS
over pixels against the flow's exact solution; float64 state, from the largest sigma of DDPM's linear schedule (157) and
of the cosine one (20,291).
"""

import argparse
import math
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ddim_ode
from ddim_ode.paths import DiscreteVP, Noise
from ddim_ode.planning.inputs import seeded_noise

SHAPES = ((1, 28, 28), (3, 64, 64), (3, 128, 128), (3, 256, 256))
BRIGHTNESS, PIXELS = 0.4, 0.05
SCHEDULES = {"linear": DiscreteVP.linear(), "cosine": DiscreteVP.cosine()}


def gaussian(shape: tuple[int, ...], path: Noise) -> tuple[ddim_ode.Denoiser, Callable[[Tensor], Tensor]]:
    """The denoiser, and where the flow takes xbar from the largest sigma."""
    variances = PIXELS**2 + math.prod(shape) * BRIGHTNESS**2, PIXELS**2

    def scaled(x: Tensor, factors: list[Tensor]) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        return factors[0] * mean + factors[1] * (x - mean)

    def net(x: Tensor, sigma: Tensor) -> Tensor:
        return scaled(x, [v / (v + sigma.reshape(-1, 1, 1, 1) ** 2) for v in variances])

    def solution(xbar: Tensor) -> Tensor:
        return scaled(xbar, [torch.tensor(v / (v + path.sigma_max**2)).sqrt() for v in variances])

    return ddim_ode.Denoiser(net, path, "data", shape), solution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=16, help="samples (16)")
    parser.add_argument("--tols", type=float, nargs="+", default=(0.1, 0.03, 0.01, 0.003), metavar="TOL")
    args = parser.parse_args()
    table = Table("schedule", "shape", "method", *(f"tol {tol:g}" for tol in args.tols))
    for name, schedule in SCHEDULES.items():
        for shape in SHAPES:
            path = Noise(schedule.sigma_min, schedule.sigma_max)
            model, solution = gaussian(shape, path)
            exact = solution(path.sigma_max * seeded_noise(range(args.count), shape).double())
            for method in ("adaptive", "dopri5"):
                cells = []
                for tol in args.tols:
                    sol = ddim_ode.sample(
                        model, method, tol=tol, seeds=range(args.count), dtype=torch.float64, batch_size=4
                    )
                    errors = (sol.x - exact).flatten(1).square().mean(1).sqrt() / tol
                    cells.append(f"{errors.median():.2f}, {errors.max():.1f}, NFE {sol.nfe.median()}")
                table.add_row(name, " x ".join(map(str, shape)), method, *cells)
    Console(width=120).print("Error / tol: median and largest; median NFE", table)


if __name__ == "__main__":
    main()
