"""What an input is: a name, from which everything random in it follows, and what is to be run."""

from collections.abc import Callable
from dataclasses import dataclass

#: the outcomes of the table; the first two are as they should be
CLEAN, FINE = "clean line", "fine"
FOREIGN, MEMORY, HANG, SILENT = "traceback or foreign exception", "over 4 GiB", "hang over 20 s", "silent"
OUTCOMES = (CLEAN, FINE, FOREIGN, MEMORY, HANG, SILENT)


class Fault(Exception):
    """Something wrong that no exception of the library tells.

    An outcome, the sort of fault, what was seen, and where faults of this sort are counted as one: in which subject,
    or in all of them.
    """

    def __init__(self, outcome: str, sort: str, seen: str = "", where: str = "every subject"):
        super().__init__(f"{sort}: {seen}" if seen else sort)
        self.outcome, self.sort, self.where = outcome, sort, where


@dataclass(frozen=True)
class Input:
    """One input.

    name: KIND:SUBJECT:NUMBER.
    what: the command line, the call or the damaged file, for people.
    run: returns CLEAN or FINE, raises `Fault`, or raises what the library does.
    refusals: exceptions that are a refusal, if their message is a clean line.
    quiet: whether warnings of other libraries are of no interest.
    """

    name: str
    what: str
    run: Callable[[], str]
    refusals: tuple[type[Exception], ...]
    quiet: bool = True


@dataclass(frozen=True)
class Verdict:
    """What came of an input.

    error: the type of the exception, or the sort of fault; where: the innermost frame of ddim_ode, or the subject.
    message: of the exception. trace: its traceback, and what was printed.
    """

    name: str
    what: str
    outcome: str
    error: str = ""
    where: str = ""
    message: str = ""
    trace: str = ""

    @property
    def good(self) -> bool:
        """Whether the input came out as it should."""
        return self.outcome in (CLEAN, FINE)
