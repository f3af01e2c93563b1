"""Prompts as a network takes them: strings that a pipeline encodes, or embeddings that somebody has made.

One table for all of them, (prompts, tokens, features), and one more row at its end if there is a null class.
"""

from typing import Any

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import ArgumentError, described, shown


class PipelineError(DDIMError):
    """A pipeline that cannot be used here, or prompts that it cannot have."""


def embeddings(pipe: Any, features: Any, prompt: Any, negative: Any) -> tuple[Tensor, int]:
    """The table of a pipeline's prompts, the negative one last if there is one, and how many prompts there are.

    Args:
        features: of an embedding, as the config of the network says.
        prompt: a string, several, or embeddings (P, tokens, features).
        negative: a string, an embedding (1, tokens, features), or None: the empty prompt, if that can be had and fits.

    Raises:
        ArgumentError: something else.
        PipelineError: no prompt, embeddings that do not fit the network, or strings that nothing encodes.
    """
    prompts = _strings(pipe, prompt)
    if prompts is None:
        table = _checked(pipe, features, "prompt", prompt)
    if not isinstance(negative, str | Tensor | None):
        raise ArgumentError(
            f"negative_prompt is {described(negative)}; give a string or an embedding (1, tokens, features)"
        )
    encodes = _without(pipe) is None
    row = None
    if isinstance(negative, Tensor):
        row = _checked(pipe, features, "negative_prompt", negative)
        if (row != row[:1]).any():
            raise PipelineError(
                f"negative_prompt has {len(row)} different embeddings; give one for all prompts, (1, tokens, features)"
            )
    if prompts is not None:
        table, encoded = _encoded(pipe, prompts, negative if isinstance(negative, str) else "")
        row = encoded if row is None else row
    elif row is None and (negative is not None or encodes):
        row = _encoded(pipe, [str(negative or "")], "")[0]
    if row is not None and row.shape[1:] != table.shape[1:]:
        if negative is None:
            row = None
        else:
            raise PipelineError(
                f"negative_prompt has {row.shape[1]} tokens, and prompt has {table.shape[1]}; give embeddings of as"
                " many tokens for both"
            )
    return (table if row is None else torch.cat([table, row[:1]])), len(table)


def _strings(pipe: Any, prompt: Any) -> list[str] | None:
    """The prompts that are given as strings, or None where they are embeddings."""
    if isinstance(prompt, Tensor):
        return None
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if prompts is None or (isinstance(prompts, list | tuple) and not prompts):
        raise PipelineError(f"{type(pipe).__name__} needs a prompt; give prompt='...', or several")
    if not isinstance(prompts, list | tuple):
        raise ArgumentError(f"prompt is {described(prompts)}; give a string, several, or embeddings as a tensor")
    for n, one in enumerate(prompts):
        if not isinstance(one, str):
            raise ArgumentError(f"prompt[{n}] is {described(one)}; give strings, or embeddings of all as one tensor")
    return list(prompts)


def _checked(pipe: Any, features: Any, name: str, given: Tensor) -> Tensor:
    """Embeddings as the network computes with them."""
    wanted = f"(P, tokens, {features})" if isinstance(features, int) else "(P, tokens, features)"
    if given.ndim != 3 or 0 in given.shape or (isinstance(features, int) and given.shape[2] != features):
        raise PipelineError(f"{name} is {described(given)}; embeddings for this network have the shape {wanted}")
    if not given.is_floating_point() or not torch.isfinite(given).all():
        kind = str(given.dtype).removeprefix("torch.")
        raise PipelineError(f"{name} is {described(given)} of {kind}; embeddings are finite floats")
    return given.detach().to(_device(pipe), _dtype(pipe))


def _encoded(pipe: Any, prompts: list[str], negative: str) -> tuple[Tensor, Tensor]:
    """(prompts, tokens, features) and (1, tokens, features), as the pipeline encodes them."""
    if (missing := _without(pipe)) is not None:
        raise PipelineError(
            f"{type(pipe).__name__} has no {missing} for {shown(prompts[0])}; give embeddings (P, tokens, features) as"
            " prompt, and as negative_prompt for guidance"
        )
    with torch.no_grad():
        found = pipe.encode_prompt(
            prompts,
            device=_device(pipe),
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=[negative] * len(prompts),
        )
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise PipelineError(
            f"encode_prompt of {type(pipe).__name__} returns {described(found)} instead of embeddings and negative ones"
            "; give them as prompt and negative_prompt"
        )
    positive, other = found
    return positive.to(_device(pipe), _dtype(pipe)), other[:1].to(_device(pipe), _dtype(pipe))


def _without(pipe: Any) -> str | None:
    """What a pipeline lacks to encode a prompt; None where it can."""
    if not callable(getattr(pipe, "encode_prompt", None)):
        return "encode_prompt"
    if "encode_prompt" in vars(pipe):  # somebody's own, which may need neither
        return None
    return next((name for name in ("text_encoder", "tokenizer") if getattr(pipe, name, pipe) is None), None)


def _device(pipe: Any) -> torch.device:
    """Where the network computes, which is not where its parameters are if accelerate keeps them elsewhere."""
    return torch.device(getattr(pipe, "_execution_device", None) or next(pipe.unet.parameters()).device)


def _dtype(pipe: Any) -> torch.dtype:
    first: torch.dtype = next(pipe.unet.parameters()).dtype
    found = getattr(pipe.unet, "dtype", first)  # the first float, where others are quantized
    return found if isinstance(found, torch.dtype) else first
