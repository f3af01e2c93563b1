"""What is tuned on: a model, some noise, and where the model's own flow takes it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddim_ode.grids import make_grid
from ddim_ode.models.denoiser import Model
from ddim_ode.ode.flow import ProbabilityFlow, along
from ddim_ode.paths import angle, f64
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.planning.options import LEAST_TOL, SolveOptions
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import METHODS, integrate

TRAJECTORY = METHODS["adams4"]
STEPS = 120  # of a trajectory
NEAR = 4  # of its states, from which one in between is interpolated
REFERENCE_TOL = 3e-4  # of the images that errors are counted from, in their standard deviations
MOST_NFE = 5000  # of one of them
PILOT = 20  # evaluations of DDIM, for the size of the data


class Asked:
    """A model that counts the network passes of what it is asked, in batches of limited size.

    low, high: its range of log sigma. worst: the passes that one prediction may cost.
    """

    def __init__(self, model: Model, batch_size: int):
        self.model, self.batch_size, self.passes = model, batch_size, 0
        self.low, self.high = math.log(model.sigma_min), math.log(model.sigma_max)
        self.worst = max(model.evaluations(s) for s in torch.linspace(self.low, self.high, 200).double().exp().tolist())

    def image(self, y: Tensor, u: float, labels: Tensor | None) -> Tensor:
        """The images (B, *shape) that are predicted at log sigma = u from states y on the angle path."""
        sigma = f64(math.exp(u))
        xbar, found = y / angle.scale(sigma).to(y), []
        for first in range(0, len(y), self.batch_size):
            rows = slice(first, first + self.batch_size)
            with torch.no_grad():
                found.append(self.model(xbar[rows], sigma, None if labels is None else labels[rows]).data)
        self.passes += len(y) * self.model.evaluations(float(sigma))
        return torch.cat(found)


@dataclass(frozen=True, eq=False)
class Samples:
    """Noise z (B, *shape) float64, labels (B,) if any, and the images x (B, *shape) that the flow makes of it."""

    z: Tensor
    labels: Tensor | None
    x: Tensor

    def __len__(self) -> int:
        return len(self.z)

    def part(self, rows: slice) -> "Samples":
        return Samples(self.z[rows], None if self.labels is None else self.labels[rows], self.x[rows])


def size_of(asked: Asked, seeds: Sequence[int], labels: Tensor | None, options: SolveOptions) -> float:
    """The standard deviation of the data, of every number over the samples, in the root mean square.

    By it what is small is told from what is large: not all data are images in [-1, 1].
    """
    found = sample_with(asked.model, replace(options, nfe=PILOT), seeds=seeds, labels=labels)
    asked.passes += int(found.nfe.sum())
    return max(float(found.x.double().var(0).mean().sqrt()), 1e-9)


def solved(asked: Asked, seeds: Sequence[int], labels: Tensor | None, options: SolveOptions, size: float) -> Samples:
    """The samples of seeds, by `adaptive` at a tolerance that is small for data of that size."""
    model, tol = asked.model, max(REFERENCE_TOL * size, LEAST_TOL[torch.float64])
    own = replace(options, method="adaptive", tol=tol, max_nfe=MOST_NFE, dtype=torch.float64)
    found = sample_with(model, own, seeds=seeds, labels=labels)
    asked.passes += int(found.nfe.sum())
    z = seeded_noise(list(seeds), model.shape).to(model.device, torch.float64)
    return Samples(z, None if labels is None else labels.to(model.device), found.x)


class Trajectories:
    """The states of samples on the angle path, at any sigma."""

    def __init__(self, asked: Asked, samples: Samples):
        model = asked.model
        sigmas = make_grid(TRAJECTORY.grid, model.path, STEPS, "denoise")
        self.u, parts = sigmas[:-1].log(), list[Tensor]()
        for first in range(0, len(samples), asked.batch_size):
            part = samples.part(slice(first, first + asked.batch_size))
            ode = ProbabilityFlow(model, TRAJECTORY.path, (float(sigmas[-2]), model.sigma_max), part.labels)
            xbar = part.z * along(model.path.prior_std(sigmas[0]), part.z)
            states = [self._angle(sigmas[0], xbar)]

            def keep(step: int, share: float, sigma: float, xbar: Tensor, states: list[Tensor] = states) -> None:
                if sigma > 0:
                    states.append(self._angle(f64(sigma), xbar))

            integrate(ode, TRAJECTORY.solver, sigmas, xbar, keep)
            asked.passes += int(torch.as_tensor(ode.nfe).expand(len(part)).sum())
            parts.append(torch.stack(states))
        self.states = torch.cat(parts, dim=1)

    @staticmethod
    def _angle(sigma: Tensor, xbar: Tensor) -> Tensor:
        return (angle.scale(sigma).to(xbar) * xbar).float()

    def at(self, u: float) -> Tensor:
        """y (B, *shape) at log sigma = u, by a cubic through the four states around it."""
        first = min(max(int((self.u > u).sum()) - NEAR // 2, 0), len(self.u) - NEAR)
        nodes = self.u[first : first + NEAR]
        y = torch.zeros_like(self.states[0], dtype=torch.float64)
        for k in range(NEAR):
            others = torch.cat([nodes[:k], nodes[k + 1 :]])
            y.add_(self.states[first + k], alpha=float(((u - others) / (nodes[k] - others)).prod()))
        return y


def missed(x: Tensor, true: Tensor) -> Tensor:
    """(B,) root mean squares over samples."""
    return (x - true).reshape(len(x), -1).square().mean(1).sqrt()
