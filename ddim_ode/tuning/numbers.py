"""The numbers of a table as one vector that can be moved, and the way from noise to images that they stand for.

With u_n = log sigma_n, the parameters are in the order in which they come in on the way:

    s,  then for every prediction n:  u_n,  then a_n and the c_nj that are free, by which y_(n+1) is made of z and D_j.

How the image changes with them goes forward: a tangent of the state is pushed through the network by a finite
difference, and from step to step by the recurrence. Forward passes are all that is asked of a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ddim_ode.paths import f64
from ddim_ode.solvers.tuned import Table
from ddim_ode.tuning.problem import Asked, Samples

CLOSEST = 1e-3  # that two places may come, in log sigma
STEP = 3e-3  # of a finite difference, in sizes of the state: at 0.03 it is a fifth off, far below float32 rounds
WIDE = 0.1  # of one in log sigma, each way: networks ripple in the label of time


@dataclass(frozen=True, eq=False)
class Numbers:
    """A table while it is tuned, float64: `u` (N,) log sigmas, `scale` (), `noise` (N,), `data` (N, N).

    memory: of the images c_nj D_j in a step, how many of the latest may be moved; those before stay as they are.
    """

    u: Tensor
    scale: Tensor
    noise: Tensor
    data: Tensor
    memory: int

    @staticmethod
    def of(
        sigmas: Sequence[float], scale: float, noise: Sequence[float], data: Sequence[Tensor], memory: int
    ) -> "Numbers":
        count = len(sigmas)
        square = torch.zeros(count, count, dtype=torch.float64)
        for n, row in enumerate(data):
            square[n, : n + 1] = row
        return Numbers(f64(sigmas).log(), f64(scale), f64(noise), square, memory)

    @property
    def count(self) -> int:
        """Predictions."""
        return len(self.u)

    def free(self, n: int) -> range:
        """The j of the c_nj that may be moved."""
        return range(max(0, n + 1 - self.memory), n + 1)

    @cached_property
    def known(self) -> tuple[int, ...]:
        """How many parameters have come in when the model is asked for prediction n, u_n not yet among them."""
        found = [1]
        for n in range(self.count):
            found.append(found[-1] + 2 + len(self.free(n)))
        return tuple(found)

    @property
    def price(self) -> int:
        """Predictions that the Jacobian costs for a sample."""
        return sum(self.known[:-1]) + 3 * self.count

    def vector(self) -> Tensor:
        """(P,) the parameters."""
        parts = [self.scale[None]]
        for n in range(self.count):
            parts += [self.u[n : n + 1], self.noise[n : n + 1], self.data[n, self.free(n)]]
        return torch.cat(parts)

    def moved(self, vector: Tensor, low: float, high: float) -> "Numbers":
        """Those of another vector; places that left their order, or [low, high] in log sigma, are put back."""
        u, noise, data = self.u.clone(), self.noise.clone(), self.data.clone()
        for n, at in enumerate(self.known[:-1]):
            u[n], noise[n] = vector[at : at + 2]
            data[n, self.free(n)] = vector[at + 2 : self.known[n + 1]]
        return Numbers(in_order(u, low, high), vector[0], noise, data, self.memory)

    def result(self) -> Table:
        """As a solver takes them."""
        rows = tuple(tuple(self.data[n, : n + 1].tolist()) for n in range(self.count))
        return Table(tuple(self.u.exp().tolist()), float(self.scale), tuple(self.noise.tolist()), rows)

    def images(self, asked: Asked, samples: Samples) -> Tensor:
        """What they make of the noise, (B, *shape)."""
        y, images = float(self.scale) * samples.z, list[Tensor]()
        for n in range(self.count):
            images.append(asked.image(y, float(self.u[n]), samples.labels))
            y = self._next(n, samples.z, images)
        return y

    def jacobian(self, asked: Asked, samples: Samples) -> tuple[Tensor, Tensor]:
        """The images (B, *shape) and how they change with the parameters, (P, B, *shape) float32."""
        z, labels = samples.z, samples.labels
        y, images = float(self.scale) * z, list[Tensor]()
        moves, changes = z[None].float(), list[Tensor]()  # of the state and of each image, with what is known so far
        for n in range(self.count):
            u = float(self.u[n])
            low, high = max(u - WIDE, asked.low), min(u + WIDE, asked.high)
            by_place = (asked.image(y, high, labels) - asked.image(y, low, labels)) / (high - low)
            images.append(asked.image(y, u, labels))
            changes.append(torch.cat([_pushed(asked, moves, y, images[n], u, labels), by_place[None].float()]))
            y = self._next(n, z, images)
            moves = torch.zeros(self.known[n + 1], *y.shape, device=y.device)
            for j, change in enumerate(changes):
                moves[: len(change)].add_(change, alpha=float(self.data[n, j]))
            for place, direct in enumerate([z, *(images[j] for j in self.free(n))], self.known[n] + 1):
                moves[place] = direct
        return y, moves

    def _next(self, n: int, z: Tensor, images: Sequence[Tensor]) -> Tensor:
        """y_(n+1)."""
        y = float(self.noise[n]) * z
        for j, image in enumerate(images):
            y = y.add(image, alpha=float(self.data[n, j]))
        return y


def in_order(u: Tensor, low: float, high: float) -> Tensor:
    """Places (N,) as they are, but for those that left their order, or [low, high]."""
    found, above = u.clone(), high
    for n in range(len(u)):
        found[n] = above = min(max(float(u[n]), low + CLOSEST * (len(u) - 1 - n)), above)
        above -= CLOSEST
    return found


def _pushed(asked: Asked, moves: Tensor, y: Tensor, image: Tensor, u: float, labels: Tensor | None) -> Tensor:
    """How the image changes where the state y moves so, (K, B, *shape)."""
    sizes = moves.reshape(*moves.shape[:2], -1).square().mean(2).sqrt().clamp(min=1e-20)
    own = y.reshape(len(y), -1).square().mean(1).sqrt()
    h = (STEP * own / sizes).reshape(*sizes.shape, *[1] * (y.ndim - 1))
    found = torch.empty_like(moves)
    each = max(1, asked.batch_size // len(y))
    for first in range(0, len(moves), each):
        rows = slice(first, first + each)
        states = (y + h[rows] * moves[rows]).flatten(0, 1)
        many = None if labels is None else labels.repeat(len(h[rows]))
        found[rows] = (asked.image(states, u, many).reshape(moves[rows].shape) - image) / h[rows]
    return found
