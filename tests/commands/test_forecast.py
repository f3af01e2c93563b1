"""How long a run will take: told once, and only of long ones."""

import pytest
import torch

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.forecast import Forecast, duration
from ddim_ode.planning.plan import Progress


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (600, "10 minutes"),
        (1860, "31 minutes"),
        (7199, "120 minutes"),
        (8640, "2.4 hours"),
        (86400, "24 hours"),
        (200_000, "2.3 days"),
        (86400 * 4000, "4,000 days"),
    ],
)
def test_a_time_is_in_its_largest_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def heard(total: float, pairs: list[tuple[float, float]]) -> list[str]:
    """What is said by a run that has done so much at such times."""
    times = iter([time for time, _ in pairs])
    found = Forecast(total, lambda: next(times))
    return [line for _, done in pairs if (line := found.hear(done))]


@pytest.mark.parametrize(("speed", "words"), [(1.0, "2.8 hours"), (0.01, "12 days"), (12.0, "14 minutes")])
def test_the_rest_is_foretold_once_by_the_speed_so_far(speed: float, words: str) -> None:
    # what comes before the first word of it, say a minute of compiling, is no part of the speed
    steps = [(60.0 + second, 3 + speed * second) for second in range(0, 100, 5)]
    assert heard(10_023, steps) == [f"about {words} to go at this speed"]


@pytest.mark.parametrize(
    ("total", "pairs"),
    [
        (1e6, [(0, 0), (19, 1)]),  # too early
        (100, [(0, 0), (30, 10), (60, 11)]),  # not long
        (100, [(0, 5), (40, 5), (80, 5)]),  # nothing is known
        (100, [(500, 100)]),
    ],
)
def test_nothing_is_said_of_other_runs(total: float, pairs: list[tuple[float, float]]) -> None:
    assert heard(total, pairs) == []


def test_a_long_run_is_told_where_there_is_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 10.0, 30.0, 31.0])
    monkeypatch.setattr(display, "Forecast", lambda total: Forecast(total, lambda: next(times)))
    with display.progress(7200) as update:
        for step in range(1, 5):
            update(Progress(range(2), step, 4, step / 4, 1.0, torch.zeros(2, 1)))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "7200 samples: about 2.5 days to go at this speed\n")
