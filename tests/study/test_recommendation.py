"""Which method and grid to take: the best at a budget, the cheapest for an error."""

import pytest

from ddim_ode.planning.profile import profile_of
from ddim_ode.solvers import METHODS
from ddim_ode.study.cells import StudyError
from ddim_ode.study.comparison import compare
from ddim_ode.study.recommendation import CANDIDATES, LADDER, Recommendation, recommend
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tables import PATHS

MODEL = labelled((1, 6, 6)).denoiser(PATHS["linear"])


@pytest.fixture(scope="module")
def at_eight() -> Recommendation:
    return recommend(MODEL, nfe=8, seeds=range(6))


def test_at_a_budget_it_is_the_one_of_the_smallest_error(at_eight):
    found = at_eight
    errors = {row.key: row.error.median for row in found.study.rows if row.error}
    assert errors[found.row.key] == min(errors.values())
    assert found.reached
    again = compare(MODEL, [found.row.method], [8], range(6), grids=[found.row.grid], reference_tol=3e-3).rows[0]
    assert again.error.median == pytest.approx(found.row.error.median)


def test_every_method_is_tried_on_its_own_grid_and_on_one_that_is_made_for_it(at_eight):
    tried = {name: [row.grid for row in at_eight.study.rows if row.method == name] for name in CANDIDATES}
    own = {name: METHODS[name].grid for name in CANDIDATES}
    assert tried.pop("adaptive") == [None]
    assert tried == {name: [own[name], "auto"] for name in tried}
    assert at_eight.row.grid == "auto"  # of a mixture on DDPM's schedule, where it is better by far
    profile = profile_of(MODEL, True).evaluations
    for row in at_eight.study.rows:
        assert (row.grid_cost and row.grid_cost.profile) == (profile if row.grid == "auto" else None)


def test_labels_are_taken_in_turn_unless_told_otherwise(at_eight):
    assert at_eight.study.settings.labels == [0, 1, 2, 0, 1, 2]
    assert recommend(MODEL, nfe=2, seeds=range(2), labels=None).study.settings.labels is None


def test_for_an_error_it_is_the_cheapest_that_is_within_it():
    found = recommend(MODEL, tol=0.01, seeds=range(6))
    assert found.reached
    assert found.row.error.median <= 0.01
    cheaper = [
        row
        for row in found.study.rows
        if row.error and row.measured_nfe.mean < found.row.measured_nfe.mean and row.error.median <= 0.01
    ]
    assert cheaper == []
    tried = {row.nfe for row in found.study.rows if row.nfe}
    assert tried == {nfe for nfe in LADDER if nfe <= found.row.measured_nfe.mean}  # and nothing dearer
    assert {row.grid for row in found.study.rows if row.method == "adams2"} == {METHODS["adams2"].grid, "auto"}


@pytest.mark.parametrize(
    ("choices", "line"),
    [
        ({}, "give nfe, a budget, or tol, an error to accept, and not both"),
        ({"nfe": 5, "tol": 0.1}, "give nfe, a budget, or tol, an error to accept, and not both"),
        ({"tol": 2}, "tol=2 must be a number between 0 and 1"),
        ({"nfe": 0}, "nfe=0 must be a whole number >= 1"),
    ],
)
def test_a_question_that_cannot_be_answered_is_one_line(choices, line):
    assert line in one_line(StudyError, recommend, MODEL, **choices)
