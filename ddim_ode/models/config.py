"""What a file of a model says of it: its network, its schedule and what it predicts."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ddim_ode.models.bounds import MOST_TIMESTEPS, Timesteps
from ddim_ode.models.unet import UNetConfig
from ddim_ode.paths import DiscreteVP, Flow

Beta = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
RANGE = (1e-3, 1 - 1e-3)  # of a flow, unless told otherwise


class ScheduleConfig(BaseModel):
    """A discrete variance-preserving schedule, by its name or by its betas, or a flow.

    `linear` is DDPM's, `scaled_linear` has a linear sqrt(beta), `cosine` is that of Nichol & Dhariwal, and `betas` says
    each. `zero_snr` rescales any of them to end in pure noise (Lin et al. 2023, Alg. 1).

    `flow` is x = (1 - u) x0 + u eps in continuous time (Liu et al. 2023), from the least share u of noise to the
    largest in `noise_range`: 0.001 to 0.999, unless that is given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["linear", "scaled_linear", "cosine", "betas", "flow"] = "linear"
    timesteps: Timesteps = 1000
    beta_start: float = Field(1e-4, gt=0, lt=1, description="of the linear ones")
    beta_end: float = Field(0.02, gt=0, lt=1, description="of the linear ones")
    betas: tuple[Beta, ...] | None = Field(
        None, max_length=MOST_TIMESTEPS, description="with name: betas, one a timestep"
    )
    zero_snr: bool = False
    noise_range: tuple[Share, Share] | None = Field(
        None, description="with name: flow, (least, largest) share of noise"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ScheduleConfig":
        if (self.betas is not None) != (self.name == "betas"):
            raise ValueError("give betas with name: betas, and only then")
        if self.betas is not None and len(self.betas) != self.timesteps:
            raise ValueError(f"there are {len(self.betas)} betas for timesteps={self.timesteps}; give one a timestep")
        if self.noise_range and self.name != "flow":
            raise ValueError("give noise_range with name: flow, and only then")
        told = self.model_dump(exclude_defaults=True).keys() - {"name", "noise_range"}
        if self.name == "flow" and told:
            raise ValueError(f"a flow has neither timesteps nor betas; leave {', '.join(sorted(told))} out")
        self.path()  # a PathError is a ValueError, and says what is wrong
        return self

    def path(self) -> DiscreteVP | Flow:
        """The path that this schedule describes."""
        if self.name == "flow":
            low, high = self.noise_range or RANGE
            return Flow(low / (1 - low), high / (1 - high))
        return self.discrete()

    def discrete(self) -> DiscreteVP:
        """The path of betas. A flow has none."""
        assert self.name != "flow"
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
