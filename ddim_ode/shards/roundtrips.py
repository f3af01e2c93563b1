"""What becomes of a whole set of images on the way to their latents and back, by one process or many, by one method
after another.

    images = open_images("fashion-mnist")
    found = reconstruct_shards(model, images, "kept", methods=["exact_heun", "ddim"], labels=images.labels)
    for each in found or ():
        print(each.method, each.summary())

It returns the numbers in the first process, and None in the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_ode.errors import DDIMError
from ddim_ode.inversion import Reconstruction, encode, reconstruct
from ddim_ode.models.denoiser import Model
from ddim_ode.models.identity import fingerprint
from ddim_ode.planning.inputs import Labels, SampleError, check_model
from ddim_ode.planning.plan import Progress
from ddim_ode.shards.arguments import Images, defaults_of, filled, labels_of, plain, shard_size, total_of
from ddim_ode.shards.measuring import THREADS, UNWATCHED, Job, Numbers, Part, Watched, counted_from, measured
from ddim_ode.solvers import get_method
from ddim_ode.support.checks import described, flag
from ddim_ode.support.processes import Processes, processes
from ddim_ode.support.scalars import number

DEFAULTS = defaults_of(encode, "method", "guidance", "deterministic")
EACH = ("bit_exact", "same_bytes", "max_error", "rms", "mse", "psnr", "latent_mean", "latent_std", "normality")
SPENT = ("nfe_up", "nfe_down", "converged")


@dataclass(frozen=True, kw_only=True)
class RoundTrips:
    """A method, and what became of N images by it, without the images; or the reason why there is nothing.

    each: tensors (N,) by name, EACH as in `Reconstruction`; nfe_up and nfe_down, int64, of the way to the latent and of
        the way back; converged, bool. None where the method has failed.
    sigmas: where it has stepped, of an adaptive method its ends.
    """

    method: str
    guidance: float
    each: Mapping[str, Tensor] | None = None
    sigmas: tuple[float, ...] = ()
    error: str | None = None

    @property
    def name(self) -> str:
        return self.method if self.guidance == 1 else f"{self.method}_guidance_{self.guidance:g}"

    def summary(self) -> dict[str, Any]:
        """Over all images: counts of those that came back whole, the largest error and, of the others, the mean.

        The PSNR is that of the mean MSE; the latent's mean and standard deviation are those of all its values.
        """
        facts: dict[str, Any] = {"method": self.method, "guidance": self.guidance, "error": self.error}
        if self.each is None:
            return facts
        each = {name: values.double() for name, values in self.each.items()}
        mean, mse = each["latent_mean"].mean(), each["mse"].mean()
        variance = (each["latent_std"].square() + (each["latent_mean"] - mean).square()).mean()
        return facts | {
            "nfe_up": float(each["nfe_up"].mean()),
            "nfe_down": float(each["nfe_down"].mean()),
            "count": len(each["mse"]),
            "bit_exact": int(each["bit_exact"].sum()),
            "same_bytes": int(each["same_bytes"].sum()),
            "not_converged": int((1 - each["converged"]).sum()),
            "max_error": float(each["max_error"].max()),
            "rms": float(each["rms"].square().mean().sqrt()),
            "mse": float(mse),
            "psnr": float(-10 * mse.log10()),
            "latent_mean": float(mean),
            "latent_std": float(variance.sqrt()),
        }

    def details(self) -> dict[str, Any]:
        """The summary, and lists with an entry an image."""
        if self.each is None:
            return self.summary()
        lists = {name: self.each[name].tolist() for name in ("nfe_up", "nfe_down", *EACH)}
        return self.summary() | {"sigmas": list(self.sigmas), "each": lists}


def round_trips(
    model: Model, x: Tensor, method: str, guidance: float = 1.0, *, first: int = 0, **options: Any
) -> tuple[RoundTrips, Reconstruction | DDIMError]:
    """Reconstruct x (B, *shape); an adaptive method is not told nfe, the others not tol and max_nfe. `first` is the
    number of x[0] among all images.

    An error is a result. Raises DDIMError for a passing one, as of memory: it says nothing of the method.
    """
    idle = ("nfe",) if get_method(method).adaptive else ("tol", "max_nfe")
    told = {name: value for name, value in options.items() if name not in idle}
    try:
        with counted_from(first):
            found = reconstruct(model, x, method, guidance=guidance, **told)
    except DDIMError as error:
        if error.passing:
            raise
        return RoundTrips(method=method, guidance=guidance, error=" ".join(str(error).split())), error
    each = {name: getattr(found, name) for name in EACH}
    each |= {"nfe_up": found.latent.nfe, "nfe_down": found.solution.nfe, "converged": found.solution.converged}
    sigmas = tuple(found.latent.sigmas.tolist())
    return RoundTrips(method=method, guidance=guidance, each=each, sigmas=sigmas), found


def reconstruct_shards(
    model: Model,
    images: Images,
    keep: str | Path | None = None,
    *,
    methods: Sequence[str] = ("exact_heun",),
    guidances: Sequence[float] = (1.0,),
    labels: Labels = None,
    deterministic: bool = False,
    count: int | None = None,
    batch_size: int | None = None,
    threads: int = THREADS,
    here: Processes | None = None,
    watched: Watched = UNWATCHED,
    **options: Any,
) -> list[RoundTrips] | None:
    """Encode every image of a set, decode it, and compare, shard by shard by all processes of a run; one that was cut
    short goes on.

    The numbers are those of one call of `reconstruct` over all images with as many threads, bit for bit, whatever the
    number of processes. Images and latents are not kept.

    Args:
        model, deterministic: as in `encode`.
        images, keep, count, batch_size, threads, here, watched: as in `likelihood_shards`.
        methods: deterministic ones, by their names; each is tried with each of `guidances`.
        labels: (N,), or of the first `count`, or one int for all; None is the null class.
        options: the others of `encode` with its defaults, but for conditions and null: nfe for methods on a grid, tol
            and max_nfe for adaptive ones, grid, guidance_range, dtype.

    Returns:
        What became of the images in the first process, a value each method and guidance: a method that cannot be as
        asked, or fails at some image, has an error instead of numbers. None in the other processes.

    Raises:
        OutputError, ShardError, ProcessError: as `likelihood_shards`.
        DDIMError: as `encode`, where all methods fail.
    """
    here = here or processes()
    with here.together():
        check_model(model)
        flag("deterministic", deterministic)
        tried = _tried(methods, guidances)
        how = {**filled(options, DEFAULTS), "deterministic": deterministic, "batch_size": batch_size}
        total = total_of(images, count)
        facts = {"model": fingerprint(model), "device": model.device.type, "methods": list(methods)}
        job = Job(
            name="reconstruct",
            images=images,
            labels=labels_of(model, labels, images, total),
            total=total,
            size=shard_size(1 if deterministic else batch_size),
            threads=threads,
            facts={**facts, "guidances": [scale for _, scale in tried[: len(guidances)]], **plain(how)},
        )

        def measure(part: Part) -> Numbers:
            each: dict[str, Tensor] = {}
            made, failed = [], []
            for k, (method, scale) in enumerate(tried):
                watch = partial(_follow, part, k / len(tried))
                trips, found = round_trips(
                    model, part.x, method, scale, first=part.first, labels=part.labels, callback=watch, **how
                )
                made.append({"sigmas": trips.sigmas, "error": trips.error})
                each |= {f"{trips.name}/{name}": values for name, values in (trips.each or {}).items()}
                failed += [found] if isinstance(found, DDIMError) else []
            if len(failed) == len(tried):
                raise failed[0]
            return Numbers(each, {"tried": made})

        shards = measured(job, measure, keep, here, watched)
        return None if shards is None else [_joined(shards, k, *tried[k]) for k in range(len(tried))]


def _follow(part: Part, share: float, _: Progress) -> None:
    """The callback of a method, before which a share of the work was done."""
    part.done(len(part.x) * share)


def _tried(methods: Sequence[str], guidances: Sequence[float]) -> list[tuple[str, float]]:
    """Each method with each guidance. Raises MethodError for a name that is unknown, SampleError for what is none."""
    for method in methods:
        if not isinstance(method, str):
            raise SampleError(f"methods has {described(method)} in it; give names in METHODS")
        get_method(method)
    for name, values in (("methods", methods), ("guidances", guidances)):
        if not values:
            raise SampleError(f"{name} is empty; give at least one")
        if twice := [value for value in values if list(values).count(value) > 1]:
            raise SampleError(f"{name} has {twice[0]} in it twice; leave one of them out")
    return [(method, number(scale)) for method in methods for scale in guidances]


def _joined(shards: Sequence[Numbers], k: int, method: str, guidance: float) -> RoundTrips:
    """What all shards say of a method."""
    told = [shard.facts["tried"][k] for shard in shards]
    made = RoundTrips(method=method, guidance=guidance)
    if errors := [each["error"] for each in told if each["error"]]:
        return replace(made, error=errors[0])
    each = {name: torch.cat([shard.each[f"{made.name}/{name}"] for shard in shards]) for name in (*EACH, *SPENT)}
    return replace(made, each=each, sigmas=tuple(told[0]["sigmas"]))
