"""Which method to take: the best at a budget, the cheapest for an error."""

import pytest

from ddim_ode.study.cells import StudyError
from ddim_ode.study.comparison import compare
from ddim_ode.study.recommendation import recommend
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tables import PATHS

MODEL = labelled((1, 6, 6)).denoiser(PATHS["linear"])


def test_at_a_budget_it_is_the_one_of_the_smallest_error():
    found = recommend(MODEL, nfe=8, seeds=range(6))
    errors = {row.key: row.error.median for row in found.study.rows if row.error}
    assert errors[found.row.key] == min(errors.values())
    assert found.reached
    again = compare(MODEL, [found.row.method], [8], range(6), reference_tol=3e-3).rows[0]
    assert again.error.median == pytest.approx(found.row.error.median)


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
