"""Pipelines of diffusers whose network can be called directly: a UNet of pixels or latents, with prompts or without.

The pipeline's objects are used as they are, so that diffusers is not imported here. A prompt is a class: label n means
prompt n, and the null class is the negative prompt. So guidance is that of any model with classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ddim_ode.checkpoints.scheduler_config import read_scheduler
from ddim_ode.integrations.embeddings import PipelineError, embeddings
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.support.checks import ArgumentError, described, shown

#: of a network's config: what it wants to be told besides prompts, which is not known here
MORE = ("addition_embed_type", "class_embed_type", "num_class_embeds", "time_cond_proj_dim", "encoder_hid_dim_type")
NETWORKS = ("UNet2DModel", "UNet2DConditionModel")
WRAPPERS = 8  # around a network, one in the other
#: parts of a pipeline that are used here, or have no say in what its network answers
PARTS = (
    *("unet", "scheduler", "inverse_scheduler", "vae", "vqvae", "tokenizer", "text_encoder"),
    *("tokenizer_2", "text_encoder_2", "safety_checker", "feature_extractor"),
)
#: how attention processors begin whose answers are of another network, or depend on the rest of a batch
ATTENTION = ("PAG", "IPAdapter", "CrossFrame", "Perturbed")


class Unconditional(nn.Module):
    """A `UNet2DModel` as net(x, t)."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t).sample[:, : x.shape[1]]


class Prompted(nn.Module):
    """A `UNet2DConditionModel` as net(x, t, labels); embeddings (prompts, tokens, features), the null class last."""

    embeddings: Tensor

    def __init__(self, unet: nn.Module, embeddings: Tensor):
        super().__init__()
        self.unet = unet
        self.register_buffer("embeddings", embeddings)

    @property
    def without_prompts(self) -> nn.Module:
        """The network that any prompts could be given to, for which alone a method is tuned."""
        return self.unet

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return self.unet(x, t, encoder_hidden_states=self.embeddings[labels]).sample[:, : x.shape[1]]


def obstacle(pipe: Any) -> PipelineError | None:
    """Why the network of a pipeline cannot be called directly; None where it can.

    Raises ArgumentError for no pipeline.
    """
    try:
        kind, unet, _ = _parts(pipe)
        _size(kind, _config(kind, _unwrapped(unet)))
    except PipelineError as error:
        return error
    return None


def direct(pipe: Any, prompt: Any, negative_prompt: Any, quantize: bool) -> Denoiser:
    """The network of a pipeline that has no obstacle, with its prompts as classes, the negative one as the null class.

    Raises as `pipelines.from_pipeline`.
    """
    kind, unet, scheduler = _parts(pipe)
    config = _config(kind, _unwrapped(unet))
    height, width = _size(kind, config)
    schedule, predicts = read_scheduler(
        {"_class_name": type(scheduler).__name__, **scheduler.config},
        type(scheduler).__name__,
        getattr(scheduler, "alphas_cumprod", None),
    )
    latent = any(getattr(pipe, name, None) is not None for name in ("vae", "vqvae"))
    path, shape = schedule.path(), (config.in_channels, height, width)
    if getattr(config, "cross_attention_dim", None) is None:
        for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt or None)):
            if value is not None:
                raise PipelineError(f"{kind} knows no prompts; leave {name}={shown(value)} out")
        return Denoiser(Unconditional(unet), path, predicts, shape, quantize=quantize, latent=latent)
    table, prompts = embeddings(pipe, config.cross_attention_dim, prompt, negative_prompt)
    null = len(table) > prompts
    net = Prompted(unet, table)
    return Denoiser(net, path, predicts, shape, prompts, quantize=quantize, latent=latent, null_class=null)


def _parts(pipe: Any) -> tuple[str, nn.Module, Any]:
    """The name, the network and the scheduler of a pipeline whose other parts change nothing."""
    if pipe is None or isinstance(pipe, type | str | bytes | int | float | Tensor | Sequence | Mapping):
        raise ArgumentError(
            f"pipe is {described(pipe)}; give a pipeline of diffusers, as DDPMPipeline.from_pretrained(...) returns"
        )
    kind, unet, scheduler = type(pipe).__name__, getattr(pipe, "unet", None), getattr(pipe, "scheduler", None)
    scheduler = getattr(scheduler, "_original", None) or scheduler  # of one of ours
    if not isinstance(unet, nn.Module) or scheduler is None:
        other = "StableDiffusionPipeline"
        if isinstance(getattr(pipe, "transformer", None), nn.Module):
            other = "give its transformer to Denoiser as net(x, t), or to Denoiser.from_flow if it is of a flow"
        raise PipelineError(f"{kind} has no unet and scheduler; use one such as DDPMPipeline, or {other}")
    if not isinstance(getattr(scheduler, "config", None), Mapping):
        raise PipelineError(f"the scheduler of {kind} is {described(scheduler)} without a config; use one of diffusers")
    parts = getattr(pipe, "components", None)
    if not isinstance(parts, Mapping):  # of something that only looks like a pipeline, each network that it has
        parts = {name: value for name, value in vars(pipe).items() if isinstance(value, nn.Module)}
    for name, part in parts.items():
        if part is not None and name not in PARTS:
            raise PipelineError(
                f"{kind} has {name}, {described(part)}, which is not known here and might change what its network"
                " answers; use a pipeline without it, or give what calls them both to Denoiser as net(x, t)"
            )
    if hasattr(pipe, "set_pag_applied_layers"):
        raise PipelineError(f"{kind} guides by perturbed attention, which is not known here; use one without it")
    return kind, unet, scheduler


def _is_known(net: Any) -> bool:
    return any(parent.__name__ in NETWORKS for parent in type(net).__mro__)


def _unwrapped(unet: nn.Module) -> Any:
    """The network of diffusers in what torch.compile, data-parallel training or peft have put around it."""
    net: Any = unet
    for _ in range(WRAPPERS):
        if _is_known(net):
            break
        if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
            net = net.module
        elif isinstance(inner := getattr(net, "_orig_mod", None), nn.Module):  # of torch.compile
            net = inner
        elif callable(base := getattr(net, "get_base_model", None)):  # of peft
            net = base()
        else:
            break
    return net


def _config(kind: str, plain: Any) -> Any:
    """The config of a network that answers (x, t), or (x, t, prompts), for images."""
    if not _is_known(plain):
        raise PipelineError(
            f"the unet of {kind} is {described(plain)}, which is not known here; give its network to Denoiser as"
            " net(x, t), or use a pipeline with a UNet2DModel or UNet2DConditionModel"
        )
    config: Any = plain.config
    more = {key: getattr(config, key, None) for key in MORE}
    more["encoder_hid_proj"] = getattr(plain, "encoder_hid_proj", None)  # where an IP-Adapter is loaded
    for key, value in more.items():
        if value is not None:
            raise PipelineError(
                f"the unet of {kind} has {key}={shown(value)}, which is not known here; give its network to"
                " Denoiser as net(x, t)"
            )
    for processor in getattr(plain, "attn_processors", {}).values():
        if (name := type(processor).__name__).startswith(ATTENTION):
            raise PipelineError(
                f"the unet of {kind} attends by {name}, which is not known here; call its"
                " set_attn_processor(AttnProcessor2_0())"
            )
    channels = config.in_channels
    if config.out_channels not in (channels, 2 * channels):
        raise PipelineError(
            f"the unet of {kind} takes {channels} channels and returns {config.out_channels}; use a pipeline that"
            " starts from noise alone"
        )
    return config


def _size(kind: str, config: Any) -> tuple[int, int]:
    size = config.sample_size
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(n, int) for n in size):
        return size[0], size[1]
    raise PipelineError(
        f"the unet of {kind} has sample_size={shown(size)}; give it the height and width of its samples, as in"
        " pipe.unet.register_to_config(sample_size=(64, 64))"
    )
