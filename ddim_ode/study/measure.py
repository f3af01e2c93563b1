"""One model, one set of seeds: measuring cells on them, each once."""

import hashlib
import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim_ode.data import to_uint8
from ddim_ode.errors import DDIMError
from ddim_ode.inversion import compared, decode, encode_with
from ddim_ode.metrics import RealImages, consistency, default_features, feature_space, psnr, ssim
from ddim_ode.metrics.checks import MetricError
from ddim_ode.metrics.spaces import Features, FeatureSpace
from ddim_ode.models.denoiser import Denoiser, Model, NonFiniteError
from ddim_ode.models.identity import fingerprint
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.planning.options import SolveOptions
from ddim_ode.planning.plan import prepare
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import DivergedError, Method
from ddim_ode.study.archive import Archive, Kept, digest_of
from ddim_ode.study.cells import Cell, StudyError
from ddim_ode.study.meter import Meter, forget_peak, peak_memory, synchronise
from ddim_ode.study.reference import Reference, rms_each, solve_reference
from ddim_ode.study.rows import CLEAR, Row, errors_of
from ddim_ode.support.counts import spread

SHOWN = 8  # samples whose pictures are kept

#: called with what is at work and the evaluations a sample that it has spent so far
Tell = Callable[[str, float], None]


class Setting(NamedTuple):
    """What all cells of a study share."""

    seeds: tuple[int, ...]
    labels: Tensor | None  # (B,)
    options: SolveOptions  # that a cell's own are added to
    reference_tol: float


class Bench:
    """Measures cells of a model; `meter` tells what went through its network."""

    def __init__(
        self,
        model: Model,
        methods: Mapping[str, Method],
        setting: Setting,
        real: Tensor | None = None,
        features: Features | None = None,
    ):
        self.methods, self.setting, self.meter = methods, setting, Meter()
        self.model = self.meter.watch(model)
        latent = isinstance(model, Denoiser) and model.info.get("latent", False)
        self.pictures = len(model.shape) == 3 and model.shape[0] in (1, 3) and not latent
        if real is not None and not self.pictures:
            raise StudyError(f"real images say nothing of samples of shape {model.shape}; leave real out")
        self.space = feature_space(features or default_features(model.shape), model.shape) if self.pictures else None
        self.answers = answers(model, self.space)
        self.real = None if real is None or self.space is None else RealImages(real, self.space)
        self.identity = {
            "model": fingerprint(model),
            "device": model.device.type,
            "seeds": list(setting.seeds),
            "labels": None if setting.labels is None else setting.labels.tolist(),
            "guidance": setting.options.guidance,
            "dtype": str(setting.options.dtype).removeprefix("torch."),
            "reference_tol": setting.reference_tol,
            "features": self.space and self.space.name,
            "real": None if real is None else _digest(real),
            "version": version("ddim_ode"),
        }

    def reference(self, archive: Archive, tell: Tell) -> Reference:
        """Solved once a study."""
        digest = digest_of({**self.identity, "reference": True})
        if not (kept := archive.get(digest)):
            s = self.setting
            found = solve_reference(
                *(self.model, s.options, s.seeds, s.labels, s.reference_tol),
                lambda run, now: tell(f"reference, resolution {run}", now.share),
            )
            facts = {name: value for name, value in found._asdict().items() if name != "x"}
            kept = Kept({"x": found.x.cpu()}, facts)
            archive.put(digest, kept)
        return Reference(kept.tensors["x"], **kept.facts)

    def row(self, cell: Cell, archive: Archive, reference: Reference, tell: Tell) -> tuple[Row, Kept | None]:
        """The row of a cell and its numbers, measured unless the archive has them."""
        common: dict[str, Any] = {"key": cell.key, "kind": self.kind(cell), **asdict(cell)}
        solver = re.sub(r" at 0x\w+", "", repr(self.methods[cell.method]))  # of functions, whose address is chance
        digest = digest_of(
            {**self.identity, "cell": asdict(cell), "method": solver, "batch": self.setting.options.batch_size}
        )
        kept = archive.get(digest)
        try:
            measured = kept or self.measure(cell, reference, tell)
        except (NonFiniteError, DivergedError) as error:
            return Row(**common, status="failed", reason=_line(error)), None
        except DDIMError as error:
            return Row(**common, status="skipped", reason=_line(error)), None
        except Exception as error:  # out of memory, a network that cannot: the study goes on
            return Row(**common, status="failed", reason=f"{type(error).__name__}: {_line(error)}"), None
        if not kept:
            kept = measured
            archive.put(digest, kept)
        errors = errors_of(kept.tensors["error"]) if "error" in kept.tensors else None
        resolved = None if errors is None else errors.median > CLEAR * reference.median
        return Row(**common, status="done", error=errors, resolved=resolved, **kept.facts), kept

    def kind(self, cell: Cell) -> str:
        """What is out of the ordinary about it."""
        method = self.methods[cell.method]
        noisy = bool(cell.eta) or not method.deterministic
        words = {
            "adaptive": method.adaptive,
            "coupled": not method.per_sample,
            "stochastic": noisy,
            "invertible": method.invertible and not noisy,
        }
        return ", ".join(word for word, holds in words.items() if holds)

    def measure(self, cell: Cell, reference: Reference, tell: Tell) -> Kept:
        """Sample, and compare with the reference. Raises as `sample`."""
        s, device, method = self.setting, self.model.device, self.methods[cell.method]
        options = replace(s.options, method=method, **cell.options())
        if method.adaptive and cell.nfe:  # to look for its tolerance is not a part of what sampling costs
            plan = prepare(self.model, options, len(s.seeds), labels=s.labels, seeds=s.seeds)
            options = replace(options, nfe=None, tol=plan.tol)
        forget_peak(device)
        synchronise(device)
        begin = time.perf_counter()
        found = sample_with(
            self.model,
            options,
            seeds=s.seeds,
            labels=s.labels,
            callback=lambda now: tell(cell.key, now.share),
        )
        synchronise(device)
        seconds = time.perf_counter() - begin
        memory = peak_memory(device)
        x = found.x.cpu().double()
        facts: dict[str, Any] = {
            "measured_nfe": spread(found.nfe).model_dump(),
            "steps": float(found.steps.double().mean()),
            "found_tol": found.tol if cell.tol is None else None,
            "not_converged": int((~found.converged).sum()),
            "timing": {
                "seconds": seconds,
                "images_per_second": len(x) / seconds,
                "peak_memory_mb": memory,
            },
        }
        tensors: dict[str, Tensor] = {"nfe": found.nfe}
        noisy = "stochastic" in self.kind(cell)
        if not noisy:
            tensors["error"] = rms_each(x - reference.x)
        if self.space:
            tensors["shown"] = shown(x)
            with suppress(MetricError):  # of one sample, or of features that are all the same
                facts["consistency"] = float(consistency(x, reference.x, self.space).mean())
            if not noisy:
                facts |= {"psnr": float(psnr(x, reference.x).mean()), "ssim": float(ssim(x, reference.x).mean())}
            facts["distribution"] = asdict(self.real.distribution(x)) if self.real else None
        if "invertible" in self.kind(cell):
            with suppress(DDIMError):  # it can be sampled at this budget, and not encoded
                facts["reconstruction"] = self.trip(cell, reference)
        return Kept(tensors, facts)

    def trip(self, cell: Cell, reference: Reference) -> dict[str, float]:
        """The reference's first images to latents and back."""
        s, few = self.setting, slice(0, SHOWN)
        x = reference.x[few]
        x = (x.clamp(-1, 1) if self.pictures else x).to(s.options.dtype)
        options = replace(
            s.options,
            method=self.methods[cell.method],
            nfe=cell.nfe,
            grid=cell.grid,
            final="sigma_min",
            batch_size=None,
        )
        labels = None if s.labels is None else s.labels[few]
        latent = encode_with(self.model, x, options, labels=labels)
        found = compared(x, latent, decode(self.model, latent))
        return {
            "rms": float(found.rms.square().mean().sqrt()),
            "bit_exact": float(found.bit_exact.double().mean()),
            "nfe_up": float(found.latent.nfe.double().mean()),
            "nfe_down": float(found.solution.nfe.double().mean()),
        }


def answers(model: Model, space: FeatureSpace | None) -> list[float]:
    """What a model says of fixed noise, and features of it: these tell functions apart, which no digest can."""
    x = seeded_noise((0, 1), model.shape).to(model.device)
    labels = torch.zeros(2, dtype=torch.int64, device=model.device) if model.num_classes else None
    low, high = max(model.sigma_min, 1e-3), min(model.sigma_max, 1e3)
    found = [model(sigma * x, sigma, labels).data.cpu() for sigma in (low, math.sqrt(low * high), high)]
    found += [] if space is None else [space(x.cpu())]
    return [float(value) for part in found for value in part.double().flatten(1)[:, :4].flatten()]


def shown(x: Tensor) -> Tensor:
    """The bytes of the first samples."""
    return to_uint8(x[:SHOWN].cpu())


def _digest(images: Tensor) -> str:
    return hashlib.sha256(images.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
