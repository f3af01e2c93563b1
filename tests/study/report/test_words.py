"""How the page and the terminal write numbers, guidance, durations, lists, and what a study was made on."""

from typing import Any

import pytest

from ddim_ode.study.report.tables import in_digits
from ddim_ode.study.report.words import chosen_on, grids_made, grouped, guided, names_of, seconds, shortly
from tests.helpers import study_example


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(
            (0.02184, "0.0218"),
            (1.2e-5, "1.2e-5"),
            (3.4e-4, "0.00034"),
            (0.9999, "1"),
            (99.96, "100"),
            (20291.0, "20300"),
        ),
        *((0, "0"), (2.0, "2"), (1.5e9, "1.5e9"), (-0.5, "-0.5"), (None, "–")),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert in_digits(value) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        (None, "2.0"),
        ([0.0, None], "2.0"),
        ([1.0, None], "2.0, where sigma is above 1"),
        ([0.0, 5.0], "2.0, where sigma is below 5"),
        ([0.28, 5.42], "2.0, where sigma is above 0.28 and below 5.42"),
    ],
)
def test_guidance_and_where_it_acts(ends, text):
    assert guided({"guidance": 2.0, "guidance_range": ends}) == text


def test_words_for_durations_and_lists():
    assert [seconds(x) for x in (2.73, 59.9, 431, 7384)] == ["2.7 s", "59.9 s", "7 min 11 s", "2 h 3 min"]
    assert shortly(range(64)) == "0 to 63"
    assert shortly([3, 1]) == "3, 1"
    assert shortly([]) == ""
    assert shortly([0, 1] * 8) == "0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, … (16 in all)"
    assert [grouped(n) for n in (7, 1234, 118_400)] == ["7", "1 234", "118 400"]


def test_what_a_method_was_chosen_on_is_a_sentence():
    assert chosen_on(study_example.results()) == (
        "Chosen on 64 seeds of fashion (cosine, 1000 timesteps, sigma 0.0064 to 20300), classes in turn, no guidance, "
        "at 5, 10, 20, 50 and 100 evaluations or at tolerance 0.001, 0.01 and 0.1, against adaptive settled to 0.001; "
        "on another model or setting another method may win."
    )


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("settings", {"seeds": [7], "labels": [3]}, "Chosen on 1 seed of fashion"),
        ("settings", {"labels": [3] * 64}, ", class 3, "),
        ("settings", {"labels": None}, ", the null class, "),
        ("settings", {"labels": [3, 4] * 32}, ", classes as given, "),
        ("settings", {"guidance": 2.0, "guidance_range": [1.0, None]}, ", guidance 2.0, where sigma is above 1, at 5"),
        ("settings", {"nfe": [10], "tols": []}, ", at 10 evaluations, against"),
        ("settings", {"nfe": [4, 6, 8, 10, 12, 15], "tols": [0.01]}, ", at 4 to 15 evaluations or at tolerance 0.01, "),
        ("settings", {"nfe": []}, "no guidance, at tolerance 0.001, "),
        ("model", {"classes": 0}, "sigma 0.0064 to 20300), at 5, "),
        ("model", {"sigma_min": 0.0, "sigma_max": None}, ", sigma 0 to infinity)"),
        ("model", {"name": "model", "schedule": "flow"}, "64 seeds of the model (flow, sigma"),
        ("reference", {"agreed": False}, "against adaptive that did not settle to 0.001; "),
    ],
)
def test_the_sentence_tells_what_is_not_as_usual(part: str, change: dict[str, Any], words: str):
    results = study_example.results()
    results[part] |= change
    assert words in chosen_on(results)


def on_grids(*grids: str) -> tuple[dict[str, Any], list[str]]:
    """The example with the row of adams4 at 10 evaluations on other grids too, and the keys of these rows."""
    results = study_example.results()
    row = next(row for row in results["rows"] if (row["method"], row["nfe"]) == ("adams4", 10))
    more = [row | {"key": f"adams4|{grid}", "grid": grid} for grid in grids]
    results["rows"] += more
    return results, [row["key"], *(row["key"] for row in more)]


def test_a_grid_that_is_not_the_methods_own_is_named():
    results, keys = on_grids("auto", "karras")
    adaptive = next(row["key"] for row in results["rows"] if row["method"] == "adaptive" and row["nfe"] == 10)
    assert names_of(results, [*keys, adaptive]) == ["adams4", "adams4 on auto", "adams4 on karras", "adaptive"]
    assert names_of(results, keys, keys[1]) == ["adams4", "adams4 on karras"]
    smaller = next(row["key"] for row in results["rows"] if (row["method"], row["nfe"]) == ("adams4", 5))
    assert names_of(results, [smaller], keys[0]) == []
    del results["settings"]["own_grids"]["adams4"]  # as of a study of before they were told
    assert names_of(results, keys[:2]) == ["adams4 on trailing_angle", "adams4 on auto"]


def test_what_grids_have_cost_is_told_with_the_profile_once():
    results, _ = on_grids("auto", "karras")
    assert grids_made(results["rows"]) is None
    for row, trials in zip(results["rows"][-2:], (240, 200), strict=True):
        row["grid_cost"] = {"profile": 1194, "trials": trials}
    assert grids_made(results["rows"]) == (
        "To make 2 grids for the model (auto) took 1,634 evaluations, once: 1,194 for its profile, 440 to try grids."
    )
