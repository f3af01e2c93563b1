"""Which grid suits DDIM on a model, and what do fractional timesteps change?

python benchmarks/ddim_grids.py [MODEL] [--count N]

First table: trajectory error of DDIM on each named grid, the RMS over an image's pixels, as median / RMS over samples,
against Runge-Kutta 4 on the angle path with 100 steps in log sigma (401 evaluations). Second: the RMS difference
between `quantize=True` and False on the uniform grid, median / largest. Seeds 0..N-1, classes in turn, float64 state.
"""

import argparse
import dataclasses
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch
from torch import Tensor

import ddim_ode
from ddim_ode import paths
from ddim_ode.grids import make_grid
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.solvers import integrate
from ddim_ode.solvers.runge_kutta import RungeKutta

NFES = (5, 10, 20, 50)


def rms(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square over each sample, (B,)."""
    return (a - b).flatten(1).square().mean(1).sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion", help="what ddim_ode.load takes (fashion)")
    parser.add_argument("--count", type=int, default=24, help="samples (24)")
    args = parser.parse_args()
    model = ddim_ode.load(args.model)
    labels = torch.arange(args.count) % model.num_classes if model.num_classes else None
    noise = seeded_noise(range(args.count), model.shape).double()

    sigmas = make_grid("log_snr", model.path, 100, "denoise")
    ode = ProbabilityFlow(model, paths.angle, (model.sigma_min, model.sigma_max), labels)
    reference = integrate(ode, RungeKutta("rk4"), sigmas, noise * model.path.prior_std(sigmas[0]))

    def ddim(model: ddim_ode.Denoiser, nfe: int, grid: str) -> Tensor:
        return ddim_ode.sample(model, nfe=nfe, noise=noise, labels=labels, grid=grid, dtype=torch.float64).x

    print(f"{'grid':<10}", *(f"{f'NFE {nfe}':>16}" for nfe in NFES))
    for grid in ddim_ode.GRIDS:
        errors = [rms(ddim(model, nfe, grid), reference) for nfe in NFES]
        print(f"{grid:<10}", *(f"{e.median():8.4f}/{e.square().mean().sqrt():.4f} " for e in errors), flush=True)
    rounded = dataclasses.replace(model, quantize=True)
    changes = [rms(ddim(model, nfe, "uniform"), ddim(rounded, nfe, "uniform")) for nfe in NFES]
    print(f"{'quantize':<10}", *(f"{e.median():8.4f}/{e.max():.4f} " for e in changes))


if __name__ == "__main__":
    main()
