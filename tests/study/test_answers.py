"""A kept cell holds as long as what it was measured with answers as it did, and no longer."""

import dataclasses
import math
from typing import Any

import pytest
import torch

import ddim_ode
from ddim_ode.metrics import pairs
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import Method, Step, adaptive_adams, trajectories
from ddim_ode.solvers.reversible import ReversibleHeun
from ddim_ode.solvers.runge_kutta import RungeKutta
from ddim_ode.study import reference
from ddim_ode.study.answers import FINE, SEEDS, SMALL, Examiner, agree, questions, stand_in
from ddim_ode.study.cells import Cell, Shared, StudyError
from ddim_ode.study.comparison import Study, compare
from ddim_ode.support import versions
from ddim_ode.support.records import read_record, write_record
from tests.helpers.assertions import one_line
from tests.helpers.small_study import MODEL

FEW: dict[str, Any] = {"nfe": [16], "seeds": range(4), "reference_tol": 0.01}


def heun(weight: float) -> Method:
    """Heun's method as one would write it, right with a weight of 1/2, of which its repr says nothing."""

    @dataclasses.dataclass(frozen=True)
    class Own:
        to_zero = False

        def init(self, ode, sigmas, y):
            return None

        def step(self, ode, u0, u1, y, state):
            first = ode(u0, y)
            second = ode(u1, y + (u1 - u0) * first)
            return Step(y + (u1 - u0) * ((1 - weight) * first + weight * second), None)

    return dataclasses.replace(ddim_ode.METHODS["heun_angle"], solver=Own(), grid="uniform")


def spent(study: Study) -> float:
    """Evaluations a sample."""
    return study.timing.evaluations / 4


def test_a_solver_that_was_corrected_is_measured_again_and_nothing_else(tmp_path):
    assert repr(heun(0.9)) == repr(heun(0.5))
    wrong = compare(MODEL, {"own": heun(0.9), "ddim": "ddim"}, **FEW, out=tmp_path)
    corrected = compare(MODEL, {"own": heun(0.5), "ddim": "ddim"}, **FEW, out=tmp_path)
    fresh = compare(MODEL, {"own": heun(0.5)}, **FEW)
    assert corrected.rows[0].error == fresh.rows[0].error
    assert corrected.rows[0].error.median < wrong.rows[0].error.median / 2
    assert spent(corrected) == 15  # of 16: two a step, and one at the end
    assert corrected.rows[1] == wrong.rows[1]  # with the seconds it took


def test_a_class_that_was_corrected_in_place_is_too(tmp_path, monkeypatch):
    """As an editor does that reloads what was changed, so that the very same object computes something else."""
    own = heun(0.9)
    compare(MODEL, {"own": own}, **FEW, out=tmp_path)
    monkeypatch.setattr(type(own.solver), "step", type(heun(0.5).solver).step)
    corrected = compare(MODEL, {"own": own}, **FEW, out=tmp_path)
    assert corrected.rows[0].error == compare(MODEL, {"own": heun(0.5)}, **FEW).rows[0].error


def test_a_way_back_that_was_corrected_is_too(tmp_path, monkeypatch):
    """The samples are the same, and what comes back of an image is not."""
    with monkeypatch.context() as patch:
        resume = ReversibleHeun.resume
        patch.setattr(ReversibleHeun, "resume", lambda self, ode, s, kept: resume(self, ode, s, (kept[0], kept[0])))
        wrong = compare(MODEL, ["reversible_heun"], **FEW, out=tmp_path)
    corrected = compare(MODEL, ["reversible_heun"], **FEW, out=tmp_path)
    assert corrected.rows[0].error == wrong.rows[0].error
    assert corrected.rows[0].reconstruction == compare(MODEL, ["reversible_heun"], **FEW).rows[0].reconstruction
    assert corrected.rows[0].reconstruction.rms < wrong.rows[0].reconstruction.rms / 10


def test_an_upgrade_that_changes_a_number_measures_its_cells_again(tmp_path, monkeypatch):
    methods = ["heun_angle", "ddim"]
    before = compare(MODEL, methods, **FEW, out=tmp_path)
    monkeypatch.setattr(RungeKutta, "step", type(heun(0.6).solver).step)
    after = compare(MODEL, methods, **FEW, out=tmp_path)
    assert spent(after) == 15
    assert after.rows[0].error.median > before.rows[0].error.median
    assert after.rows[1] == before.rows[1]


def test_an_upgrade_that_changes_none_measures_nothing(tmp_path, monkeypatch):
    before = compare(MODEL, ["ddim", "exact_heun", "sde_euler"], **FEW, out=tmp_path)
    monkeypatch.setattr(versions, "version", lambda name: "9.9")
    renamed = dataclasses.replace(ddim_ode.METHODS["ddim"], summary="as it is called from now on")
    methods = {"ddim": renamed, "exact_heun": "exact_heun", "sde_euler": "sde_euler"}
    after = compare(MODEL, methods, **FEW, out=tmp_path)
    assert spent(after) == 0
    assert after.rows == before.rows
    assert after.versions["ddim_ode"] == "9.9"


def test_the_folder_of_another_version_goes_on(tmp_path):
    """study.json named the version once."""
    before = compare(MODEL, ["ddim"], **FEW, out=tmp_path)
    identity = read_record(tmp_path / "study.json")
    del identity["guidance_range"]
    write_record(tmp_path / "study.json", "ddim_ode study 1", identity | {"version": "0.0.9"})
    assert compare(MODEL, ["ddim"], **FEW, out=tmp_path).rows == before.rows


def test_another_reference_measures_every_cell_again(tmp_path, monkeypatch):
    before = compare(MODEL, ["ddim"], **FEW, out=tmp_path)
    monkeypatch.setattr(reference, "FINER", 1 / 30)
    after = compare(MODEL, ["ddim"], **FEW, out=tmp_path)
    assert after.reference.tol < before.reference.tol
    assert spent(after) > 16 + after.reference.nfe_mean
    assert after.rows[0].error != before.rows[0].error


def test_another_metric_measures_the_cells_again_and_not_the_reference(tmp_path, monkeypatch):
    before = compare(MODEL, ["ddim"], **FEW, out=tmp_path)
    monkeypatch.setattr(pairs, "K2", 0.06)
    after = compare(MODEL, ["ddim"], **FEW, out=tmp_path)
    assert spent(after) == 16
    assert after.rows[0].ssim != before.rows[0].ssim


def test_a_cell_of_an_earlier_format_is_measured_again(tmp_path):
    before = compare(MODEL, ["ddim"], **FEW, out=tmp_path)
    for file in (tmp_path / "cells").iterdir():
        file.write_bytes(file.read_bytes().replace(b'"answers"', b'"nothing"'))
    again = compare(MODEL, ["ddim"], **FEW, out=tmp_path)
    assert again.timing.evaluations == before.timing.evaluations


def picky(weight: float, wrong: Exception) -> Method:
    """Heun's method that raises on two samples at once, and so on those that it is asked for."""

    @dataclasses.dataclass(frozen=True)
    class Picky:
        order: int = 2
        to_zero = False

        def init(self, ode, sigmas, y):
            return None

        def step(self, ode, u0, u1, y, state):
            if len(y) == len(SEEDS):
                raise wrong
            return heun(weight).solver.step(ode, u0, u1, y, state)

    return dataclasses.replace(heun(weight), solver=Picky())


def test_a_solver_for_large_images_alone_that_was_corrected_is_measured_again(tmp_path):
    """Its repr says nothing of what was wrong."""

    class Large(RungeKutta):
        def __init__(self, weight):
            object.__setattr__(self, "own", heun(weight).solver)

        def __repr__(self):
            return "Large()"

        def step(self, ode, u0, u1, y, state):
            if y.shape[-1] == 2:
                raise ValueError("such a small image")
            return self.own.step(ode, u0, u1, y, state)

    wrong, right = (dataclasses.replace(heun(weight), solver=Large(weight)) for weight in (0.9, 0.5))
    before = compare(MODEL, {"own": wrong}, **FEW, out=tmp_path)
    assert spent(compare(MODEL, {"own": wrong}, **FEW, out=tmp_path)) == 0
    after = compare(MODEL, {"own": right}, **FEW, out=tmp_path)
    assert spent(after) == 15
    assert after.rows[0].error == compare(MODEL, {"own": right}, **FEW).rows[0].error
    assert after.rows[0].error.median < before.rows[0].error.median / 2


def test_a_solver_that_cannot_answer_is_measured_every_time(tmp_path):
    """What is wrong with it may be wrong here alone, so its words say nothing of its samples."""
    wrong, right = (picky(weight, ValueError("two are too few")) for weight in (0.9, 0.5))
    assert repr(wrong) == repr(right)
    before = compare(MODEL, {"own": wrong, "ddim": "ddim"}, **FEW, out=tmp_path)
    after = compare(MODEL, {"own": right, "ddim": "ddim"}, **FEW, out=tmp_path)
    assert [row.status for row in after.rows] == ["done", "done"]
    assert spent(after) == 15
    assert after.rows[0].error.median < before.rows[0].error.median / 2
    assert after.rows[1] == before.rows[1]


def test_the_words_of_an_error_of_ours_are_an_answer(tmp_path):
    """A budget that is refused is refused again."""
    refusing = picky(0.5, ddim_ode.DDIMError("two are too few"))
    compare(MODEL, {"own": refusing}, **FEW, out=tmp_path)
    assert spent(compare(MODEL, {"own": refusing}, **FEW, out=tmp_path)) == 0


def test_parameters_of_a_solver_are_a_part_of_a_cell(tmp_path):
    """Even where it answers alike. Where an object lies in memory is no parameter."""

    def method(solver: Any) -> Method:
        return dataclasses.replace(picky(0.5, ddim_ode.DDIMError("no")), solver=solver)

    own = picky(0.5, ddim_ode.DDIMError("no")).solver
    compare(MODEL, {"own": method(own)}, **FEW, out=tmp_path)
    assert spent(compare(MODEL, {"own": method(dataclasses.replace(own, order=3))}, **FEW, out=tmp_path)) == 15

    class Plain(RungeKutta):
        __repr__ = object.__repr__

    first, second = Plain("euler"), Plain("euler")
    assert repr(first) != repr(second)
    euler = ddim_ode.METHODS["euler"]
    compare(MODEL, {"plain": dataclasses.replace(euler, solver=first)}, **FEW, out=tmp_path)
    assert spent(compare(MODEL, {"plain": dataclasses.replace(euler, solver=second)}, **FEW, out=tmp_path)) == 0


@pytest.mark.parametrize(("shape", "alike"), [((3, 64, 64), False), ((1, 28, 28), True)])
def test_a_rule_for_large_images_shows_where_they_are_large(shape, alike, monkeypatch):
    model = stand_in(dataclasses.replace(MODEL, shape=shape))
    asked = [cell("adaptive", 20), cell("adaptive", None, 0.01)]
    before = [examiner(model).of_method(one) for one in asked]
    for module in (adaptive_adams, trajectories):
        monkeypatch.setattr(module, "LARGE", 4 * trajectories.LARGE)
    after = [examiner(model).of_method(one) for one in asked]
    assert [agree(a, b) for a, b in zip(before, after, strict=True)] == [alike, alike]
    assert max(map(len, before)) < 60


def test_a_range_of_guidance_is_a_part_of_a_study(tmp_path):
    guided = FEW | {"labels": [0, 1, 2, 0], "guidance": 2.0, "out": tmp_path}
    compare(MODEL, ["ddim"], **guided, guidance_range=(1.0, float("inf")))
    line = one_line(StudyError, compare, MODEL, ["ddim"], **guided)
    assert "its guidance_range is [1.0, null], not null" in line


def test_the_samples_that_are_asked_for_are_not_as_many_as_those_of_these_studies():
    """`picky` tells them apart by their number."""
    assert len(SEEDS) != len(FEW["seeds"])


def examiner(model=MODEL, **options: Any) -> Examiner:
    return Examiner(model, Shared((0,), torch.tensor([0]), SolveOptions(**options), 0.01), pictures=True)


def cell(name: str, nfe: int | None = 10, tol: float | None = None, grid: str | None = None) -> Cell:
    return Cell(name, ddim_ode.METHODS[name], grid, nfe, tol, None)


def test_options_change_what_is_answered():
    ask = examiner().of_method
    plain = ask(cell("adams2"))
    others = [
        ask(cell("adams3")),
        ask(cell("adams2", 12)),
        ask(cell("adams2", grid="karras")),
        ask(dataclasses.replace(cell("ddim"), eta=1.0)),
        examiner(guidance=2.0).of_method(cell("adams2")),
        examiner(dtype=torch.float64).of_method(cell("adaptive", None, 1e-8)),
    ]
    answers = [plain, *others]
    assert all(isinstance(value, float) for found in answers for value in found)
    assert not any(agree(a, b) for n, a in enumerate(answers) for b in answers[:n])
    assert agree(ask(cell("ipndm_v")), ask(cell("lms")))  # the same method under two names
    assert agree(examiner(Guided(MODEL, 2.0)).of_method(cell("adams2")), others[4])  # a model that is guided already


def test_a_tolerance_is_looked_for_at_a_small_budget_alone():
    assert questions(cell("adaptive", 50)) == [cell("adaptive", SMALL), cell("adaptive", None, FINE)]
    assert questions(cell("adaptive", 4))[0] == cell("adaptive", 4)
    assert questions(cell("adaptive", None, 1e-5)) == [cell("adaptive", None, 1e-5)]
    assert questions(cell("ddim", 50)) == [cell("ddim", 50)]


def test_the_stand_in_visits_the_same_sigmas():
    small = stand_in(MODEL)
    assert (small.path, small.shape, small.num_classes) == (MODEL.path, MODEL.shape, 2)


@pytest.mark.parametrize(
    ("before", "now", "hold"),
    [
        ([1.0, 0.0], [1.0 + 2e-6, 3e-7], True),
        ([1.0, 0.0], [1.0 + 3e-5, 0.0], False),
        ([1.0], [1.0, 2.0], False),
        ([1.0, "ValueError: no"], [1.0, "ValueError: no"], True),
        ([1.0, "ValueError: no"], [1.0, 2.0], False),
        (["ValueError: no"], ["ValueError: yes"], False),
        ([1.0, math.nan], [1.0, math.nan], False),
    ],
)
def test_answers_hold_up_to_rounding(before, now, hold):
    assert agree(before, now) == hold
