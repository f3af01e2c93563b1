"""A batch whose samples are each at a time of their own: where they have been, what it cost, where they have arrived.

What is known of a sample besides its image is a few numbers, which are kept in NumPy; images stay on their device.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.ode.flow import ProbabilityFlow, along
from ddim_ode.paths import f64
from ddim_ode.solvers.base import Outcome, Watch
from ddim_ode.solvers.lagrange import Floats
from ddim_ode.solvers.weights import ddim
from ddim_ode.support.waiting import sent

LARGE = 56**2  # numbers in an image, from which on its brightness is minded

Rows = NDArray[np.int64]  # (B,) which samples of a batch
Mask = NDArray[np.bool_]  # (B,)


class Trajectories:
    """A batch under way from sigmas[0] to sigmas[1] and, at the end, from there to sigmas[-1].

    members: how many parts of equal size each sample has, the worst of which decides.
    """

    def __init__(self, ode: ProbabilityFlow, xbar: Tensor, sigmas: Tensor, members: int = 1):
        self.members, self.size = members, xbar[0].numel() // members
        self.ode, self.sigma, self.first, self.last = ode, sigmas[-1], float(sigmas[0]), float(sigmas[1])
        self.begin, self.end = ode.path.u(sigmas[:2]).tolist()
        self.scale = float(ode.path.scale(self.sigma))  # makes an error at the end one in data units
        self.arrival = numbers(ddim(ode.path, f64(self.end), self.sigma))  # what state and slope at the end count
        self.x = xbar.clone()
        self.nfe, self.rejected = np.zeros((2, len(xbar)), dtype=np.int64)
        self.converged = np.ones(len(xbar), dtype=np.bool_)
        self.visited = [[self.first] for _ in xbar]
        self.rounds = 0
        self._rows: Rows | None = None
        self._part = ode

    def sigmas(self, u: Floats) -> Floats:
        """Those at times u."""
        return array(self.ode.path.sigma(torch.from_numpy(u)))

    def evaluate(self, rows: Rows, u: Floats, y: Tensor) -> Tensor:
        """The slopes of those samples, counted."""
        if self._rows is not rows:  # somebody has arrived
            self._rows, self._part = rows, self.ode.part(torch.from_numpy(rows))
        self._part.nfe = 0
        # A single time is told as such: what goes with it are numbers then, which nobody has to bring to the device.
        times = torch.from_numpy(u if (u != u[0]).any() else u[0:1].reshape(()))
        try:
            slope = self._part(times, y)
        except NonFiniteError as error:
            error.step, error.sample = self.rounds + 1, int(rows[error.sample])
            raise
        self.nfe[rows] += np.asarray(self._part.nfe)
        return slope

    def start(self, rows: Rows, y: Tensor, sigma: float, most: int) -> tuple[float, Tensor, Tensor]:
        """Time, state and slope at the first evaluation: at sigma if that is on the way down and no dearer than `most`,
        otherwise at the begin.

        y is the state at the begin; a DDIM step with what is predicted at sigma leads there. The network is asked at
        the state to which it would lead if the image were 0, all that is known of it.
        """
        if not self.last < sigma < self.first or self.ode.model.evaluations(sigma) > most:
            return self.begin, y, self.evaluate(rows, np.full(len(y), self.begin), y)
        path = self.ode.path
        u = path.u(f64(sigma))
        (a0, b0), (a, b) = (numbers(path.coefficients(v)) for v in (f64(self.begin), u))
        _, db = numbers(path.slopes(u))
        asked = b / b0 * y
        slope = self.evaluate(rows, np.full(len(y), float(u)), asked)
        # The image that it predicts moves the state, and the slope with it.
        of_state, of_slope = numbers(ddim(path, u, f64(0.0)))
        moved = (a - b / b0 * a0) * (of_state * asked + of_slope * slope)
        return float(u), asked + moved, slope + db / b * moved

    def norms(self, y: Tensor) -> Tensor:
        """Norms (B, Q) of y (B, Q, *shape), of the worst member, where y is."""
        each: Tensor = torch.linalg.vector_norm(y.detach().reshape(*y.shape[:2], self.members, -1), dim=3)
        return each[..., 0] if self.members == 1 else each.amax(2)

    def weight(self, sigmas: Floats) -> Floats:
        """What an error of a state counts at its sigma, as one of the image that comes of it."""
        most = max(1.0, math.sqrt(self.size / LARGE))
        return np.minimum(1 / array(self.ode.path.scale(torch.from_numpy(sigmas))), most)

    def affordable(self, rows: Rows, sigmas: Floats, most: int) -> Mask:
        """Whether each of them can still pay an evaluation at its sigma."""
        costs = [self.ode.model.evaluations(sigma) for sigma in sigmas.tolist()]
        return self.nfe[rows] + np.array(costs) <= most

    def record(self, rows: Rows, u: Floats, sigmas: Floats, accepted: Mask) -> None:
        """A round in which those samples tried to get to their times u, which are sigmas."""
        self.rounds += 1
        self.rejected[rows] += ~accepted
        sigmas = np.where(u == self.end, self.last, sigmas)
        for row, sigma in zip(rows[accepted].tolist(), sigmas[accepted].tolist(), strict=True):
            self.visited[row].append(sigma)

    def tell(self, rows: Rows, u: Floats, y: Tensor, watch: Watch | None) -> None:
        """Where they are now."""
        if watch:
            sigmas = self.sigmas(u)
            self.x[beside(rows, self.x)] = self.ode.leave(y, torch.from_numpy(sigmas))
            left = float(((self.end - u) / (self.end - self.begin)).sum()) / len(self.x)
            watch(self.rounds, 1 - left, float(sigmas.max()), self.x.clone())

    def arrive(self, rows: Rows, x: Tensor, converged: bool = True) -> None:
        """x (B, *shape) is where they end."""
        end = float(self.sigma)
        for row in rows.tolist():
            if self.visited[row][-1] != end:
                self.visited[row].append(end)
        self.x[beside(rows, self.x)] = x
        self.converged[rows] = converged

    def abandon(self, rows: Rows, u: Floats, y: Tensor, slope: Tensor) -> None:
        """The rest in one DDIM step, for which the slope is there already."""
        of_state, of_slope = (along(w, y) for w in ddim(self.ode.path, torch.from_numpy(u), self.sigma))
        self.arrive(rows, of_state * y + of_slope * slope, converged=False)

    def outcome(self) -> Outcome:
        steps = torch.tensor([len(sigmas) - 1 for sigmas in self.visited])
        sigmas = pad_sequence([f64(s) for s in self.visited], batch_first=True, padding_value=math.nan)
        nfe, rejected, converged = map(torch.from_numpy, (self.nfe, self.rejected, self.converged))
        return Outcome(self.x, nfe, steps, rejected, sigmas, converged)


def numbers(found: tuple[Tensor, ...]) -> list[float]:
    """Some tensors () as numbers."""
    return [float(one) for one in found]


def array(found: Tensor) -> Any:
    """A tensor of numbers on the CPU for NumPy."""
    return found.numpy()


def beside(found: NDArray[Any], x: Tensor) -> Tensor:
    """An array on the device of x, floats in its precision. The copy does not wait for what the device is at."""
    there = torch.from_numpy(np.ascontiguousarray(found))
    return sent(there, x.device, x.dtype if there.is_floating_point() else None)
