"""A pipeline of diffusers as a model: `sample`, `encode`, `compare` and all the others work on it.

Every evaluation runs the pipeline's own code, see `integrations.sessions`. The few pipelines whose network can be
called directly, unconditional ones and Stable Diffusion's, are faster that way, and differentiable: see
`integrations.plain`.
"""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.checkpoints.frames import frame_of
from ddim_ode.checkpoints.scheduler_config import ScheduleError
from ddim_ode.errors import unknown
from ddim_ode.integrations.embeddings import PipelineError
from ddim_ode.integrations.plain import direct, obstacle
from ddim_ode.models import arguments
from ddim_ode.models.denoiser import Denoiser, Prediction
from ddim_ode.support.checks import described, flag

__all__ = ["PipelineError", "PipelineModel", "from_pipeline"]

ALIKE, COARSE = 1e-3, 3e-2  # by how much two answers to one question may differ, of their size; in half precision
OTHERWISE = (
    "when it is asked the same alone; what its network is given may depend on the number of steps: leave such arguments"
    " out, or put an ODEScheduler into the pipeline"
)
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


class PipelineNetwork:
    """The suspended calls of a pipeline as net(x, t) or net(x, t, labels), a sample at a time; label n is call n."""

    def __init__(self, sessions: Sequence[Any]):
        self.sessions = sessions
        self.passes = sessions[0].passes

    def __reduce__(self) -> Any:
        raise PipelineError("a pipeline's suspended calls cannot be copied or stored; call from_pipeline again")

    @cached_property
    def without_prompts(self) -> nn.Module:
        """The networks that any prompts could be given to, for which alone a method is tuned."""
        from ddim_ode.integrations.sessions import networks_of

        return nn.ModuleDict(networks_of(self.sessions[0].pipe))

    @property
    def facts(self) -> str:
        """What else its answers depend on, for a digest: the arguments of its calls."""
        return repr(
            [[(name, words_of(session.call[name])) for name in sorted(session.call)] for session in self.sessions]
        )

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        chosen = [0] * len(x) if labels is None else labels.tolist()
        return torch.cat([self._one(x[n : n + 1], t[n], self.sessions[label]) for n, label in enumerate(chosen)])

    def _one(self, x: Tensor, t: Tensor, session: Any) -> Tensor:
        out = session.ask(x, float(t)).to(x)
        self.passes = session.passes
        return session.frame.answer(out, x, session.frame.path.sigma(t.detach().double().cpu()))


@dataclass(frozen=True)
class PipelineModel(Denoiser):
    """A pipeline's own call as a model. Its guidance is the pipeline's, two passes of the network or more."""

    def evaluations(self, sigma: float) -> int:
        """Network passes that the last prediction has cost, and that the next is taken to cost."""
        return self._network.passes

    @property
    def _network(self) -> PipelineNetwork:
        """The pipeline inside of what may be around it, such as a study's clock."""
        found = inspect.unwrap(self.net)
        assert isinstance(found, PipelineNetwork)
        return found

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Tensor | None = None) -> Prediction:
        if torch.is_grad_enabled() and isinstance(xbar, Tensor) and xbar.requires_grad:
            raise PipelineError(
                "pipelines record no gradients; call the network directly, as from_pipeline does without arguments of"
                " the pipeline's call, or give it to Denoiser"
            )
        found = super().__call__(xbar, sigma, labels)
        return found._replace(evaluations=self.evaluations(0.0))

    def images(self, x: Tensor, labels: Sequence[int] | None = None, **changes: Any) -> list[Any]:
        """What the pipeline makes of samples (B, *shape) behind its loop: images, videos or sounds, one for each.

        Args:
            labels: which prompt each sample is of, where there are several.
            changes: arguments of the pipeline's call, such as output_type="pt".

        It decodes one by one, and each costs passes of one more prediction.

        Raises:
            PipelineError: samples of another shape.
        """
        if not isinstance(x, Tensor) or x.shape[1:] != self.shape:
            raise PipelineError(f"x is {described(x)}; give samples (B, {', '.join(map(str, self.shape))})")
        _check_arguments(self._network.sessions[0].pipe, changes)
        sessions = [self._network.sessions[label] for label in self._chosen(labels, len(x))]
        made = [session.finish(x[n : n + 1], changes) for n, session in enumerate(sessions)]
        return [_first(one, session.whole) for one, session in zip(made, sessions, strict=True)]

    def _chosen(self, labels: Any, count: int) -> list[int]:
        if labels is None and not self.num_classes:
            return [0] * count
        if labels is None:
            raise PipelineError(f"there are {self.num_classes} prompts; give the label of each sample")
        try:
            given = torch.as_tensor(labels)
        except (TypeError, ValueError, RuntimeError):
            raise PipelineError(f"labels are {described(labels)}; give a whole number for each sample") from None
        found = arguments.class_labels(given, count, self.num_classes, PipelineError)
        if (found == self.num_classes).any():
            raise PipelineError(f"label {self.num_classes} does not exist; labels are 0..{self.num_classes - 1}")
        return [int(label) for label in found]


def from_pipeline(
    pipe: Any,
    prompt: str | Sequence[str] | Tensor | None = None,
    negative_prompt: str | Tensor | None = None,
    quantize: bool = False,
    **call: Any,
) -> Denoiser:
    """A pipeline of diffusers as a model.

    With arguments of its call (`guidance_scale=5.0`, `image=...`, `prompt_embeds=...`), and always for pipelines whose
    network cannot be called directly, it is a `PipelineModel`: every evaluation runs the pipeline's own code, guidance
    and all, one sample at a time; all that a call makes at once is one sample. Several prompts are labels 0 to P - 1.
    The first evaluation is made here, and a few more to see that it answers as the pipeline itself does.

    Without such arguments, the network of an unconditional pipeline or of a `StableDiffusionPipeline` is called
    directly, in batches and differentiably. Its prompts are the labels, the negative one the null class, and there is
    no guidance but that of `sample(..., labels=n, guidance=7.5)`.

    Args:
        pipe: any pipeline whose scheduler `ODEScheduler.from_scheduler` takes.
        prompt: one or several, or for a direct call their embeddings (P, tokens, features).
        negative_prompt: what guidance leads away from; of a direct call a prompt, or its embedding (1, tokens,
            features). None is the empty prompt. Beside embeddings that this does not fit, or without a text encoder, it
            is no null class at all, so that there is no guidance.
        quantize: round timesteps, as some schedulers do.
        call: arguments of the pipeline's call, but for those that are a solver's matter here.

    The networks are shared, not copied. With an autoencoder in the pipeline, samples are latents of that, which
    `PipelineModel.images(x)` decodes, or `Autoencoder.from_diffusers(pipe.vae).to_image(...)`. Clipping, thresholding
    and eta of the scheduler are left out.

    Raises:
        PipelineError: a pipeline that cannot be asked about any sample at any time, because it changes samples between
            its steps, say, or depends on how many it has done; prompts or arguments that it cannot have.
        ArgumentError: no pipeline, or prompts that are neither strings nor a tensor.
        ScheduleError, DenoiserError: a schedule or a network that cannot be used.
    """
    flag("quantize", quantize)
    why = obstacle(pipe)
    if why is None and not call and (not callable(pipe) or _has_betas(pipe.scheduler)):
        return direct(pipe, prompt, negative_prompt, quantize)
    if not callable(pipe) or getattr(pipe, "scheduler", None) is None:
        raise why or PipelineError(f"{type(pipe).__name__} cannot be called with {', '.join(call)}; leave them out")
    return _suspended(pipe, prompt, negative_prompt, quantize, call)


def _has_betas(scheduler: Any) -> bool:
    try:
        return bool(frame_of(scheduler).path.num_timesteps)
    except ScheduleError:
        return True  # which a direct call says in its own words


def _suspended(pipe: Any, prompt: Any, negative_prompt: Any, quantize: bool, call: dict[str, Any]) -> PipelineModel:
    """The pipeline as a `PipelineModel`, asked a few things that it has computed itself."""
    from ddim_ode.integrations.sessions import Session

    _check_arguments(pipe, call)
    for name in STEPWISE:
        if call.get(name) is not None:
            raise PipelineError(f"{name} is told of steps, and a model is asked at any time; leave it out")
    for name in SOLVED:
        if call.get(name) is not None:
            raise PipelineError(f"{name} is what sample(...) decides here, by its nfe, grid and noise; leave it out")
    calls, several = _calls(prompt, negative_prompt, call)
    sessions = [Session(pipe, one) for one in calls]
    if not sessions:
        raise PipelineError(f"{type(pipe).__name__} is given no prompt; give one, or several")
    frame, first = sessions[0].frame, sessions[0].first
    model = PipelineModel(
        PipelineNetwork(sessions),
        frame.on_our_grids(),
        frame.predicts,
        sessions[0].shape,
        len(sessions) if several else 0,
        quantize=quantize,
        dtype=first.dtype,
        device=first.device,
        null_class=not several,
        latent=any(getattr(pipe, name, None) is not None for name in ("vae", "vqvae", "movq")),
    )
    _check_answers(pipe, calls[0], sessions[0])
    return model


def _check_arguments(pipe: Any, call: Mapping[str, Any]) -> None:
    """Raise PipelineError for what a pipeline's call does not take, or would take without a word."""
    taken = [name for name in inspect.signature(type(pipe).__call__).parameters if name != "self"]
    for name in call:
        if name not in taken:
            raise PipelineError(f"{type(pipe).__name__}: {unknown('argument', name, taken)}")
    generator = call.get("generator")
    each = generator if isinstance(generator, list | tuple) else [generator]
    if not all(isinstance(one, torch.Generator | None) for one in each):
        raise PipelineError(f"generator is {described(generator)}; give a torch.Generator")


def _calls(prompt: Any, negative_prompt: Any, call: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
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


def _check_answers(pipe: Any, call: Mapping[str, Any], session: Any) -> None:
    """Raise PipelineError where a session says something else than the pipeline has computed in a few steps."""
    from ddim_ode.integrations.sessions import CROSSED, Session, networks_of, recorded

    kind = type(pipe).__name__
    for name, network in networks_of(pipe).items():
        if getattr(network, "is_cache_enabled", False):
            raise PipelineError(f"the {name} of {kind} keeps a cache of its last steps; call its disable_cache()")
    # Not the sample that it begins with, which may be what some masks make of any.
    asked = 1.01 * session.one_of(session.first) + 0.01, session.began
    before = session.ask(*asked)
    for step, said in enumerate(recorded(pipe, call)):
        if not _alike(session.ask(session.one_of(said.sample), said.timestep), session.one_of(said.out)):
            raise PipelineError(f"{kind} answers otherwise in step {step + 1} of its own than {OTHERWISE}")
    crossing = Session(pipe, call, CROSSED)
    for _ in range(CROSSED - 1):
        if not _alike(crossing.ask(*asked), before):
            raise PipelineError(f"{kind} answers otherwise in some steps of its own than {OTHERWISE}")
    if not _alike(session.ask(*asked), before):
        raise PipelineError(
            f"{kind} changes its networks on its way, so that they answer otherwise afterwards; leave the arguments for"
            " that out, or put an ODEScheduler into the pipeline"
        )


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Whether two answers are the same but for rounding."""
    room = COARSE if expected.dtype in (torch.float16, torch.bfloat16) else ALIKE
    away = torch.linalg.vector_norm(found.float() - expected.float())
    return bool(away <= room * torch.linalg.vector_norm(expected.float()))


def _first(output: Any, whole: bool) -> Any:
    """The first picture, video or sound in what a pipeline returns, or all of them where they are one sample."""
    found = output[0] if isinstance(output, tuple) else next(iter(output.values()), output)
    return found[0] if not whole and (isinstance(found, list | tuple) or hasattr(found, "shape")) else found
