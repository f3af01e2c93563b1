"""Models of diffusers: the folder of a pipeline or of a `UNet2DModel`, read and written without importing diffusers.

Their weights are ours under other names, so our UNet computes what theirs does. What it cannot be is wrapped, if
diffusers is installed.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.checkpoints.building import build, provenance_in
from ddim_ode.checkpoints.diffusers_config import (
    VERSION,
    UNet2D,
    UnsupportedError,
    read_network,
    read_unet,
    write_network,
)
from ddim_ode.checkpoints.files import CheckpointError, CheckpointWarning, read_json, read_metadata, read_weights
from ddim_ode.checkpoints.fitting import Names, Scheme, fit, unfit
from ddim_ode.checkpoints.frames import MOST_SIGMA, Frame, frame_of
from ddim_ode.checkpoints.scheduler_config import ignored_in, read_scheduler, write_schedule
from ddim_ode.models.config import ModelConfig, ScheduleConfig
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.image_condition import ConditionConfig, check_told
from ddim_ode.models.unet import UNetConfig
from ddim_ode.support.records import write_json
from ddim_ode.support.tensors import write_tensors

#: what weights are called, the most exact first: as they are, then in the variants that folders may hold alone
WEIGHTS = tuple(
    f"diffusion_pytorch_model.{end}"
    for v in ("", "fp16.", "bf16.")
    for end in (f"{v}safetensors", f"safetensors.index.{v}json", f"{v}bin", f"bin.index.{v}json")
)
NULL_CLASS = "null_class"  # in the header of weights that we wrote: the last embedding is that of no condition

PARTS = Scheme(
    block={k: k for k in ("norm1", "conv1", "norm2", "conv2")} | {"emb": "time_emb_proj", "skip": "conv_shortcut"},
    attention={"norm": "group_norm", "qkv": ("to_q", "to_k", "to_v"), "out": "to_out.0"},
)
#: parts of attention in files from before diffusers 0.17
OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def is_diffusers(folder: Path) -> bool:
    """Whether it is the folder of a pipeline, or of a model, of diffusers."""
    if (folder / "model_index.json").is_file():
        return True
    return (folder / "config.json").is_file() and "_class_name" in read_json(folder / "config.json")


def load_diffusers(folder: Path) -> Denoiser:
    """The model of a diffusers folder, on the CPU in float32.

    Raises:
        CheckpointError: it holds no `UNet2DModel`, or one that neither our UNet nor an installed diffusers can be.
    """
    where = folder / "unet" if (folder / "unet").is_dir() else folder
    config_file = where / "config.json"
    if not config_file.is_file():
        raise CheckpointError(f"{folder} has no unet/config.json; a pipeline around a UNet2DModel was expected")
    values = read_json(config_file)
    if values.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise CheckpointError(
            f"{config_file} is of a {values['_class_name']}; only a UNet2DModel is loaded by itself"
            ", so load the pipeline with diffusers and use ddim_ode.from_pipeline"
        )
    unet = read_unet(values, config_file)
    schedule, predicts, ignored, frame = _schedule(folder)
    weights_file = _weights_file(where)
    weights = {_modern(name): value for name, value in read_weights(weights_file).items()}
    if unet.learned_variance:
        ignored.append("learned variance")
    known: dict[str, Any]
    facts: dict[str, Any] = {"schedule": schedule, "ignored": tuple(ignored)}
    origin = provenance_in("diffusers", folder, weights_file, weights, **facts)
    if frame is not None:
        net: nn.Module = Signed(_wrapped(values, unet, weights, f"{folder} is of a flow"), frame.sign)
        classes, known = unet.num_class_embeds or 0, {"null_class": False, "provenance": origin}
        return Denoiser(net, frame.on_our_grids(), frame.predicts, unet.shape, classes, **known)
    try:
        network = read_network(unet, config_file)
    except UnsupportedError as reason:
        net, classes = _wrapped(values, unet, weights, reason), unet.num_class_embeds or 0
        path, whole = schedule.path(), unet.time_embedding_type == "learned"  # for each timestep
        known = {"quantize": whole, "null_class": False, "provenance": origin}
        return Denoiser(net, path, predicts, unet.shape, classes, **known)
    if network.num_classes and weights_file.suffix == ".safetensors" and NULL_CLASS in read_metadata(weights_file):
        network = network.model_copy(update={"num_classes": network.num_classes - 1, "null_class": True})
    if unet.learned_variance:
        weights |= {k: v.chunk(2)[0] for k, v in weights.items() if k.startswith("conv_out.")}
    ours = fit(weights, names(network), network, weights_file)
    # `predicts` is a plain str here, one of PREDICTION; pydantic checks that it is among the literals.
    config = ModelConfig(network=network, schedule=schedule, predicts=predicts)  # type: ignore[arg-type]
    return build(config, ours, replace(origin, config=config))


def save_diffusers(folder: Path, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """Write our model as a pipeline's folder, its weights in the dtype they have.

    A null class becomes one more class, the last, and is noted in the header of the weights. A `DDIMPipeline` gives its
    network no labels, so a class-conditional one is of use to other code only.

    Raises:
        CheckpointError: diffusers has no such network, or no such prediction.
    """
    unet, scheduler = write_network(config.network), write_schedule(config.schedule, config.predicts)
    index = {
        "_class_name": "DDIMPipeline",
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", unet["_class_name"]],
    }
    for part in ("unet", "scheduler"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    theirs = unfit(weights, names(config.network))
    note = {NULL_CLASS: "last"} if config.network.num_classes and config.network.null_class else {}
    write_tensors(folder / "unet" / WEIGHTS[0], theirs, {"format": "pt", **note})
    write_json(folder / "unet/config.json", unet)
    write_json(folder / "scheduler/scheduler_config.json", scheduler)
    write_json(folder / "model_index.json", index)


def names(c: UNetConfig) -> Names:
    """What the modules of our UNet are called in a `UNet2DModel`."""
    table: dict[str, str | tuple[str, str, str]] = {
        "time_mlp.0": "time_embedding.linear_1",
        "time_mlp.2": "time_embedding.linear_2",
        "class_embedding": "class_embedding",
        "conv_in": "conv_in",
        "norm_out": "conv_norm_out",
        "conv_out": "conv_out",
    }
    for n in range(2):
        table |= PARTS.names(f"mid.{n}", f"mid_block.resnets.{n}", f"mid_block.attentions.{n}")
    for n in range(len(c.channels)):
        for part, resamplers, count in (("down", "downsamplers", c.blocks), ("up", "upsamplers", c.blocks + 1)):
            ours, theirs = f"{part}.{n}", f"{part}_blocks.{n}"
            for k in range(count):
                table |= PARTS.names(f"{ours}.blocks.{k}", f"{theirs}.resnets.{k}", f"{theirs}.attentions.{k}")
            table |= PARTS.names(f"{ours}.resample", f"{theirs}.{resamplers}.0", "")
            table[f"{ours}.resample.conv"] = f"{theirs}.{resamplers}.0.conv"
    return table


def _modern(name: str) -> str:
    for old, new in OLD.items():
        name = name.replace(old, new)
    return name


def _weights_file(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} has no weights; looked for {', '.join(WEIGHTS)}")


def _schedule(folder: Path) -> tuple[ScheduleConfig, str, list[str], Frame | None]:
    """The schedule, what the network predicts, settings that are of sampling and have no effect here, and of a flow
    what its network is told.
    """
    places = [folder / "scheduler", folder]
    if folder.resolve().name == "unet":  # of a pipeline's folder
        places.append(folder.resolve().parent / "scheduler")
    files = [place / "scheduler_config.json" for place in places]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        warnings.warn(
            f"{folder} has no scheduler_config.json: DDPM's linear schedule and prediction of noise are assumed",
            CheckpointWarning,
            stacklevel=5,  # the caller of `load`
        )
        return ScheduleConfig(), "noise", [], None
    values = read_json(file)
    if (frame := _flow(values, file)) is not None:
        low, high = (float(sigma / (1 + sigma)) for sigma in (frame.end, MOST_SIGMA))
        return ScheduleConfig(name="flow", noise_range=(low, high)), frame.predicts, [], frame
    return *read_scheduler(values, str(file)), ignored_in(values), None


def _flow(values: Mapping[str, Any], file: Path) -> Frame | None:
    """What a scheduler of flows says about its network; None of another. Raises CheckpointError without diffusers."""
    kind = str(values.get("_class_name"))
    if not (kind.startswith("FlowMatch") or values.get("use_flow_sigmas")):
        return None
    try:
        import diffusers
    except ImportError:
        raise CheckpointError(
            f"{file} is of a {kind}, for which there must be diffusers; pip install diffusers"
        ) from None
    if (made := getattr(diffusers, kind, None)) is None:
        raise CheckpointError(f"{file} is of a {kind}, which diffusers has not")
    return frame_of(made.from_config(dict(values)))


def _wrapped(
    values: Mapping[str, Any], config: UNet2D, weights: Mapping[str, Tensor], reason: UnsupportedError | str
) -> nn.Module:
    """The network of diffusers, which has run once. Raises CheckpointError where that fails."""
    try:
        from diffusers import UNet2DModel
    except ImportError:
        raise CheckpointError(f"{reason}, and diffusers, which has, is not installed; pip install diffusers") from None
    try:
        with torch.random.fork_rng(devices=[]):
            unet = UNet2DModel.from_config({k: v for k, v in values.items() if not k.startswith("_")})
        unet.load_state_dict({k: v.to(torch.float32) for k, v in weights.items()})
        condition = ConditionConfig(image=config.shape) if config.condition_beside else None
        net = Wrapped(unet, condition).eval().requires_grad_(False)
        labels = [torch.zeros(1, dtype=torch.int64)] if config.num_class_embeds else []
        told = {"image": torch.zeros(1, *config.shape)} if condition else {}
        net(torch.zeros(1, *config.shape), torch.ones(1), *labels, **told)
    except Exception as error:  # shapes that cannot be, weights that do not fit, another kind of condition
        fault = " ".join(str(error).split())
        raise CheckpointError(f"{reason}, and diffusers finds: {fault:.200}") from None
    return net


class Signed(nn.Module):
    """A network whose answer has a sign, -1 of some flows."""

    def __init__(self, net: nn.Module, sign: float):
        super().__init__()
        self.net, self.sign = net, sign

    def forward(self, *inputs: Tensor, **told: Tensor) -> Tensor:
        return self.sign * self.net(*inputs, **told)


class Wrapped(nn.Module):
    """A `UNet2DModel` called as our networks are: net(x, t, labels) -> (B, C, H, W); learned variances are dropped. One
    with a condition is told an image (B, C, H, W), too.
    """

    def __init__(self, unet: Any, condition: ConditionConfig | None = None):
        super().__init__()
        self.unet, self.whole = unet, unet.config.time_embedding_type == "learned"
        self.condition = condition

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None, *, image: Tensor | None = None) -> Tensor:
        check_told(self.condition, image, None, len(x))
        if self.whole:
            t = t.long()
        seen = x if image is None else torch.cat([x, image.to(x)], dim=1)
        return self.unet(seen, t, labels, return_dict=False)[0][:, : x.shape[1]]
