"""One model, one set of seeds: measuring cells on them, each once."""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ddim_ode.data import to_uint8
from ddim_ode.errors import DDIMError
from ddim_ode.metrics import MetricError, RealImages, consistency, default_features, feature_space, psnr, ssim
from ddim_ode.metrics.spaces import Features
from ddim_ode.models.conditional import unhurried
from ddim_ode.models.conditions import Conditions, labels_of
from ddim_ode.models.denoiser import Model, NonFiniteError
from ddim_ode.models.identity import fingerprint
from ddim_ode.models.provenance import innermost
from ddim_ode.planning.options import AUTO, DEFAULT_BATCH, SolveOptions
from ddim_ode.planning.plan import prepare
from ddim_ode.planning.profile import profile_of
from ddim_ode.sampling import sample_with
from ddim_ode.solvers import DivergedError, Solution
from ddim_ode.study.answers import Answers, Examiner, of_model
from ddim_ode.study.archive import Archive, Kept, digest_of
from ddim_ode.study.cells import Cell, Shared, StudyError
from ddim_ode.study.meter import Meter, forget_peak, peak_memory, synchronise
from ddim_ode.study.reference import ON_CPU, Part, Reference, rms_each, solved
from ddim_ode.study.roundtrip import round_trip
from ddim_ode.study.rows import CLEAR, LEAVES, Evaluations, GridCost, RoundTrip, Row, Timing, errors_of
from ddim_ode.support.counts import spread
from ddim_ode.support.records import finite

SHOWN = 8  # samples whose pictures are kept

#: called with what is at work and how far it is, 0 to 1
Tell = Callable[[str, float], None]
#: the row of a cell, and numbers of each sample
Found = tuple[Row, Mapping[str, Tensor]]


class Bench:
    """It measures the cells of a model, whose network `meter` watches.

    given: the model as it was given, whose network nothing watches.
    trusted: the model that the reference is solved with, in full precision where the given one is fast.
    began: when it was made, by `time.perf_counter`.
    identity: all that makes a folder one study's, in values that JSON can hold.
    answers: numbers of the model's predictions for fixed noise.
    """

    def __init__(
        self, model: Model, shared: Shared, real: Tensor | None = None, features: Features | None = None
    ) -> None:
        self.began, self.given, self.shared, self.meter = time.perf_counter(), model, shared, Meter()
        self.model, self.trusted = self.meter.watch(model), self.meter.watch(unhurried(model))
        latent = getattr(innermost(model), "latent", False)
        self.pictures = len(model.shape) == 3 and model.shape[0] in (1, 3) and not latent
        if real is not None and not self.pictures:
            raise StudyError(f"real images say nothing of samples of shape {model.shape}; leave real out")
        chosen = default_features(model.shape) if features is None else features
        self.space = feature_space(chosen, model.shape) if self.pictures else None
        self.real = None if real is None or self.space is None else RealImages(real, self.space)
        self.answers, self.examiner = of_model(model, shared.labels, self.space), Examiner(model, shared, self.pictures)
        options, labels = shared.options, labels_of(shared.labels)
        self.identity: dict[str, Any] = {
            "model": fingerprint(model),
            "device": model.device.type,
            "seeds": list(shared.seeds),
            "labels": None if labels is None else labels.tolist(),
            "guidance": options.guidance,
            "guidance_range": finite(options.guidance_range),
            "dtype": str(options.dtype).removeprefix("torch."),
            "reference_tol": shared.reference_tol,
            "features": self.space and self.space.name,
            "real": None if real is None else _digest(real),
        }
        if isinstance(shared.labels, Conditions):
            self.identity["conditions"] = shared.labels.digests()

    @property
    def batches(self) -> list[slice]:
        """The samples of the reference that are integrated at once, however many processes share them."""
        size, total = self.shared.options.batch_size or DEFAULT_BATCH, len(self.shared.seeds)
        size = min(size, ON_CPU) if self.given.device.type == "cpu" else size
        return [slice(first, min(first + size, total)) for first in range(0, total, size)]

    def part(self, rows: slice, tol: float, archive: Archive, tell: Callable[[float], None]) -> Part:
        """Some samples of the reference at one resolution, solved unless the archive has them."""
        s, parts = self.shared, archive.parts
        digest = digest_of({**self.identity, "part": [rows.start, rows.stop], "tol": tol})
        if kept := parts.get(digest, self._ask_reference):
            return Part(**kept.tensors)
        labels = None if s.labels is None else s.labels[rows]
        try:
            found = solved(self.trusted, s.options, s.seeds[rows], labels, tol, lambda now: tell(now.share))
        except NonFiniteError as error:
            error.sample += rows.start
            raise
        parts.put(digest, Kept(found._asdict(), {}), self._ask_reference)
        return found

    def kept_reference(self, archive: Archive) -> Reference | None:
        """The reference of the study, if the archive has it."""
        kept = archive.get(self._reference, self._ask_reference)
        return Reference(kept.tensors["x"], **kept.facts) if kept else None

    def keep_reference(self, archive: Archive, found: Reference) -> None:
        """Put it there."""
        facts = {name: value for name, value in found._asdict().items() if name != "x"}
        archive.put(self._reference, Kept({"x": found.x}, facts), self._ask_reference)

    @property
    def _reference(self) -> str:
        return digest_of({**self.identity, "reference": Reference._fields})

    def _ask_reference(self) -> Answers:
        return self.examiner.reference

    def row(self, cell: Cell, archive: Archive, reference: Reference, tell: Tell) -> Found:
        """The row of a cell and numbers of each sample, measured unless the archive has them."""
        ask = partial(self.examiner.of_cell, cell)
        if kept := self.kept_row(cell, archive, reference, ask):
            return kept
        undone = partial(Row, key=cell.key, kind=cell.kind, **cell.asked)
        try:
            row, tensors = self.measure(cell, reference, tell)
        except (NonFiniteError, DivergedError) as error:
            return undone(status="failed", reason=_line(error)), {}
        except DDIMError as error:
            return undone(status="skipped", reason=_line(error)), {}
        except Exception as error:  # out of memory, a network that cannot: the study goes on
            return undone(status="failed", reason=f"{type(error).__name__}: {_line(error)}"), {}
        archive.put(self._digest(cell), Kept(tensors, row.to_dict()), ask)
        return _judged(row, tensors, reference)

    def kept_row(
        self, cell: Cell, archive: Archive, reference: Reference, ask: Callable[[], Answers] | None = None
    ) -> Found | None:
        """What the archive has of a cell, for the answers of today or, without `ask`, as it is."""
        kept = archive.get(self._digest(cell), ask)
        return _judged(Row.from_dict(kept.facts), kept.tensors, reference) if kept else None

    def _digest(self, cell: Cell) -> str:
        batch = self.shared.options.batch_size
        facts = {"cell": cell.asked, "parameters": cell.parameters, "batch": batch, "row": LEAVES}
        return digest_of({**self.identity, **facts})

    def measure(self, cell: Cell, reference: Reference, tell: Tell) -> Found:
        """Sample, and compare with the reference. Raises as `sample`."""
        options, cost = self._placed(cell)
        found, timing = self._timed(cell, options, tell)
        x = found.x.cpu().double()
        tensors = {"nfe": found.nfe} | ({} if cell.noisy else {"error": rms_each(x - reference.x)})
        if self.space:
            tensors["shown"] = shown(x)
        row = Row(
            key=cell.key,
            kind=cell.kind,
            **cell.asked,
            status="done",
            measured_nfe=Evaluations(**spread(found.nfe).model_dump()),
            steps=float(found.steps.double().mean()),
            found_tol=found.tol if cell.tol is None else None,
            grid_cost=cost,
            not_converged=int((~found.converged).sum()),
            **self._likeness(cell, x, reference.x),
            reconstruction=self._round_trip(cell, reference.x) if cell.invertible else None,
            timing=timing,
        )
        return row, tensors

    def _placed(self, cell: Cell) -> tuple[SolveOptions, GridCost | None]:
        """The options of a cell with the tolerance, or the grid, that is looked for first, and what the grid has cost.

        Neither is a part of what sampling costs.
        """
        s, options = self.shared, cell.options(self.shared.options)
        plan = partial(prepare, self.model, count=len(s.seeds), labels=s.labels, seeds=s.seeds)
        if cell.method.adaptive and cell.nfe:
            return replace(options, nfe=None, tol=plan(options=options).tol), None
        if cell.grid != AUTO or cell.noisy or cell.method.exact:  # of which the last two are refused such a grid
            return options, None
        like = plan(options=replace(options, grid="logistic"))  # the model, guided if it is to be
        profile = profile_of(like.model, like.labels is not None)
        before = self.meter.evaluations
        sigmas = plan(options=replace(options, grid=profile)).sigmas
        cost = GridCost(profile.evaluations, self.meter.evaluations - before)
        return replace(options, nfe=None, grid=sigmas), cost

    def _timed(self, cell: Cell, options: SolveOptions, tell: Tell) -> tuple[Solution, Timing]:
        s, device = self.shared, self.model.device
        forget_peak(device)
        synchronise(device)
        begin = time.perf_counter()
        found = sample_with(
            *(self.model, options),
            seeds=s.seeds,
            labels=s.labels,
            callback=lambda now: tell(cell.key, now.share),
        )
        synchronise(device)
        seconds = time.perf_counter() - begin
        return found, Timing(seconds, len(s.seeds) / seconds, peak_memory(device))

    def _likeness(self, cell: Cell, x: Tensor, reference: Tensor) -> dict[str, Any]:
        """How samples compare with the reference's and with real images, where they are pictures."""
        facts: dict[str, Any] = {}
        if self.space is None:
            return facts
        with suppress(MetricError):  # of one sample, or of features that are all the same
            facts["consistency"] = float(consistency(x, reference, self.space).mean())
        if not cell.noisy:
            facts |= {"psnr": float(psnr(x, reference).mean()), "ssim": float(ssim(x, reference).mean())}
        return facts | {"distribution": self.real and self.real.distribution(x)}

    def _round_trip(self, cell: Cell, reference: Tensor) -> RoundTrip | None:
        """The loss of the reference's first images; None for a budget that is enough to sample and not to encode."""
        s, x = self.shared, reference[:SHOWN]
        x = x.clamp(-1, 1) if self.pictures else x
        with suppress(DDIMError):
            return round_trip(self.model, x, cell.options(s.options), None if s.labels is None else s.labels[:SHOWN])
        return None


def shown(x: Tensor) -> Tensor:
    """The bytes of the first samples."""
    return to_uint8(x[:SHOWN].cpu())


def _judged(row: Row, tensors: Mapping[str, Tensor], reference: Reference) -> Found:
    """A row with what its errors say, if it has any."""
    if "error" in tensors:
        errors = errors_of(tensors["error"])
        row = replace(row, error=errors, resolved=errors.median > CLEAR * reference.median)
    return row, tensors


def _digest(images: Tensor) -> str:
    return hashlib.sha256(images.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
