"""What a step of training sees: batch n as a pure function of (seed, n), whatever the number of processes."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ddim_ode import data, paths
from ddim_ode.errors import DDIMError
from ddim_ode.models.image_condition import noised, shrunk
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
    channels, height, width = network.shape
    shape = (channels, height * config.shrink, width * config.shrink)
    if config.data == "fashion-mnist":
        images, labels = data.fashion_mnist("train", folder)
        if network.num_classes not in (0, 10):
            raise TrainError(f"num_classes={network.num_classes}: fashion-mnist has 10 classes; use 10, or 0 for none")
        if tuple(images.shape[1:]) != shape:
            shrunk_by = f" and shrink={config.shrink} mean images of {shape}" if config.shrink > 1 else ""
            raise TrainError(f"shape={network.shape}{shrunk_by}: fashion-mnist images are (1, 28, 28)")
    elif network.num_classes:
        images, labels, names = data.class_folders(folder or Path(config.data), shape)
        if len(names) != network.num_classes:
            where = folder or config.data
            raise TrainError(
                f"num_classes={network.num_classes}: {where} holds {len(names)} folders, a class each; use num_classes:"
                f" {len(names)}, or 0 for no labels"
            )
    else:
        images, _ = data.image_folder(folder or Path(config.data), shape)
        labels = torch.zeros(len(images), dtype=torch.int64)
    return images, labels


@dataclass(frozen=True)
class Batch:
    """What a step sees.

    x0, eps: (B, C, H, W), images in [-1, 1] and standard normals.
    t: (B,) float64, times on the model's path.
    labels: (B,) int64.
    told: what the network is told besides, each (B, ...), by its keyword.
    """

    x0: Tensor
    eps: Tensor
    t: Tensor
    labels: Tensor
    told: dict[str, Tensor]

    def __getitem__(self, rows: slice) -> "Batch":
        told = {name: value[rows] for name, value in self.told.items()}
        return Batch(self.x0[rows], self.eps[rows], self.t[rows], self.labels[rows], told)

    def to(self, device: torch.device) -> "Batch":
        """The batch where the network computes; times stay on the CPU."""
        told = {name: value.to(device) for name, value in self.told.items()}
        return Batch(self.x0.to(device), self.eps.to(device), self.t, self.labels.to(device), told)


@dataclass(frozen=True)
class Batches:
    """Batch n as a pure function of (seed, n): shuffled epochs, times, noise, dropped labels and augmentation."""

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    config: TrainConfig

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the data."""
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()

    def indices(self, step: int) -> Tensor:
        """Which images step n sees."""
        return shuffled(len(self.images), self.config.batch_size, self.config.seed, step)

    def __call__(self, step: int) -> Batch:
        """What step n sees."""
        rows = self.indices(step)
        g = generator_of(self.config.seed, 2, step)
        x0 = self.clean(rows)
        t = even_times(self.config.model.schedule.path(), len(rows), g)
        eps = torch.randn(x0.shape, generator=g)
        dropped = torch.rand(len(rows), generator=g) < self.config.label_dropout
        null = self.config.model.network.num_classes
        labels = torch.where(dropped, null, self.labels[rows])
        return Batch(x0, eps, t, labels, self.told(x0, g))

    def clean(self, rows: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], of the network's size."""
        return shrunk(data.to_float(self.images[rows]), self.config.model.network.shape[1:])

    def told(self, x0: Tensor, g: torch.Generator) -> dict[str, Tensor]:
        """What the network is told of images: these at a lower resolution, with noise of a level that is drawn."""
        condition = self.config.model.network.condition
        if condition is None:
            return {}
        image = shrunk(x0, condition.image[1:])
        if not condition.noise:
            return {"image": image}
        low, high = self.config.augmentation
        level = low + (high - low) * torch.rand(len(x0), generator=g)
        eps = torch.randn(image.shape, generator=g)
        return {"image": noised(image, level, eps), "image_noise": level}

    def sheet(self, labels: Tensor | None, count: int) -> dict[str, Tensor]:
        """What samples are told that are looked at in training: of the first images of their classes."""
        if self.config.model.network.condition is None:
            return {}
        rows = torch.arange(count) % len(self.images) if labels is None else _first_of(labels, self.labels)
        return self.told(self.clean(rows), generator_of(self.config.seed, 4, 0))


def _first_of(wanted: Tensor, labels: Tensor) -> Tensor:
    """Which image is the first of a class, the second and so on, of the classes wanted (B,); 0 of one that has none."""
    rows = torch.zeros_like(wanted)
    for k in wanted.unique():
        members, places = (labels == k).nonzero().flatten(), (wanted == k).nonzero().flatten()
        if len(members):
            rows[places] = members[torch.arange(len(places)) % len(members)]
    return rows


def shuffled(total: int, size: int, seed: int, step: int) -> Tensor:
    """Which of `total` images a step of `size` sees; every epoch is a fresh permutation, across batch borders."""
    positions = torch.arange(step * size, (step + 1) * size)
    epochs = positions // total
    orders = [(e, _permutation(total, seed, e)) for e in epochs.unique().tolist()]
    return torch.cat([order[positions[epochs == e] % total] for e, order in orders])


def even_times(path: paths.Path, count: int, g: torch.Generator) -> Tensor:
    """Times (count,) float64, spread evenly: whole ones of a discrete schedule, else any between the path's ends."""
    if path.num_timesteps:
        return torch.randint(path.num_timesteps, (count,), generator=g).double()
    low, high = path.u(f64([path.sigma_min, path.sigma_max]))
    return low + (high - low) * torch.rand(count, dtype=torch.float64, generator=g)


@lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=generator_of(seed, 1, epoch))


def generator_of(seed: int, stream: int, n: int) -> torch.Generator:
    """What a stream of a run draws from in step, or epoch, n."""
    return torch.Generator().manual_seed(mix(seed, stream, n))
