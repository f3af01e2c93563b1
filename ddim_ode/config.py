"""What a YAML file may say: the description of a model and the settings of a training run.

Every key is checked; an unknown one is an error that lists the valid ones.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ddim_ode.errors import DDIMError
from ddim_ode.paths import DiscreteVP
from ddim_ode.unet import UNetConfig


class ConfigError(DDIMError):
    """A configuration that cannot be read or is not valid; the message names the file, the key and the rule."""


Decay = Annotated[float, Field(ge=0, lt=1)]


class ScheduleConfig(BaseModel):
    """A discrete variance-preserving schedule, by its name or by its betas.

    `linear` is DDPM's, `scaled_linear` has a linear sqrt(beta), `cosine` is that of Nichol & Dhariwal, and `betas` says
    each. `zero_snr` rescales any of them to end in pure noise (Lin et al. 2023, Alg. 1).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["linear", "scaled_linear", "cosine", "betas"] = "linear"
    timesteps: int = Field(1000, ge=2)
    beta_start: float = Field(1e-4, gt=0, lt=1, description="of the linear ones")
    beta_end: float = Field(0.02, gt=0, lt=1, description="of the linear ones")
    betas: tuple[float, ...] | None = Field(None, description="with name: betas, one a timestep")
    zero_snr: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> "ScheduleConfig":
        if (self.betas is not None) != (self.name == "betas"):
            raise ValueError("give betas with name: betas, and only then")
        if self.betas is not None and len(self.betas) != self.timesteps:
            raise ValueError(f"there are {len(self.betas)} betas for timesteps={self.timesteps}; give one a timestep")
        self.path()  # a PathError is a ValueError, and says what is wrong
        return self

    def path(self) -> DiscreteVP:
        """The path that this schedule describes."""
        if self.betas is not None:
            path = DiscreteVP.from_betas(self.betas)
        elif self.name == "cosine":
            path = DiscreteVP.cosine(self.timesteps)
        else:
            path = getattr(DiscreteVP, self.name)(self.timesteps, self.beta_start, self.beta_end)
        return path.to_zero_snr() if self.zero_snr else path


class ModelConfig(BaseModel):
    """What `config.yaml` in a model's folder holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: UNetConfig
    schedule: ScheduleConfig = ScheduleConfig()
    predicts: Literal["noise", "data", "velocity", "flow", "score"] = "noise"


class TrainConfig(BaseModel):
    """A training run. Steps count optimizer updates; `batch_size` is the sum over all processes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig
    data: str = Field("fashion-mnist", description="'fashion-mnist' or a folder of images")
    steps: int = Field(ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(2e-4, gt=0, allow_inf_nan=False)
    warmup: int = Field(500, ge=0, description="steps over which the learning rate rises from 0")
    cooldown: int = Field(0, ge=0, description="steps at the end over which it falls to 0, linearly")
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    ema: Decay = Field(0.999, description="decay of the averaged weights, the ones that are kept")
    label_dropout: float = Field(0.1, ge=0, le=1, description="share of labels replaced by the null class")
    precision: Literal["float32", "bf16"] = "bf16"
    compile: bool = Field(True, description="torch.compile the network")
    seed: int = 0
    save_every: int = Field(1000, ge=1)
    sample_every: int = Field(2000, ge=1)
    log_every: int = Field(50, ge=1)

    @model_validator(mode="after")
    def _trainable(self) -> "TrainConfig":
        if self.model.predicts == "score":
            raise ValueError("predicts: score explodes as sigma goes to 0; train noise and read the score off it")
        if self.model.schedule.path().zero_terminal_snr:
            raise ValueError("a schedule that ends in zero SNR can be sampled, not trained, here; leave zero_snr out")
        if self.model.network.num_classes and not self.model.network.null_class and self.label_dropout:
            raise ValueError("label_dropout trains the null class, and null_class is false; set label_dropout: 0")
        return self


Config = TypeVar("Config", bound=BaseModel)


def parse(kind: type[Config], values: Any, source: str) -> Config:
    """`values` (from YAML or JSON) as a `kind`. Raises ConfigError with every fault in one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_fault(kind, fault) for fault in error.errors())
        raise ConfigError(f"{source}: {faults}") from None


def read_yaml(kind: type[Config], file: Path) -> Config:
    """A YAML file as a `kind`. Raises ConfigError when it is missing, not YAML, or not valid."""
    try:
        values = yaml.safe_load(Path(file).read_text())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}; give an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    return parse(kind, values, str(file))


def _fault(kind: type[BaseModel], fault: Any) -> str:
    where = ".".join(map(str, fault["loc"])) or "the top level"
    if fault["type"] == "extra_forbidden":
        inner: Any = kind  # an annotation can be of any form; where a key can be unknown it is a model
        for key in fault["loc"][:-1]:
            inner = inner.model_fields[key].annotation
        return f"unknown key {where!r}; valid keys are {', '.join(inner.model_fields)}"
    return f"{where}: {fault['msg']}"
