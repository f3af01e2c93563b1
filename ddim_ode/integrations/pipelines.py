"""A pipeline of diffusers as a model: `sample`, `encode`, `compare` and all the others work on it.

Every evaluation runs the pipeline's own code, see `integrations.sessions`. The few pipelines whose network can be
called directly, unconditional ones and Stable Diffusion's, are faster that way, and differentiable: see
`integrations.plain`.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode.checkpoints.frames import frame_of
from ddim_ode.checkpoints.scheduler_config import ScheduleError
from ddim_ode.integrations.calls import calls_for, check_arguments, refuse_steps, words_of
from ddim_ode.integrations.embeddings import PipelineError
from ddim_ode.integrations.plain import direct, obstacle
from ddim_ode.models import arguments
from ddim_ode.models.conditions import Told
from ddim_ode.models.denoiser import Denoiser, Prediction
from ddim_ode.support.checks import described, flag

__all__ = ["PipelineError", "PipelineModel", "from_pipeline"]

ALIKE, COARSE = 1e-3, 3e-2  # by how much two answers to one question may differ, of their size; in half precision
OTHERWISE = (
    "when it is asked the same alone; what its network is given may depend on the number of steps: leave such arguments"
    " out, or put an ODEScheduler into the pipeline"
)


class PipelineNetwork:
    """The suspended calls of a pipeline as net(x, t) or net(x, t, labels), a sample at a time; label n is call n."""

    def __init__(self, sessions: Sequence[Any]):
        self.sessions = sessions
        self.passes = [sessions[0].passes]  # of each sample, at the last call

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
        chosen = [self.sessions[label] for label in ([0] * len(x) if labels is None else labels.tolist())]
        found, self.passes = [], []
        for n, session in enumerate(chosen):
            out = session.ask(x[n : n + 1], float(t[n])).to(x)
            found.append(session.frame.answer(out, x[n : n + 1], session.frame.path.sigma(t[n].double().cpu())))
            self.passes.append(session.passes)
        return torch.cat(found)


@dataclass(frozen=True)
class PipelineModel(Denoiser):
    """A pipeline's own call as a model. Its guidance is the pipeline's, two passes of the network or more."""

    def evaluations(self, sigma: float) -> int:
        """Network passes that the last prediction has cost, and that the next is taken to cost."""
        return self._network.passes[-1]

    @property
    def _network(self) -> PipelineNetwork:
        """The pipeline inside of what may be around it, such as a study's clock."""
        found = inspect.unwrap(self.net)
        assert isinstance(found, PipelineNetwork)
        return found

    def __call__(self, xbar: Tensor, sigma: Tensor | float, labels: Told = None) -> Prediction:
        if torch.is_grad_enabled() and isinstance(xbar, Tensor) and xbar.requires_grad:
            raise PipelineError(
                "pipelines record no gradients; call the network directly, as from_pipeline does without arguments of"
                " the pipeline's call, or give it to Denoiser"
            )
        found = super().__call__(xbar, sigma, labels)
        passes = self._network.passes
        return found._replace(evaluations=passes[0] if len(set(passes)) == 1 else torch.tensor(passes))

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
        check_arguments(self._network.sessions[0].pipe, changes)
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
    Some seventeen evaluations are made here, to see that it answers as the pipeline itself does, whenever it is asked.

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
    scheduler = getattr(scheduler, "_original", None) or scheduler  # of one of ours
    try:
        return bool(frame_of(scheduler).path.num_timesteps)
    except ScheduleError:
        return True  # which a direct call says in its own words


def _suspended(pipe: Any, prompt: Any, negative_prompt: Any, quantize: bool, call: dict[str, Any]) -> PipelineModel:
    """The pipeline as a `PipelineModel`, asked a few things that it has computed itself."""
    from ddim_ode.integrations.sessions import Session

    check_arguments(pipe, call)
    refuse_steps(call)
    calls, several = calls_for(prompt, negative_prompt, call)
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
