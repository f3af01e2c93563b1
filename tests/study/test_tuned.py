"""Tuned methods in studies: a budget takes the largest of their grids, and only of their own model and guidance."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ddim_ode import Method, compare, load, recommend, sample, save_tuned
from ddim_ode.planning.tuned_files import TunedError, tuned_to
from ddim_ode.solvers import METHODS
from ddim_ode.solvers.tuned import tabulated
from ddim_ode.study import answers
from ddim_ode.study.cells import Cell, StudyError, cells_of, named
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tables import PATHS
from tests.helpers.tuned import FIVE, THREE, ddim_table, grids_for, model_with_tables, tables_for

MODEL = labelled((1, 6, 6)).denoiser(PATHS["linear"])
SMALL = {"seeds": range(3), "labels": None, "reference_tol": 2e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_tables(tmp_path_factory.mktemp("tuned") / "tiny")


def cell(method: Method) -> Cell:
    return Cell("mine", method, None, 5, None, None)


def test_each_budget_takes_the_largest_of_its_tables():
    method = tables_for(MODEL)
    study = compare(MODEL, {"mine": method, "ddim": "ddim"}, [2, 3, 4, 50], grids=["own", "karras"], **SMALL)
    rows = {row.nfe: row for row in study.rows if row.method == "mine"}
    assert len(study.rows) == 4 + 8  # on no grid but its own
    assert (rows[2].status, rows[2].measured_nfe) == ("skipped", None)
    assert rows[2].reason.startswith("nfe=2 is too small: a tuned method has grids for 3, 5 evaluations")
    assert [rows[nfe].measured_nfe.mean for nfe in (3, 4, 50)] == [3, 3, 5]
    assert {row.grid for row in rows.values()} == {None}
    assert rows[3].kind == "tuned"
    assert study.settings.own_grids == {"ddim": METHODS["ddim"].grid}


def test_grids_that_were_tuned_stand_beside_named_ones():
    method = grids_for(MODEL, "adams2")
    study = compare(MODEL, {"mine": method}, [5], grids=["own", "karras"], **SMALL)
    assert [(row.grid, row.status) for row in study.rows] == [(None, "done"), ("karras", "done")]
    explicit = sample(MODEL, "adams2", grid=[*FIVE, 0.0], seeds=range(3)).x
    assert torch.equal(sample(MODEL, method, 5, range(3)).x, explicit)
    assert study.rows[0].error.median != study.rows[1].error.median


def test_another_model_or_guidance_is_a_row_that_says_so():
    method = tables_for(MODEL, guidance=2.0)
    study = compare(MODEL, {"mine": method}, [10], seeds=range(2), reference_tol=2e-2)
    assert "tuned with guidance=2, and is to run without guidance" in study.rows[0].reason
    study = compare(MODEL, {"mine": method}, [10], seeds=range(2), reference_tol=2e-2, guidance=2.0)
    assert study.rows[0].measured_nfe.mean == 10
    forced = replace(method, origin=replace(method.origin, forced=True))
    assert compare(MODEL, {"mine": forced}, [10], **SMALL).rows[0].status == "done"


def test_what_is_kept_is_of_these_grids_and_numbers(tmp_path):
    first, other = tables_for(MODEL, THREE), tables_for(MODEL, (20.0, 2.0, 0.4))
    runs = [compare(MODEL, {"mine": method}, [3], out=tmp_path, **SMALL) for method in (first, other, first)]
    errors = [study.rows[0].error.median for study in runs]
    assert errors[0] == errors[2] != errors[1]
    assert runs[0].timing.evaluations > runs[2].timing.evaluations == 0
    assert cell(grids_for(MODEL, "ddim", THREE)).parameters != cell(grids_for(MODEL, "ddim", FIVE)).parameters
    assert str(METHODS["ddim"].grid) in cell(METHODS["ddim"]).parameters


def test_a_table_answers_on_the_mixture_too():
    """Else a solver that was corrected would leave old rows as they are."""
    bench = compare(MODEL, {"mine": tables_for(MODEL)}, [3], **SMALL)
    assert bench.rows[0].status == "done"
    shared = answers.Shared((0, 1), None, answers.SolveOptions(), 2e-2)
    examiner = answers.Examiner(MODEL, shared, False)
    found = examiner.of_method(cell(tables_for(labelled().denoiser(PATHS["cosine"]))))
    assert all(isinstance(number, float) for number in found)


def test_tuned_is_the_one_beside_the_model(folder):
    model = load(folder)
    study = compare(model, ["tuned", "ddim"], [5], seeds=range(2), reference_tol=5e-2)
    assert [row.status for row in study.rows] == ["done", "done"]
    assert study.row("tuned|-|nfe=5").measured_nfe.mean == 5
    assert named({"mine": "tuned"}, model) == {"mine": tuned_to(model)}
    assert "twice" in one_line(StudyError, named, ["tuned", "tuned"], model)
    assert "not loaded from a folder" in one_line(TunedError, compare, MODEL, ["tuned"], [5])
    assert len(cells_of({"mine": tuned_to(model)}, [5], [], ["all", "auto", "own"], [])) == 1


# --- recommend


def tried(model, **how) -> dict[int | None, float]:
    found = recommend(model, seeds=range(2), **how)
    return {row.nfe: row.measured_nfe.mean for row in found.study.rows if row.method == "tuned"}


def test_recommend_tries_it_where_it_fits(folder, monkeypatch):
    monkeypatch.setattr("ddim_ode.study.recommendation.CANDIDATES", ("ddim",))
    monkeypatch.setattr("ddim_ode.study.recommendation.GRIDS", ("own",))
    model = load(folder)
    assert tried(model, nfe=4) == {4: 3}
    assert tried(model, nfe=2) == {}  # it costs more
    assert tried(model, nfe=6, guidance=2.0) == {}  # it was not tuned with that


def test_recommend_says_that_a_file_is_damaged(tmp_path):
    folder = model_with_tables(tmp_path / "tiny")
    (folder / "tuned.json").write_text("{}")
    assert "no sealed file" in one_line(TunedError, recommend, load(folder), nfe=4, seeds=range(1))


def test_recommend_takes_it_where_it_is_best_and_climbs_its_own_ladder(folder, monkeypatch):
    model = load(folder)
    monkeypatch.setattr("ddim_ode.study.recommendation.CLIMBERS", ("ddim",))
    monkeypatch.setattr("ddim_ode.study.recommendation.LADDER", (4,))
    monkeypatch.setattr("ddim_ode.study.recommendation.GRIDS", ("karras",))
    assert tried(model, tol=0.9, labels=None) in ({3: 3.0}, {3: 3.0, 5: 5.0})


def test_it_can_win(tmp_path, monkeypatch):
    folder = model_with_tables(tmp_path / "tiny")
    model = load(folder)
    fine = [float(sigma) for sigma in torch.logspace(1.4, math.log10(1.01 * model.sigma_min), 40)]
    method = replace(tabulated([ddim_table(fine)]), origin=tables_for(model, fine).origin)
    save_tuned(method, folder / "tuned.json")
    monkeypatch.setattr("ddim_ode.study.recommendation.CANDIDATES", ("euler",))
    monkeypatch.setattr("ddim_ode.study.recommendation.GRIDS", ("uniform",))
    found = recommend(model, nfe=40, seeds=range(2))
    assert {row.method for row in found.study.rows} == {"euler", "tuned"}
    assert found.row.measured_nfe.mean == 40
