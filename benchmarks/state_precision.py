"""What a float32 state costs DDIM, written as an Euler step in sigma and as xhat0 + sigma1 ehat.

python benchmarks/state_precision.py [MODEL]

Largest and RMS difference between images drawn with a float32 and with a float64 state, the same float32 network,
16 samples (seeds 0 to 15, classes in turn), uniform grid.
"""

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a spinning thread slows a shared core tenfold

import torch

import ddim_ode


def main() -> None:
    model = ddim_ode.load(sys.argv[1] if len(sys.argv) > 1 else "fashion")
    labels = torch.arange(16) % model.num_classes if model.num_classes else None
    for nfe in (5, 20):
        for method in ("euler", "ddim"):
            single, double = (
                ddim_ode.sample(model, method, nfe, range(16), labels=labels, grid="uniform", dtype=dtype).x.double()
                for dtype in (torch.float32, torch.float64)
            )
            difference = single - double
            print(f"{nfe:>3} {method:<6} {difference.abs().max():.1e} {difference.square().mean().sqrt():.1e}")


if __name__ == "__main__":
    main()
