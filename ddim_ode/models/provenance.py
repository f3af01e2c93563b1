"""What a model is and where it came from, as people and manifests are told."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from ddim_ode.models.config import ModelConfig, ScheduleConfig
from ddim_ode.support.records import finite

if TYPE_CHECKING:
    from ddim_ode.models.denoiser import Model


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The files that a model was loaded from.

    kind: "ddim_ode", "diffusers", "DDIM code" or "guided-diffusion code".
    folder, file: where they are; the file is that of the weights, or the index of its shards.
    sha256, bytes: of the weights.
    dtype: the precision they are stored in, or several names where they differ.
    schedule: what the files say of the noise.
    ema: whether the weights are averages: "yes", "no" or "not stated".
    ignored: settings and outputs that have no part in an ODE.
    config: the network, if it is one of ours.
    """

    kind: str
    folder: str
    file: str
    sha256: str
    bytes: int
    dtype: str
    schedule: ScheduleConfig
    ema: str = "not stated"
    ignored: tuple[str, ...] = ()
    config: ModelConfig | None = None


def innermost(model: "Model") -> Any:
    """The model itself, or the one inside those that are around it, such as `Guided`."""
    inner: Any = model
    while hasattr(getattr(inner, "model", None), "path"):  # a network may have something of that name, too
        inner = inner.model
    return inner


def provenance_of(model: "Model") -> Provenance | None:
    """Where the innermost model came from; None of one that was made by hand."""
    found: Provenance | None = getattr(innermost(model), "provenance", None)
    return found


def describe(model: "Model") -> dict[str, Any]:
    """A model in facts that JSON can hold, hand-made ones included; None stands for what it does not tell.

    A model around another one, such as `Guided`, is described by the one inside.
    """
    inner, origin = innermost(model), provenance_of(model)
    net, path, classes = getattr(inner, "net", None), model.path, model.num_classes
    schedule = origin.schedule.name if origin else type(path).__name__
    network = type(net if net is not None else inner).__name__
    if origin:
        config = origin.config
        network = f"UNet of {', '.join(map(str, config.network.channels))} channels" if config else "UNet of diffusers"
    return {
        "kind": origin and origin.kind,
        "shape": list(model.shape),
        "classes": classes,
        "null_class": bool(classes) and getattr(inner, "null_class", True),
        "parameters": sum(p.numel() for p in net.parameters()) if isinstance(net, nn.Module) else None,
        "description": f"{network}, {schedule} schedule",
        "predicts": getattr(inner, "predicts", None),
        "schedule": schedule,
        "timesteps": path.num_timesteps or None,
        "zero_snr": path.zero_terminal_snr,
        "sigma_range": finite([model.sigma_min, model.sigma_max]),
        "weights": origin and origin.file,
        "ema": origin and origin.ema,
        "dtype": origin and origin.dtype,
        "bytes": origin and origin.bytes,
        "sha256": origin and origin.sha256,
        "ignored": origin and (", ".join(origin.ignored) or "nothing"),
    }
