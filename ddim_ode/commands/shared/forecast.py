"""How long a run will take: told once, in one line, where it is long and as soon as it can be known."""

import time
from collections.abc import Callable

WAIT = 20.0  # seconds of work before anything is foretold
LONG = 600.0  # seconds to go from which people would rather know
UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60))


class Forecast:
    """Hears how much is done, from 0 to `total`, and says how long the rest takes at the same speed.

    The time begins with the first word of it: what a run does before, such as compiling, foretells nothing.
    """

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.clock = total, clock
        self.first: tuple[float, float] | None = None
        self.told = False

    def hear(self, done: float) -> str | None:
        """The line to show, once; None before and after, and where the rest takes less than ten minutes."""
        now = self.clock()
        if self.first is None:
            self.first = (now, done)
        seconds, made = now - self.first[0], done - self.first[1]
        if self.told or seconds < WAIT or made <= 0:
            return None
        self.told = True
        rest = seconds * (self.total - done) / made
        return f"about {duration(rest)} to go at this speed" if rest >= LONG else None


def duration(seconds: float) -> str:
    """A time for people, in its largest unit: "2.4 hours", "31 minutes"."""
    name, each = next(((name, each) for name, each in UNITS if seconds >= 2 * each), UNITS[-1])
    return f"{seconds / each:,.1f} {name}" if seconds < 10 * each else f"{seconds / each:,.0f} {name}"
