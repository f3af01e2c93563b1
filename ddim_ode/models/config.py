"""What a file of a model says of it: its network, its schedule and what it predicts."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ddim_ode.models.bounds import MOST_TIMESTEPS, Timesteps
from ddim_ode.models.unet import UNetConfig
from ddim_ode.paths import DiscreteVP

Beta = Annotated[float, Field(gt=0, le=1)]


class ScheduleConfig(BaseModel):
    """A discrete variance-preserving schedule, by its name or by its betas.

    `linear` is DDPM's, `scaled_linear` has a linear sqrt(beta), `cosine` is that of Nichol & Dhariwal, and `betas` says
    each. `zero_snr` rescales any of them to end in pure noise (Lin et al. 2023, Alg. 1).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["linear", "scaled_linear", "cosine", "betas"] = "linear"
    timesteps: Timesteps = 1000
    beta_start: float = Field(1e-4, gt=0, lt=1, description="of the linear ones")
    beta_end: float = Field(0.02, gt=0, lt=1, description="of the linear ones")
    betas: tuple[Beta, ...] | None = Field(
        None, max_length=MOST_TIMESTEPS, description="with name: betas, one a timestep"
    )
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
