"""What a step of training sees: batch n as a pure function of (seed, n), whatever the number of processes."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ddim_ode import data
from ddim_ode.errors import DDIMError
from ddim_ode.paths import f64
from ddim_ode.support.seeds import mix
from ddim_ode.training.config import TrainConfig


class TrainError(DDIMError):
    """A run that cannot start or go on; the message says why and what to do."""


def load_data(config: TrainConfig, folder: Path | None) -> tuple[Tensor, Tensor]:
    """Training images (uint8) and labels; the class of an image in a folder is that of the subfolder that it is in.

    Raises DataError when there is no data, TrainError when it does not fit the network.
    """
    network = config.model.network
    if config.data == "fashion-mnist":
        images, labels = data.fashion_mnist("train", folder)
        if network.num_classes not in (0, 10):
            raise TrainError(f"num_classes={network.num_classes}: fashion-mnist has 10 classes; use 10, or 0 for none")
        if tuple(images.shape[1:]) != network.shape:
            raise TrainError(f"shape={network.shape}: fashion-mnist images are (1, 28, 28)")
    elif network.num_classes:
        images, labels, names = data.class_folders(folder or Path(config.data), network.shape)
        if len(names) != network.num_classes:
            where = folder or config.data
            raise TrainError(
                f"num_classes={network.num_classes}: {where} holds {len(names)} folders, a class each; use num_classes:"
                f" {len(names)}, or 0 for no labels"
            )
    else:
        images, _ = data.image_folder(folder or Path(config.data), network.shape)
        labels = torch.zeros(len(images), dtype=torch.int64)
    return images, labels


@dataclass(frozen=True)
class Batches:
    """Batch n as a pure function of (seed, n): shuffled epochs, times, noise and dropped labels."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    config: TrainConfig

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the data."""
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()

    def indices(self, step: int) -> Tensor:
        """Which images step n sees; every epoch is a fresh permutation that runs across batch borders."""
        n, size = len(self.images), self.config.batch_size
        positions = torch.arange(step * size, (step + 1) * size)
        epochs = positions // n
        orders = [(e, _permutation(n, self.config.seed, e)) for e in epochs.unique().tolist()]
        return torch.cat([order[positions[epochs == e] % n] for e, order in orders])

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x0 (B, C, H, W) in [-1, 1], eps alike, t (B,) float64 on the model's path, labels (B,) int64."""
        rows = self.indices(step)
        g = _generator(self.config.seed, 2, step)
        x0 = data.to_float(self.images[rows])
        t = self._times(len(rows), g)
        eps = torch.randn(x0.shape, generator=g)
        dropped = torch.rand(len(rows), generator=g) < self.config.label_dropout
        null = self.config.model.network.num_classes
        return x0, eps, t, torch.where(dropped, null, self.labels[rows])

    def _times(self, count: int, g: torch.Generator) -> Tensor:
        """Times that are spread evenly: whole ones of a discrete schedule, else any between the path's ends."""
        path = self.config.model.schedule.path()
        if path.num_timesteps:
            return torch.randint(path.num_timesteps, (count,), generator=g).double()
        low, high = path.u(f64([path.sigma_min, path.sigma_max]))
        return low + (high - low) * torch.rand(count, dtype=torch.float64, generator=g)


@lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=_generator(seed, 1, epoch))


def _generator(seed: int, stream: int, n: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix(seed, stream, n))
