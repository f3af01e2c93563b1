"""What a YAML file says of a training run; every key is checked."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ddim_ode.models.config import ModelConfig
from ddim_ode.models.image_condition import divides

Level = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(BaseModel):
    """A training run. Steps count optimizer updates; `batch_size` is the sum over all processes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig
    data: str = Field(
        "fashion-mnist", description="'fashion-mnist', or a folder of images, with one in it for each class"
    )
    shrink: int = Field(1, ge=1, description="images are so many times as high and wide, and shrunk by means of boxes")
    augmentation: tuple[Level, Level] = Field(
        (0.0, 0.0), description="(least, largest) noise in the image that the network is told, drawn evenly"
    )
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
        self._check_condition()
        return self

    def _check_condition(self) -> None:
        network, (low, high) = self.model.network, self.augmentation
        if network.condition and not divides(network.condition.image, network.shape):
            raise ValueError(
                f"condition.image={network.condition.image}: it is made of the training images by means of boxes, and"
                f" {network.shape} does not divide into it; use the same channels and a height and width that divide"
            )
        if low > high:
            raise ValueError(f"augmentation=({low:g}, {high:g}) goes down; give the least first")
        if high and not (network.condition and network.condition.noise):
            raise ValueError(f"augmentation=({low:g}, {high:g}) needs a network with condition.noise: true")
