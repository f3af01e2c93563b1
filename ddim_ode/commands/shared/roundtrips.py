"""From images to latents and back by several methods: what each costs and loses."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.inversion import Reconstruction, reconstruct
from ddim_ode.models.denoiser import Model
from ddim_ode.planning.inputs import SampleError
from ddim_ode.solvers import get_method

EACH = ("max_error", "rms", "mse", "psnr", "latent_mean", "latent_std", "normality")


@dataclass(frozen=True)
class Attempt:
    """A method, and what it came to: a reconstruction, or the reason why there is none."""

    method: str
    guidance: float
    result: Reconstruction | DDIMError
    seconds: float

    @property
    def name(self) -> str:
        return self.method if self.guidance == 1 else f"{self.method}_guidance_{self.guidance:g}"


def parse_methods(text: str, nfe: int | None, tol: float | None, max_nfe: int | None) -> list[str]:
    """Names between commas, for which the options given make sense. Raises MethodError, SampleError."""
    names = [name.strip() for name in text.split(",") if name.strip()] or [text]
    adaptive = [get_method(name).adaptive for name in names]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SampleError(f"method={text!r} names {twice[0]} twice; leave one of them out")
    if nfe is not None and all(adaptive):
        raise SampleError(f"nfe={nfe} is for methods on a grid; {text} takes tol")
    for name, value in [("tol", tol), ("max_nfe", max_nfe)]:
        if value is not None and not any(adaptive):
            raise SampleError(f"{name}={value!r} is for adaptive methods; {text} takes nfe")
    return names


def attempt(model: Model, x: Tensor, method: str, guidance: float = 1.0, **options: Any) -> Attempt:
    """Reconstruct x; an adaptive method is not told nfe, the others not tol and max_nfe, and an error is a result."""
    idle = ("nfe",) if get_method(method).adaptive else ("tol", "max_nfe")
    told = {name: value for name, value in options.items() if name not in idle}
    started = time.perf_counter()
    result: Reconstruction | DDIMError
    try:
        result = reconstruct(model, x, method, guidance=guidance, **told)
    except DDIMError as error:
        result = error
    return Attempt(method, guidance, result, time.perf_counter() - started)


def check_any(attempts: Sequence[Attempt]) -> None:
    """Raises the first method's error where all of them failed."""
    errors = [attempt.result for attempt in attempts if isinstance(attempt.result, DDIMError)]
    if len(errors) == len(attempts):
        raise errors[0]


def summary(attempt: Attempt) -> dict[str, Any]:
    """Over all images: counts of those that came back whole, the largest error and, of the others, the mean.

    The PSNR is that of the mean MSE; the latent's mean and standard deviation are those of all its values.
    """
    facts: dict[str, Any] = {"method": attempt.method, "guidance": attempt.guidance, "seconds": attempt.seconds}
    if isinstance(attempt.result, DDIMError):
        return facts | {"error": " ".join(str(attempt.result).split())}
    found, z = attempt.result, attempt.result.latent.noise.double()
    mse = found.mse.mean()
    return facts | {
        "error": None,
        "nfe_up": float(found.latent.nfe.double().mean()),
        "nfe_down": float(found.solution.nfe.double().mean()),
        "count": len(found.x),
        "bit_exact": int(found.bit_exact.sum()),
        "same_bytes": int(found.same_bytes.sum()),
        "not_converged": int((~found.solution.converged).sum()),
        "max_error": float(found.max_error.max()),
        "rms": float(found.rms.square().mean().sqrt()),
        "mse": float(mse),
        "psnr": float(-10 * mse.log10()),
        "latent_mean": float(z.mean()),
        "latent_std": float(z.std(correction=0)),
    }


def details(attempt: Attempt) -> dict[str, Any]:
    """The summary, and lists with an entry an image."""
    facts = summary(attempt)
    if isinstance(attempt.result, DDIMError):
        return facts
    found = attempt.result
    each = {name: getattr(found, name).tolist() for name in ("bit_exact", "same_bytes", *EACH)}
    return facts | {
        "sigmas": found.latent.sigmas.tolist(),
        "each": {"nfe_up": found.latent.nfe.tolist(), "nfe_down": found.solution.nfe.tolist(), **each},
    }


def draw_pictures(attempts: Sequence[Attempt], folder: Path) -> list[Path]:
    """A picture of every method that arrived: folder/<name>.png."""
    from ddim_ode.commands.shared.pictures import save_reconstruction

    files = []
    for attempt in attempts:
        if isinstance(attempt.result, Reconstruction):
            files.append(folder / f"{attempt.name}.png")
            save_reconstruction(attempt.result, _title(attempt), files[-1])
    return files


def _title(attempt: Attempt) -> str:
    facts = summary(attempt)
    name = attempt.method if attempt.guidance == 1 else f"{attempt.method}, guidance {attempt.guidance:g}"
    exact, count = facts["bit_exact"], facts["count"]
    quality = "all bit exact" if exact == count else f"{exact} of {count} bit exact, RMS error {facts['rms']:.2g}"
    return f"{name}: NFE {facts['nfe_up']:.4g} up, {facts['nfe_down']:.4g} down; {quality}"
