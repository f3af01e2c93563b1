"""The parts of tiny pipelines: tokenizers, text encoders, autoencoders, UNets, inputs. Seeded, without a hub."""

from functools import partial
from typing import Any

import diffusers
import PIL.Image
import torch
import transformers
from torch import Tensor, nn

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- networks


def echo(share: float, mix: float, where: int, net: nn.Module, args: Any, options: Any, output: Any) -> Any:
    """A hook: the input is in the output, as a trained network's noise is."""
    name = "sample" if "sample" in options else "hidden_states"
    x = args[0] if args else options[name]
    answer = output[0]
    count = answer.shape[1]
    kept = torch.zeros_like(answer)
    seen = x[:, where : where + count]
    kept[:, : seen.shape[1]] = seen
    mixed = share * kept + mix * answer
    if isinstance(output, tuple):
        return (mixed, *output[1:])
    return type(output)(mixed)


def network(kind: Any, seed: int, **config: Any) -> Any:
    """A network of diffusers; all its weights count, and its answer is about as large as its input.

    Weights that training starts at zero are not zero here, so that what they gate reaches the output. What it makes of
    its time is smooth, as that of trained networks is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = kind(**config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
            elif not name.endswith("bias") and not (weight.isfinite().all() and weight.any()):
                weight.normal_(0, 0.5, generator=generator)
        for module in net.modules():
            if type(module).__name__ == "TimestepEmbedding":
                module.linear_1.weight.mul_(falling(module.linear_1.in_features))
    return net.eval().requires_grad_(False)


def falling(features: int) -> Tensor:
    """Weights of sines and cosines, (features,), by which those that turn within a few timesteps hardly count."""
    half = features // 2
    frequency = 1e4 ** (-torch.arange(half) / half)
    return torch.cat([1 / (1 + (frequency / 0.005) ** 2)] * 2 + [torch.ones(features - 2 * half)])


def scaled(net: Any, layer: str, factor: float) -> Any:
    """With one layer's weights this much larger."""
    net.get_submodule(layer).weight.mul_(factor)
    return net


def echoing(net: Any, share: float = 1.0, mix: float = 0.3, where: int = 0) -> Any:
    """For a network that predicts noise: without its input in its answer, sampling divides by a small alpha."""
    net.register_forward_hook(partial(echo, share, mix, where), with_kwargs=True)
    return net


def unet(seed: int = 1, **changes: Any) -> Any:
    """Latents (4, 8, 8), prompts (tokens, 32)."""
    shape = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16)}
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    size = {"layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4, "cross_attention_dim": 32}
    return network(diffusers.UNet2DConditionModel, seed, **{**shape, **blocks, **size, **changes})


def pixel_unet(seed: int = 2, **changes: Any) -> Any:
    """Images (3, 8, 8), no prompts."""
    shape = {"sample_size": 8, "in_channels": 3, "out_channels": 3, "block_out_channels": (8, 16)}
    blocks = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    size = {"layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
    return network(diffusers.UNet2DModel, seed, **{**shape, **blocks, **size, **changes})


def controlnet(seed: int = 3, **changes: Any) -> Any:
    config = {
        "in_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "conditioning_embedding_out_channels": (4, 8),
    }
    return network(diffusers.ControlNetModel, seed, **{**config, **changes})


ADAPTED = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def adapter(seed: int = 10) -> Any:
    """For a UNet of the blocks ADAPTED."""
    shape = {"in_channels": 3, "channels": [8, 16], "num_res_blocks": 1, "downscale_factor": 2}
    return network(diffusers.T2IAdapter, seed, **shape)


# --- autoencoders


def vae(latent: int = 4, levels: int = 2, **changes: Any) -> Any:
    """Images (3, 16, 16), latents (4, 8, 8)."""
    config = {
        "block_out_channels": (8, 16, 16, 16)[:levels],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "latent_channels": latent,
        "norm_num_groups": 4,
        "sample_size": 8 * 2 ** (levels - 1),
        "force_upcast": False,
    }
    return network(diffusers.AutoencoderKL, 4, **{**config, **changes})


def flow_vae(latent: int = 4, levels: int = 2, **changes: Any) -> Any:
    """As of Stable Diffusion 3 and Flux."""
    config = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.06, "scaling_factor": 1.5}
    return vae(latent, levels, **{**config, **changes})


def vq(latent: int = 3) -> Any:
    config = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
    }
    return network(diffusers.VQModel, 5, latent_channels=latent, **config)


# --- text


def clip_tokenizer(length: int = 16) -> Any:
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    vocab = {word: i for i, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=length)


def clip(projection: int | None = None, hidden: int = 32, seed: int = 6) -> Any:
    kind = transformers.CLIPTextModel if projection is None else transformers.CLIPTextModelWithProjection
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    layers = {"hidden_size": hidden, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = transformers.CLIPTextConfig(
        vocab_size=64, hidden_act="gelu", projection_dim=projection or hidden, **layers, **special
    )
    return network(kind, seed, config=config)


def t5_tokenizer(length: int = 16) -> Any:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -2.0), ("\u2581", -2.0)]
    vocab = special + [(letter, -3.0) for letter in LETTERS]
    return transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=length)


def t5(hidden: int = 32, seed: int = 7) -> Any:
    config = transformers.T5Config(vocab_size=64, d_model=hidden, d_ff=37, d_kv=8, num_heads=4, num_layers=2)
    return network(transformers.T5EncoderModel, seed, config=config)


def mask(*shape: int) -> Tensor:
    """Of a prompt's tokens: all count."""
    return torch.ones(*shape, dtype=torch.int64)


# --- pictures


def image(size: int = 16, channels: int = 3, seed: int = 8) -> Tensor:
    return torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(seed))


def hole(size: int = 16) -> Tensor:
    """The right half, (1, 1, size, size)."""
    return (torch.arange(size) >= size // 2).float().expand(1, 1, size, size).clone()


def picture(size: int = 16) -> PIL.Image.Image:
    return PIL.Image.fromarray((image(size)[0].permute(1, 2, 0) * 255).to(torch.uint8).numpy())


def hole_picture(size: int = 16) -> PIL.Image.Image:
    return PIL.Image.fromarray((hole(size)[0, 0] * 255).to(torch.uint8).numpy())
