"""Training with the simple objective of DDPM (Ho et al. 2020, Eq. 14), whatever is predicted:

    E |net(a x0 + b eps, t) - (p x0 + q eps)|^2        t uniform in 0..T-1, or between the ends of a flow

Everything random in step n is a function of (seed, n), so a run that was killed and resumed ends in the
same bytes as one that was not, and the batch of step n is the same whatever the number of processes.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from ddim_ode import checkpoints
from ddim_ode.checkpoints.fitting import shapes
from ddim_ode.data import save_grid
from ddim_ode.models.equations import PREDICTS
from ddim_ode.models.unet import UNet
from ddim_ode.sampling import sample
from ddim_ode.support.files import replacing
from ddim_ode.support.outputs import going_on
from ddim_ode.support.resources import check_memory
from ddim_ode.support.scalars import index
from ddim_ode.support.seeds import mix
from ddim_ode.support.versions import circumstances
from ddim_ode.training.batches import Batch, Batches, TrainError, load_data
from ddim_ode.training.config import TrainConfig
from ddim_ode.training.log import Log

IDENTITY, KIND = "training.json", "ddim_ode training 1"
MOMENTS = ("exp_avg", "exp_avg_sq")  # that AdamW keeps of each weight
SHEET = 80  # samples on the sheet
COPIES = 5  # of the parameters: themselves, their average, gradients and two moments


class Objective:
    """The loss of a network on a batch, whose times t (B,) are float64 and on the CPU."""

    def __init__(self, config: TrainConfig, device: torch.device):
        self.path, self.predicts = config.model.schedule.path(), PREDICTS[config.model.predicts]
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")

    def __call__(self, net: Callable[..., Tensor], batch: Batch) -> Tensor:
        x0, eps = batch.x0, batch.eps
        a, b = self.path.coefficients(batch.t)
        a, b, p, q = torch.stack([a, b, *self.predicts(a, b)]).to(x0)[..., None, None, None]
        with self.autocast:
            out = net(a * x0 + b * eps, batch.t.to(x0), batch.labels, **batch.told)
        return F.mse_loss(out.float(), p * x0 + q * eps)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, linear cool-down to 0 at the last step."""
    rise = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    fall = min(1.0, (config.steps - step) / config.cooldown) if config.cooldown else 1.0
    return config.learning_rate * min(rise, fall)


class TrainingRun:
    """One training run and its folder: weights, average, optimizer and the step they stand at."""

    def __init__(self, config: TrainConfig, out: Path, data_folder: Path | None = None):
        try:
            from accelerate import Accelerator
        except ImportError:
            raise TrainError("training needs accelerate; pip install 'ddim-ode[train]'") from None
        self.config, self.out = config, Path(out)
        parameters = sum(math.prod(shape) for shape in shapes(config.model.network).values())
        need = parameters * 4 * COPIES
        check_memory(need, f"training {parameters:,} parameters", "use fewer channels or blocks", TrainError)
        images, labels = load_data(config, data_folder)
        if config.batch_size > len(images):
            raise TrainError(f"batch_size={config.batch_size} is larger than the data set; use at most {len(images)}")
        # Without cpu=True accelerate takes the processes that torchrun started on a CPU for as many runs.
        self.accelerator = Accelerator(cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()))
        processes = self.accelerator.num_processes
        if config.batch_size % processes:
            raise TrainError(f"batch_size={config.batch_size} cannot be split over {processes} processes")
        device = self.accelerator.device

        with torch.random.fork_rng(devices=[]):  # the network is made on the CPU, whatever it is trained on
            torch.default_generator.manual_seed(config.seed % 2**64)
            self.net = UNet(config.model.network).to(device)
        self.average = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )
        self.step = 0
        self.log = Log(self.out / "log.csv")
        self.batches = Batches(images, labels, config)
        self.objective = Objective(config, device)
        wrapped, self.optimizer = self.accelerator.prepare(self.net, self.optimizer)
        self.forward = torch.compile(wrapped) if config.compile else wrapped

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder, made if need be, and go on from what it holds.

        Raises OutputError: it cannot be written, holds something else, or another run is at work in it.
        """
        told = {"versions": circumstances()["versions"]}
        with going_on(self.out, IDENTITY, KIND, told, self._is_ours) if self.main else nullcontext():
            if self.checkpoint.exists():
                self._resume()
            if self.main:
                self.log.open(self.step)
            yield

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    @property
    def main(self) -> bool:
        return self.accelerator.is_main_process

    def update(self) -> tuple[float, float]:
        """One optimizer step. Returns the loss and the norm of the gradient before clipping."""
        device = self.accelerator.device
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        batch = self.batches(self.step)[share].to(device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(mix(self.config.seed, 3, self.step))  # dropout alone draws from the global generator
            loss = self.objective(self.forward, batch)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.net.parameters(), self.config.clip)
        loss = self.accelerator.reduce(loss.detach(), "mean")  # of the whole batch, so all processes stop together
        if not torch.isfinite(loss + norm):
            found = f"{loss.item()} at step {self.step} and its gradient {norm.item()}"
            raise TrainError(f"the loss is {found}; use a smaller learning_rate")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        decay = min(self.config.ema, self.step / (self.step + 9))
        torch._foreach_lerp_(list(self.average.values()), list(self.net.state_dict().values()), 1 - decay)
        return loss.item(), norm.item()

    def save(self) -> None:
        """Write the resumable state and the averaged model, each atomically."""
        if not self.main:
            return
        state = {
            "step": self.step,
            "config": self.config.model_dump(mode="json"),
            "net": self.net.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "log": self.log.rows,
            "data": self.batches.fingerprint,
        }
        checkpoints.save(self.out / "model", self.config.model, self.average)
        with replacing(self.checkpoint) as new:  # last: what it says is done is on disk
            torch.save(state, new)

    def _is_ours(self) -> bool:
        """Whether the folder is of a run of version 0.1.0, by its checkpoint alone."""
        with suppress(checkpoints.CheckpointError):
            return _is_state(checkpoints.load_torch(self.checkpoint))
        return False

    def _resume(self) -> None:
        state = checkpoints.load_torch(self.checkpoint)
        strange = TrainError(f"{self.checkpoint} is not a checkpoint of this program; use another --out")
        if not _is_state(state):
            raise strange
        try:
            theirs = TrainConfig.model_validate(state["config"])  # which adds the keys of later versions
        except ValueError:
            raise strange from None
        if (step := index(state["step"])) is None:
            raise strange
        if step > self.config.steps:
            raise TrainError(f"{self.out} is at step {step} already; use steps >= {step}")
        if state["data"] != self.batches.fingerprint:
            raise TrainError(f"{self.out} holds a run on other images; give their --data, or use another --out")
        free = {"steps", "cooldown", "save_every", "sample_every", "log_every", "compile"}
        changed = sorted(
            k for k in TrainConfig.model_fields.keys() - free if getattr(self.config, k) != getattr(theirs, k)
        )
        if changed:
            raise TrainError(f"{self.out} holds a run with other settings of {', '.join(changed)}; use another --out")
        try:
            rows = [(int(n), float(loss), float(norm), float(speed)) for n, loss, norm, speed in state.get("log", [])]
            self.net.load_state_dict(state["net"])
            settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, told in zip(self.optimizer.param_groups, settings, strict=True):
                group |= told  # the configuration says them
            for weight, moments in self.optimizer.state.items():
                if {moments[name].shape for name in MOMENTS} != {weight.shape} or not moments["step"] >= 0:
                    raise ValueError
                moments |= {name: own(moments[name]) for name in MOMENTS}
            self.average = {k: own(state["average"][k].to(v).reshape(v.shape)) for k, v in self.average.items()}
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError):  # torch's, of what does not fit
            raise strange from None
        self.step = step
        self.log.rows = rows

    def picture(self) -> None:
        """A sheet of samples of the averaged model, one column a class; of one that is told images, told the data's."""
        if not self.main:
            return
        model = checkpoints.build(self.config.model, self.average)
        classes = model.num_classes
        labels = torch.arange(SHEET) % classes if classes else None
        told = self.batches.sheet(labels, SHEET)
        x = sample(model, method="ddim", nfe=20, seeds=range(SHEET), labels=labels, conditions=told or None).x
        save_grid(x, self.out / "samples.png", columns=classes or 10)


def train(config: TrainConfig, out: Path, data_folder: Path | None = None, stop_at: int | None = None) -> Path:
    """Train until `config.steps`, resuming what `out` holds. Returns the folder of the trained model.

    `out` receives `model/` (the averaged weights, loadable with `ddim_ode.load`), `checkpoint.pt`, `log.csv`
    and `samples.png`, and `training.json`, which says that the folder is a run's. `stop_at` ends the run early, as a
    kill after that step would.

    Raises:
        TrainError, DataError: bad settings or data, or a loss that is not finite.
        OutputError: `out` cannot be written, holds something else, or another run is at work in it.
    """
    run = TrainingRun(config, out, data_folder)
    with run.opened():
        return _train(run, min(config.steps, stop_at or config.steps))


def own(x: Tensor) -> Tensor:
    """A copy to write into, each number in a place of its own, which a file need not give it."""
    return x.clone(memory_format=torch.contiguous_format)


def _is_state(state: Any) -> bool:
    """Whether it is what `save` keeps."""
    return isinstance(state, dict) and {"step", "config", "net", "average", "optimizer", "data"} <= state.keys()


def _train(run: TrainingRun, last: int) -> Path:
    config = run.config
    if run.step >= last and run.main and not (run.out / "model" / "model.safetensors").exists():
        run.save()  # which somebody has removed
    for _ in _progress(run, last):
        started = time.perf_counter()
        loss, norm = run.update()
        run.log.add(run.step, loss, norm, config.batch_size / (time.perf_counter() - started))
        if run.main and (run.step % config.log_every == 0 or run.step == config.steps):
            run.log.write(learning_rate(config, run.step - 1))
        if run.step % config.save_every == 0 or run.step == last:
            run.save()
        if run.step % config.sample_every == 0 or run.step == last:
            run.picture()
        run.accelerator.wait_for_everyone()
    return run.out / "model"


def _progress(run: TrainingRun, last: int) -> Iterator[int]:
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not run.main) as progress:
        task = progress.add_task("", total=last, completed=run.step, status="")
        started, first = time.perf_counter(), run.step
        while run.step < last:
            yield run.step
            rate = (run.step - first) * run.config.batch_size / (time.perf_counter() - started)
            progress.update(task, completed=run.step, status=f"{rate:.0f} images/s")
