"""The arguments of a pipeline's call: checked, for each prompt, and in words."""

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddim_ode.errors import unknown
from ddim_ode.integrations.embeddings import PipelineError
from ddim_ode.support.checks import described

#: arguments of a pipeline that are a solver's matter here
SOLVED = ("num_inference_steps", "sigmas", "timesteps", "latents", "denoising_start", "denoising_end")
STEPWISE = ("callback_on_step_end", "callback", "callback_steps")  # that know of steps, of which there are none here


def words_of(value: Any) -> Any:
    """An argument of a call in words that are the same for the same value; of many numbers, a digest of them."""
    if isinstance(value, torch.Generator):
        value = value.get_state()
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    if isinstance(value, list | tuple):
        return [words_of(one) for one in value]
    if isinstance(value, Mapping):
        return [(str(name), words_of(value[name])) for name in sorted(value, key=str)]
    if callable(getattr(value, "tobytes", None)):  # an array, or a picture of Pillow's
        return hashlib.sha256(value.tobytes()).hexdigest()
    return value if isinstance(value, str | int | float | type(None)) else type(value).__name__


def check_arguments(pipe: Any, call: Mapping[str, Any]) -> None:
    """Raise PipelineError for what a pipeline's call does not take, or would take without a word."""
    taken = [name for name in inspect.signature(type(pipe).__call__).parameters if name != "self"]
    for name in call:
        if name not in taken:
            raise PipelineError(f"{type(pipe).__name__}: {unknown('argument', name, taken)}")
    generator = call.get("generator")
    each = generator if isinstance(generator, list | tuple) else [generator]
    if not all(isinstance(one, torch.Generator | None) for one in each):
        raise PipelineError(f"generator is {described(generator)}; give a torch.Generator")


def calls_for(prompt: Any, negative_prompt: Any, call: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """The arguments of a call for every prompt, and whether there are several."""
    given = dict(call)
    for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if isinstance(value, Tensor):
            given[f"{name}_embeds"], value = value, None
        if value is not None or f"{name}_embeds" in given:
            given[name] = value  # None beside embeddings, whatever the pipeline has by default
    if isinstance(prompt, list | tuple):
        away = negative_prompt if isinstance(negative_prompt, list | tuple) else [negative_prompt] * len(prompt)
        if len(away) != len(prompt):
            raise PipelineError(f"{len(away)} negative prompts do not fit {len(prompt)} prompts; give one for each")
        others = [{} if one is None else {"negative_prompt": one} for one in away]
        return [{**given, "prompt": one, **other} for one, other in zip(prompt, others, strict=True)], True
    if isinstance(negative_prompt, list | tuple):
        raise PipelineError(f"{len(negative_prompt)} negative prompts do not fit one prompt; give one")
    if isinstance(prompt, Tensor) and len(prompt) > 1:
        return [{**given, "prompt_embeds": one} for one in prompt.split(1)], True
    return [given], False


def refuse_steps(call: Mapping[str, Any]) -> None:
    """Raise PipelineError for arguments that are a solver's matter, or told of its steps."""
    for name in STEPWISE:
        if call.get(name) is not None:
            raise PipelineError(f"{name} is told of steps, and a model is asked at any time; leave it out")
    for name in SOLVED:
        if call.get(name) is not None:
            raise PipelineError(f"{name} is what sample(...) decides here, by its nfe, grid and noise; leave it out")
