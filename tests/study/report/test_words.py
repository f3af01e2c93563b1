"""How a page writes numbers, guidance, durations and lists."""

import pytest

from ddim_ode.study.report.page import guided, seconds, shortly
from ddim_ode.study.report.tables import in_digits


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
