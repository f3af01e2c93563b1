"""Which class a noisy image shows: log p(y | x_t), what classifier guidance climbs (Dhariwal & Nichol 2021, Sec. 4).

A `Classifier` is to classes what a `Denoiser` is to images: a network and the path on which it knows noise. Asked at
xbar = x0 + sigma eps, it feeds the network x = a xbar and the path's time at sigma, and returns its logits.
"""

import copy
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from ddim_ode.data import ASSETS
from ddim_ode.errors import DDIMError
from ddim_ode.models.arguments import check_net, place, present
from ddim_ode.models.bounds import MOST_CLASSES, MOST_LEVELS, MOST_NUMBERS, Width
from ddim_ode.models.config import ScheduleConfig
from ddim_ode.models.failures import NonFiniteError, check_finite
from ddim_ode.models.modes import Mode
from ddim_ode.models.networks import device_of, precision_of
from ddim_ode.models.unet import sinusoid
from ddim_ode.paths import Path
from ddim_ode.support.checks import of_kind, shown, whole
from ddim_ode.support.files import reported
from ddim_ode.support.tensors import read_tensors, write_tensors
from ddim_ode.support.validation import read_yaml, write_yaml

SETTINGS, WEIGHTS = "classifier.yaml", "classifier.safetensors"


class ClassifierError(DDIMError):
    """A classifier that cannot be, or that answers with no logits; the message says what to do."""


class NetworkConfig(BaseModel):
    """Shape of a `NoisyClassifier`. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shape: tuple[Width, Width, Width] = Field(description="(C, H, W) of an image")
    num_classes: int = Field(ge=2, le=MOST_CLASSES, description="classes 0..num_classes-1")
    channels: tuple[Width, ...] = Field(min_length=1, max_length=MOST_LEVELS, description="of each level, finest first")
    blocks: int = Field(1, ge=1, le=8, description="residual blocks a level")
    patch: Width = Field(2, description="pixel-unshuffle factor on the way in")
    groups: Width = Field(8, description="groups of every GroupNorm")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="before the last layer")
    time_scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="times are multiplied by it")

    @model_validator(mode="after")
    def _consistent(self) -> "NetworkConfig":
        _, height, width = self.shape
        if math.prod(self.shape) > MOST_NUMBERS:
            raise ValueError(f"shape={self.shape}: an image has at most {MOST_NUMBERS} numbers here")
        if height % (factor := self.patch * 2 ** (len(self.channels) - 1)) or width % factor:
            raise ValueError(f"shape={self.shape} is not divisible by {factor}; use fewer levels or another patch")
        for c in self.channels:
            if c % self.groups:
                raise ValueError(f"channels={self.channels}: {c} is not a multiple of groups={self.groups}")
        if self.channels[0] % 2 or self.channels[0] < 4:
            raise ValueError(f"channels={self.channels}: the first must be even, and at least 4, for sines and cosines")
        return self


class ClassifierConfig(BaseModel):
    """What `classifier.yaml` in a classifier's folder holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: NetworkConfig
    schedule: ScheduleConfig = ScheduleConfig()


class NoisyClassifier(nn.Module):
    """forward(x, t): images x (B, C, H, W) with noise, times t (B,) -> logits (B, num_classes).

    Residual blocks, whose second norm the time scales and shifts, on ever fewer pixels, and a mean over those left.
    Smooth throughout (SiLU, means for maxima), since it is its gradient that guides.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = c = config
        width = 4 * c.channels[0]
        self.time_mlp = nn.Sequential(nn.Linear(c.channels[0], width), nn.SiLU(), nn.Linear(width, width))
        self.conv_in = nn.Conv2d(c.shape[0] * c.patch**2, c.channels[0], 3, padding=1)
        inputs = [c.channels[0], *c.channels[:-1]]
        self.levels = nn.ModuleList(
            nn.ModuleList(Residual(c_in if k == 0 else c_out, c_out, width, c.groups) for k in range(c.blocks))
            for c_in, c_out in zip(inputs, c.channels, strict=True)
        )
        last = c.channels[-1]
        self.norm, self.dropout = nn.GroupNorm(c.groups, last), nn.Dropout(c.dropout)
        self.classes = nn.Linear(last, c.num_classes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        c = self.config
        emb = F.silu(self.time_mlp(sinusoid(t.double() * c.time_scale, c.channels[0], "cos_sin", 0.0, x.dtype)))
        h = self.conv_in(F.pixel_unshuffle(x, c.patch) if c.patch > 1 else x)
        for n, level in enumerate(self.levels):
            h = F.avg_pool2d(h, 2) if n else h
            for block in cast(Iterable[nn.Module], level):
                h = block(h, emb)
        return cast(Tensor, self.classes(self.dropout(F.silu(self.norm(h)).mean((2, 3)))))


class Residual(nn.Module):
    """x + conv(silu((1 + s) norm(conv(silu(norm(x)))) + b)), with (s, b) linear in the embedding."""

    def __init__(self, c_in: int, c_out: int, c_emb: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, c_in), nn.GroupNorm(groups, c_out)
        self.conv1, self.conv2 = (nn.Conv2d(c, c_out, 3, padding=1) for c in (c_in, c_out))
        self.emb = nn.Linear(c_emb, 2 * c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.emb(emb)[:, :, None, None].chunk(2, dim=1)
        return cast(Tensor, self.skip(x) + self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift)))


class NonFiniteLogitsError(NonFiniteError):
    """A classifier returned NaN or infinity."""

    what, remedy = "the classifier's output", "check its weights and precision"


@dataclass(frozen=True)
class Classifier:
    """A network that knows the class of a noisy image, and the path on which it does. Immutable.

    Args:
        net: net(x, t) -> logits (B, num_classes); x = a x0 + b eps (B, *shape), t (B,) times on `path`, in the
            network's precision, times in float32 at least.
        path: the schedule on which it was trained.
        num_classes: how many classes it knows, 0..num_classes-1.

    Raises:
        ArgumentError: an argument of another kind.
        ClassifierError: fewer than 2 classes; a network in training mode, then or when it is called.
    """

    net: Callable[[Tensor, Tensor], Tensor]
    path: Path
    num_classes: int
    _mode: Mode = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_net(self.net, "classifier")
        of_kind("path", self.path, Path, "one such as ddim_ode.paths.DiscreteVP.linear()")
        object.__setattr__(self, "num_classes", whole("num_classes", self.num_classes, ClassifierError, least=2))
        object.__setattr__(self, "_mode", Mode("classifier", self.net, ClassifierError))

    @property
    def sigma_min(self) -> float:
        """Smallest sigma that it was trained at."""
        return self.path.sigma_min

    @property
    def sigma_max(self) -> float:
        """Largest sigma that it was trained at."""
        return self.path.sigma_max

    @property
    def device(self) -> torch.device | None:
        """Where it computes; None of a function, and of a module without weights."""
        return device_of(self.net, ClassifierError, "the classifier") if isinstance(self.net, nn.Module) else None

    def to(self, device: str | torch.device) -> "Classifier":
        """A copy on another device. Raises ClassifierError for a function, and for a device that cannot be."""
        if not isinstance(self.net, nn.Module):
            raise ClassifierError("the classifier is a function, which nobody can move; move what it calls")
        where = present(place(device, ClassifierError), ClassifierError)
        return replace(self, net=copy.deepcopy(self.net).to(where))

    def __call__(self, xbar: Tensor, sigma: Tensor) -> Tensor:
        """Logits (B, num_classes) of xbar = x0 + sigma eps (B, *shape), in its precision; sigma () or (B,), float64.

        Outside the path's range of sigma only the time is clamped, as a `Denoiser` does.

        Raises:
            ClassifierError: the network returned something of another shape.
            NonFiniteLogitsError: NaN or infinity; it names sigma and the first such sample.
        """
        a, u = self.path.scale(sigma), self.path.u(sigma.clamp(self.sigma_min, self.sigma_max))
        x = (a.to(xbar).reshape(-1, *[1] * (xbar.ndim - 1)) if a.ndim else a.item()) * xbar
        dtype = (precision_of(self.net) if isinstance(self.net, nn.Module) else None) or x.dtype
        times = u.to(x.device, torch.promote_types(dtype, torch.float32)).expand(len(x))
        logits = self._mode(self.net, x.to(dtype), times)
        if not isinstance(logits, Tensor) or logits.shape != (len(x), self.num_classes):
            found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ClassifierError(
                f"the classifier returned {found} at sigma={float(sigma.flatten()[0]):.6g}, for {len(x)} samples; it"
                f" must return logits ({len(x)}, {self.num_classes})"
            )
        check_finite(logits.detach(), sigma, NonFiniteLogitsError)
        return logits.to(xbar)


def bundled_classifiers() -> list[str]:
    """Names of the classifiers that ship with the package."""
    return sorted(file.parent.name.removesuffix("-classifier") for file in ASSETS.glob(f"*/{SETTINGS}"))


def load_classifier(what: str | os.PathLike[str]) -> Classifier:
    """A classifier by the name of a bundled one ("fashion") or by its folder, on the CPU in float32.

    Raises ClassifierError where there is none or its weights do not fit, ConfigError for its settings.
    """
    of_kind("what", what, (str, os.PathLike), "a name or a path, as a str or a Path")
    known = bundled_classifiers()
    folder = ASSETS / f"{what}-classifier" if str(what) in known else FilePath(what)
    if not (folder / SETTINGS).is_file():
        raise ClassifierError(
            f"there is no classifier {shown(str(what), 200)}; give a folder that holds {SETTINGS}, or one of:"
            f" {', '.join(known)}"
        )
    config = read_yaml(ClassifierConfig, folder / SETTINGS)
    weights, _ = read_tensors(folder / WEIGHTS, ClassifierError, "copy or train it again")
    with torch.device("meta"):  # no random start: it would move the global generator
        net = NoisyClassifier(config.network)
    try:
        net.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    except RuntimeError:  # which lists what does not fit, over many lines
        raise ClassifierError(f"{folder / WEIGHTS} does not fit {folder / SETTINGS}; train it again") from None
    return Classifier(net.eval().requires_grad_(False), config.schedule.path(), config.network.num_classes)


def save_classifier(folder: str | os.PathLike[str], config: ClassifierConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a classifier's folder, each file atomically and with a digest of itself; weights are rounded to float16.

    Raises OutputError: the folder cannot be written.
    """
    folder = FilePath(folder)
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
    stored = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in weights.items()}
    write_tensors(folder / WEIGHTS, stored)
    write_yaml(folder / SETTINGS, config.model_dump(mode="json"))
