"""Training a classifier of noisy images (Dhariwal & Nichol 2021, Sec. 4, App. C): the cross-entropy

    E -log p(y | a x0 + b eps, t)        t uniform on the path of the model that it is to guide

Everything random in step n is a function of (seed, n), so a run that was killed and resumed ends in the same bytes as
one that was not.
"""

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ddim_ode import data
from ddim_ode.checkpoints import load_torch
from ddim_ode.models.classifier import ClassifierConfig, NoisyClassifier, save_classifier
from ddim_ode.support.files import replacing
from ddim_ode.support.outputs import going_on
from ddim_ode.support.seeds import mix
from ddim_ode.support.versions import circumstances
from ddim_ode.training.batches import TrainError, even_times, generator_of, shuffled
from ddim_ode.training.log import Log

IDENTITY, KIND = "training.json", "ddim_ode classifier training 1"
FREE = {"save_every", "log_every"}  # settings that a run may go on with after a change


class ClassifierTraining(BaseModel):
    """A training run of a classifier, as a YAML file says it; every key is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classifier: ClassifierConfig
    data: str = Field("fashion-mnist", description="'fashion-mnist', or a folder with a folder of images a class")
    steps: int = Field(ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(2e-3, gt=0, allow_inf_nan=False, description="of AdamW, at its highest")
    warmup: int = Field(100, ge=0, description="steps over which it rises from 0; then it falls to 0 on a cosine")
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    seed: int = 0
    save_every: int = Field(500, ge=1)
    log_every: int = Field(50, ge=1)

    def rate(self, step: int) -> float:
        """The learning rate of step 0..steps-1."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class ClassifierRun:
    """One training run and its folder: the network, its optimizer and the step they stand at."""

    def __init__(self, config: ClassifierTraining, out: Path, data_folder: Path | None = None):
        self.config, self.out, self.step = config, Path(out), 0
        self.images, self.labels = labelled_images(config, data_folder)
        if config.batch_size > len(self.images):
            raise TrainError(
                f"batch_size={config.batch_size} is larger than the data set; use at most {len(self.images)}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(config.seed, 0, 0))
            self.net = NoisyClassifier(config.classifier.network)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.path = config.classifier.schedule.path()
        self.log = Log(self.out / "log.csv")

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder, made if need be, and go on from what it holds. Raises OutputError, TrainError."""
        with going_on(self.out, IDENTITY, KIND, {"versions": circumstances()["versions"]}):
            if self.checkpoint.exists():
                self._resume()
            self.log.open(self.step)
            yield

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """x = a x0 + b eps (B, C, H, W), times (B,) and classes (B,) of a step: shuffled epochs, even times."""
        rows = shuffled(len(self.images), self.config.batch_size, self.config.seed, step)
        g = generator_of(self.config.seed, 2, step)
        t = even_times(self.path, len(rows), g)
        x0 = data.to_float(self.images[rows])
        a, b = (c.to(x0)[:, None, None, None] for c in self.path.coefficients(t))
        return a * x0 + b * torch.randn(x0.shape, generator=g), t.to(x0), self.labels[rows]

    def update(self) -> tuple[float, float]:
        """One optimizer step. Returns the loss and the norm of the gradient before clipping."""
        x, t, labels = self.batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.config.seed, 3, self.step))  # dropout draws from the global generator
            loss = F.cross_entropy(self.net(x, t), labels)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        if not torch.isfinite(loss + norm):
            found = f"{loss.item()} at step {self.step} and its gradient {norm.item()}"
            raise TrainError(f"the loss is {found}; use a smaller learning_rate")
        self.optimizer.step()
        self.step += 1
        return loss.item(), norm.item()

    def save(self) -> None:
        """Write the classifier and the resumable state, each atomically."""
        state = {
            "step": self.step,
            "config": self.config.model_dump(mode="json"),
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "log": self.log.rows,
            "data": self._digest(),
        }
        save_classifier(self.out / "classifier", self.config.classifier, self.net.state_dict())
        with replacing(self.checkpoint) as new:  # last: what it says is done is on disk
            torch.save(state, new)

    def _digest(self) -> str:
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()

    def _resume(self) -> None:
        state: Any = load_torch(self.checkpoint)
        if not isinstance(state, dict) or not {"step", "config", "net", "optimizer", "log", "data"} <= state.keys():
            raise TrainError(f"{self.checkpoint} is not a checkpoint of this program; use another --out")
        if state["data"] != self._digest():
            raise TrainError(f"{self.out} holds a run on other images; give their --data, or use another --out")
        ours = self.config.model_dump(mode="json")
        if changed := sorted(k for k in ours if k not in FREE and ours[k] != state["config"].get(k)):
            raise TrainError(f"{self.out} holds a run with other settings of {', '.join(changed)}; use another --out")
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.log.rows = state["step"], [tuple(row) for row in state["log"]]


def labelled_images(config: ClassifierTraining, folder: Path | None) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, C, H, W) and their classes. Raises DataError without, TrainError for what does not fit."""
    network = config.classifier.network
    if config.data == "fashion-mnist":
        images, labels = data.fashion_mnist("train", folder)
        classes, shape = len(data.FASHION_LABELS), tuple(images.shape[1:])
        if shape != network.shape:
            raise TrainError(f"shape={network.shape}: fashion-mnist images are {shape}")
    else:
        images, labels, names = data.class_folders(folder or Path(config.data), network.shape)
        classes = len(names)
    if classes != network.num_classes:
        raise TrainError(f"num_classes={network.num_classes}: {config.data} has {classes} classes; use {classes}")
    return images, labels


def train_classifier(
    config: ClassifierTraining, out: Path, data_folder: Path | None = None, stop_at: int | None = None
) -> Path:
    """Train until `config.steps`, resuming what `out` holds. Returns the folder of the trained classifier.

    `out` receives `classifier/` (loadable with `load_classifier`), `checkpoint.pt`, `log.csv` and `training.json`,
    which says that the folder is a run's. `stop_at` ends the run early, as a kill after that step would.

    Raises:
        TrainError, DataError: bad settings or data, or a loss that is not finite.
        OutputError: `out` cannot be written, holds something else, or another run is at work in it.
    """
    run = ClassifierRun(config, out, data_folder)
    last = min(config.steps, stop_at or config.steps)
    with run.opened():
        if run.step >= last:
            run.save()
        for _ in track(range(run.step, last), "training", console=Console(stderr=True)):
            started = time.perf_counter()
            loss, norm = run.update()
            run.log.add(run.step, loss, norm, config.batch_size / (time.perf_counter() - started))
            if run.step % config.log_every == 0 or run.step == config.steps:
                run.log.write(config.rate(run.step - 1))
            if run.step % config.save_every == 0 or run.step == last:
                run.save()
    return run.out / "classifier"
