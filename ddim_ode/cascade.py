"""Small images first, then larger ones that are told them: Ho et al. 2021, "Cascaded Diffusion Models".

    x_1 ~ p(x | label),    x_{k+1} ~ p(x | label, noised(x_k, s_{k+1}), s_{k+1})

Each stage is a model of its own on its own ODE, solved by its own method at its own cost. Noise of level s in what a
stage is told hides the faults of the one before: see `models.image_condition`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from ddim_ode import checkpoints
from ddim_ode.data import ASSETS, to_float
from ddim_ode.errors import DDIMError
from ddim_ode.models.conditional import condition_of, multiply_adds, network_of
from ddim_ode.models.conditions import Conditions
from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.models.image_condition import noised
from ddim_ode.planning.inputs import (
    Labels,
    check_labels,
    check_model,
    check_seeds,
    check_start,
    of_pictures,
    seeded_noise,
)
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import Callback, check_measured
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import Solution
from ddim_ode.support.checks import as_path, of_kind, real, shown
from ddim_ode.support.seeds import mix
from ddim_ode.support.validation import Record, read_yaml, write_yaml

FILE = checkpoints.CASCADE
MOST_STAGES = 16


class CascadeError(DDIMError):
    """Stages that do not follow each other, or are asked for what they cannot do."""


class CascadeConfig(Record):
    """What `cascade.yaml` says: the models, as `load` takes them or as folders beside it, and the noise told to each
    that follows another.
    """

    stages: tuple[str, ...] = Field(min_length=1, max_length=MOST_STAGES)
    augmentation: tuple[float, ...] = ()


@dataclass(frozen=True)
class CascadeSolution:
    """The samples of all stages, and what they cost.

    stages: a `Solution` each; their x are images of its size.
    weights: what a pass of each network costs, in passes of the largest, by its multiplications and additions.
    """

    stages: tuple[Solution, ...]
    weights: tuple[float, ...]

    @property
    def x(self) -> Tensor:
        """(B, *shape) the images of the last stage."""
        return self.stages[-1].x

    @property
    def nfe(self) -> Tensor:
        """(B, stages) int64, network passes spent on each sample by each stage."""
        return torch.stack([stage.nfe for stage in self.stages], dim=1)

    @property
    def equivalents(self) -> Tensor:
        """(B,) float64, passes of the largest network that would have cost as much."""
        return self.nfe.double() @ torch.tensor(self.weights, dtype=torch.float64)


@dataclass(frozen=True)
class Cascade:
    """Models of which each is told the image of the one before. Immutable.

    Args:
        stages: the models, of the smallest images first. The network of each but the first says in an attribute
            `condition`, a `ConditionConfig`, which image it is told, as a `UNet` with `condition` in its configuration
            does. So may the first, which is then told the images that `sample` is given.
        augmentation: how much noise is put into them, 0 to 1 (Ho et al. 2021): one number for all stages that
            are told an image, or one for each of these.

    Raises:
        CascadeError: a stage is told no image, or one of another shape than the stage before makes; noise for a network
            that is not told how much there is.
        ArgumentError: an argument of another kind.
    """

    stages: Sequence[Model]
    augmentation: float | Sequence[float] = 0.0
    levels: tuple[float, ...] = field(init=False, compare=False)  # of augmentation, one for each image that is told

    def __post_init__(self) -> None:
        of_kind("stages", self.stages, (list, tuple), "a list of models, of the smallest images first")
        if not 1 <= len(self.stages) <= MOST_STAGES:
            raise CascadeError(f"stages={len(self.stages)} are no cascade; give 1 to {MOST_STAGES} models")
        for stage in self.stages:
            check_model(stage)
        for k in range(1, len(self.stages)):
            _check_follows(k, self.stages[k - 1], self.stages[k])
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "levels", self._checked_levels())

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of the last stage's images."""
        return self.stages[-1].shape

    @property
    def num_classes(self) -> int:
        """Of the first stage that has classes; 0 where none has."""
        return next((stage.num_classes for stage in self.stages if stage.num_classes), 0)

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """What a pass of each network costs, in passes of the largest: by `multiply_adds`."""
        counts = [max(1, multiply_adds(stage)) for stage in self.stages]
        return tuple(count / max(counts) for count in counts)

    def after(self, first: int = 1) -> "Cascade":
        """The stages from number `first` on, which are told images. Raises CascadeError where there is none."""
        if not 0 <= first < len(self.stages):
            raise CascadeError(f"first={shown(first)} is no stage; this cascade has stages 0..{len(self.stages) - 1}")
        told = [k for k, stage in enumerate(self.stages) if condition_of(stage)]
        return Cascade(self.stages[first:], [s for k, s in zip(told, self.levels, strict=True) if k >= first])

    def sample(
        self,
        options: SolveOptions | Sequence[SolveOptions] | None = None,
        seeds: Iterable[int] | None = None,
        *,
        labels: Labels = None,
        image: Tensor | None = None,
        callback: Callback | None = None,
    ) -> CascadeSolution:
        """Draw samples through all stages. Sample i is a function of its seed, its label and its image alone; what
        noise the stages are told comes from the seed, too.

        Args:
            options: how to solve, for all stages or one for each (default: ddim at 20 evaluations).
            seeds: one int a sample (default: 0, or 0, 1, ... for images).
            labels: (B,) or one int for all, told to every stage that has classes; None is the null class.
            image: (B, C, h, w) floats in [-1, 1] or bytes, where the first stage is told an image.
            callback: called with a `Progress` after every step, of one stage after the other.

        Raises:
            CascadeError: images that are missing or not wanted, options of another number.
            SampleError, ConditionError and what else `sample` raises.
        """
        each, levels = self._options(options), iter(self.levels)
        image = self._first(image)
        numbers = check_seeds(range(1 if image is None else len(image)) if seeds is None else seeds)
        if image is not None and len(numbers) != len(image):
            raise CascadeError(f"seeds are {len(numbers)}, for {len(image)} images; give one an image")
        for stage in [stage for stage in self.stages if stage.num_classes] or self.stages[:1]:
            given = check_labels(stage, labels, len(numbers))
        solutions = list[Solution]()
        for k, stage in enumerate(self.stages):
            classes = given if stage.num_classes else None
            tensors = {} if image is None else told_of(k, stage, image, next(levels), numbers)
            told = Conditions(classes, tensors) if tensors else classes
            own = [mix("stage", k, seed) for seed in numbers] if k else numbers
            solutions.append(sample_with(stage, each[k], seeds=own, labels=told, callback=callback))
            found = solutions[-1].x
            image = found.clamp(-1, 1) if of_pictures(stage) else found  # as are those that the next has learned from
        return CascadeSolution(tuple(solutions), self.weights)

    def save(self, folder: str | PathLike[str]) -> None:
        """Write a folder that `Cascade.load` reads: each stage in a folder of its own, float32, and `cascade.yaml`.

        Raises:
            CascadeError: a stage is not a network of ours that was loaded from files.
            CheckpointError, OutputError: as `checkpoints.save`.
        """
        where, names = as_path("folder", folder, "folder"), list[str]()
        for k, stage in enumerate(self.stages):
            config = getattr(getattr(stage, "provenance", None), "config", None)
            if not isinstance(stage, Denoiser) or config is None:
                raise CascadeError(f"stages[{k}] is no network of ours from files; save it first, and load it")
            names.append(f"{k + 1}-{'x'.join(map(str, stage.shape[1:]))}")
            checkpoints.save(where / names[-1], config, network_of(stage).state_dict(), torch.float32)
        write_yaml(where / FILE, {"stages": names, "augmentation": list(self.levels)})

    @classmethod
    def load(cls, what: str | PathLike[str], *, offline: bool = False) -> "Cascade":
        """A cascade by the name of a bundled one ("fashion-cascade") or by its folder, which holds `cascade.yaml`.

        Raises:
            CascadeError: there is none, or its stages do not follow each other.
            ConfigError, CheckpointError: `cascade.yaml` is not valid, or a stage cannot be loaded.
        """
        folder = ASSETS / str(what) if str(what) in bundled_cascades() else as_path("what", what, "folder")
        if not (folder / FILE).is_file():
            names = ", ".join(bundled_cascades())
            raise CascadeError(f"there is no {folder / FILE}; give the folder of a cascade, or one of: {names}")
        config = read_yaml(CascadeConfig, folder / FILE)
        places = [folder / name if (folder / name).is_dir() else name for name in config.stages]
        return cls([checkpoints.load(place, offline=offline) for place in places], config.augmentation or 0.0)

    def _checked_levels(self) -> tuple[float, ...]:
        told = [k for k, stage in enumerate(self.stages) if condition_of(stage)]
        given = self.augmentation
        each = list(given) if isinstance(given, list | tuple) else [given] * len(told)
        if len(each) != len(told):
            raise CascadeError(f"augmentation={shown(given)} are {len(each)}; {len(told)} stages are told an image")
        levels = tuple(real("augmentation", level, CascadeError, 0, 1, "0.1") for level in each)
        for k, level in zip(told, levels, strict=True):
            wanted = condition_of(self.stages[k])
            if level and wanted and not wanted.noise:
                raise CascadeError(
                    f"augmentation={level:g}: stage {k} is not told how noisy its image is; give 0, or train it with"
                    " condition.noise: true"
                )
        return levels

    def _options(self, options: object) -> Sequence[SolveOptions]:
        count, one = len(self.stages), options or SolveOptions()
        each: list[Any] = list(options) if isinstance(options, list | tuple) else [one] * count
        if len(each) != count:
            raise CascadeError(f"options are {len(each)}, for {count} stages; give one for all, or one each")
        for stage, chosen in zip(self.stages, each, strict=True):
            of_kind("options", chosen, SolveOptions, "a SolveOptions, or a list of one a stage")
            if condition_of(stage):
                check_measured(chosen)  # now, and not when the stages before it have been drawn
        return each

    def _first(self, image: Tensor | None) -> Tensor | None:
        """The image that the first stage is told, as floats."""
        wanted = condition_of(self.stages[0])
        if wanted is None:
            if image is not None:
                raise CascadeError("the first stage is told no image; leave image out, or take cascade.after(1)")
            return None
        if image is None:
            raise CascadeError(f"the first stage is told an image of shape {wanted.image}; give image=images")
        of_kind("image", image, Tensor, f"a tensor (B, {', '.join(map(str, wanted.image))})")
        floats = to_float(image) if image.dtype == torch.uint8 else image
        check_start("image", floats, wanted.image)
        return floats


def told_of(k: int, model: Model, image: Tensor, level: float, seeds: Sequence[int]) -> dict[str, Tensor]:
    """What stage k is told of images (B, C, h, w): these, with noise of this level that comes from the seeds."""
    wanted = condition_of(model)
    assert wanted
    image = image.to(model.device)
    if not wanted.noise:
        return {"image": image}
    levels = torch.full((len(image),), level, dtype=image.dtype, device=image.device)
    if level:
        eps = seeded_noise([mix("told", k, seed) for seed in seeds], wanted.image)
        image = noised(image, levels, eps.to(image))
    return {"image": image, "image_noise": levels}


def bundled_cascades() -> list[str]:
    """Names of the cascades that ship with the package."""
    return sorted(file.parent.name for file in ASSETS.glob(f"*/{FILE}"))


def is_cascade(what: str | PathLike[str]) -> bool:
    """Whether it is the name of a bundled cascade, or the folder of one."""
    return str(what) in bundled_cascades() or (Path(what) / FILE).is_file()


def _check_follows(k: int, before: Model, stage: Model) -> None:
    """Raise CascadeError unless stage k is told what the stage before it makes."""
    wanted = condition_of(stage)
    if wanted is None:
        raise CascadeError(
            f"stages[{k}] is told no image, so it cannot follow another; leave it out, or what is before"
        )
    if tuple(before.shape) != wanted.image:
        raise CascadeError(
            f"stages[{k}] is told an image of shape {wanted.image}, and stages[{k - 1}] makes {tuple(before.shape)}"
            "; give stages that fit"
        )
    if stage.num_classes and before.num_classes and stage.num_classes != before.num_classes:
        raise CascadeError(
            f"stages[{k}] has {stage.num_classes} classes, and stages[{k - 1}] has {before.num_classes}; give stages"
            " that were trained with the same labels"
        )
