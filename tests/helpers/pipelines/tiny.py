"""What a pipeline of the zoo is, and the list of them."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import diffusers
import diffusers.utils.logging
import torch
import transformers
import transformers.utils.logging
from torch import Tensor

Kind = Literal["image", "video", "audio"]
# what numpy, torchsde and torch say of what diffusers does in a run: beginnings of warnings that mean nothing here
SAID = ("`timesteps` were passed", "Guiders are currently")  # in logs
WARNINGS = ("__array_", "Should have t", "In CPU autocast")


def first(output: Any) -> Tensor:
    """The first thing that a pipeline gives, as one tensor of floats."""
    if not isinstance(output, tuple):
        found = [getattr(output, field.name) for field in fields(output)]
        output = [value for value in found if value is not None]
    found = output[0]
    if isinstance(found, list):
        found = torch.stack([torch.as_tensor(one) for one in found])
    return torch.as_tensor(found).float()


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the libraries say of pipelines and networks that they deprecate."""
    logs = (diffusers.utils.logging, transformers.utils.logging)
    levels = [log.get_verbosity() for log in logs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            for log in logs:
                log.set_verbosity_error()
            yield
        finally:
            for log, level in zip(logs, levels, strict=True):
                log.set_verbosity(level)


@dataclass(frozen=True)
class Tiny:
    """`read(pipe(**call, num_inference_steps=..., generator=...))` is a tensor."""

    pipe: Any
    call: dict[str, Any]
    read: Callable[[Any], Tensor] = first
    flow: bool = False
    kind: Kind = "image"
    fits: bool = True  # the scheduler describes the ODE of a path x = a x0 + b eps, with a known prediction
    noisy: bool = True  # it starts from noise that it draws
    draws: bool = False  # not only from its generator: torch's own must be seeded, too

    @property
    def networks(self) -> dict[str, torch.nn.Module]:
        """Those that the sampling loop calls."""
        names = ("unet", "transformer", "transformer_2", "decoder", "prior", "dit")
        return {name: self.pipe.components[name] for name in names if self.pipe.components.get(name) is not None}


ZOO: dict[str, Callable[[], Tiny]] = {}


def entry(**about: Any) -> Callable[[Callable[[], tuple[Any, dict[str, Any]]]], Callable[[], Tiny]]:
    """Put a function that gives a pipeline and its arguments into the zoo, under its name."""

    def register(make: Callable[[], tuple[Any, dict[str, Any]]]) -> Callable[[], Tiny]:
        def build() -> Tiny:
            with quiet():
                pipe, call = make()
            pipe.set_progress_bar_config(disable=True)
            return Tiny(pipe, dict(call), **about)

        assert make.__name__ not in ZOO
        ZOO[make.__name__] = build
        return build

    return register
