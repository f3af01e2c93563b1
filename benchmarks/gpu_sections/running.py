"""Sections in turn, each within its share of the time; whatever happens to a case, the next one is measured."""

import gc
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch

from benchmarks.gpu_sections.base import Case, Section, Setting, SkippedError
from benchmarks.gpu_sections.report import Report, Row, Table

Told = Callable[[Table, Row], None]


class OutOfTime(BaseException):  # no Exception, so that nobody catches it in passing
    """A case took longer than there was time."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in what takes longer: again every second, since a destructor may swallow the first."""

    def over(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(report: Report, sections: Sequence[Section], setting: Setting, until: float, told: Told) -> None:
    """Measure what the report does not hold yet; `told` hears of every case when it is done.

    A section's share of the time left until `until`, of `time.monotonic`, is its `seconds` of those of all that are
    still to come, so that what one leaves over goes to the next.
    """
    for index, section in enumerate(sections):
        begin, table = time.monotonic(), report.table(section)
        share = section.seconds / sum(later.seconds for later in sections[index:])
        end, spent = begin + share * (until - begin), table.seconds
        for case in section.cases(setting):
            if not table.holds(case.names):
                row = measured(case, end - time.monotonic())
                table.put(row)
                table.seconds = spent + time.monotonic() - begin
                told(table, row)
        release()


def measured(case: Case, left: float) -> Row:
    """A case measured, if it can be in the seconds that are left."""
    names = dict(case.names)
    if left <= 0:
        return Row(names=names, status="skipped", why="the section's time was over")
    try:
        with at_most(left), torch.no_grad():
            values = dict(case.measure())
        if wrong := [f"{name} is {value}" for name, value in values.items() if not 0 <= value < math.inf]:
            raise ArithmeticError(", ".join(wrong))
        return Row(names=names, status="measured", values=values)
    except OutOfTime:
        found = Row(names=names, status="skipped", why=f"stopped after {left:.0f} s, when the section's time was over")
    except SkippedError as error:
        return Row(names=names, status="skipped", why=str(error))
    except Exception as error:  # of whatever is measured: it is told, and the next case goes on
        found = Row(names=names, status="failed", why=f"{type(error).__name__}: {first_line(error)}")
    release()
    return found


def first_line(error: Exception) -> str:
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), "no message")


def release() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
