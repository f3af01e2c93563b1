"""How far several processes are with what they share: a bar by the first, in a log a line each."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ddim_ode.commands.shared.forecast import Forecast
from ddim_ode.support.processes import Processes

DONE = "samples done"  # the counter


class Overall:
    """Counts what is done by all processes, and shows it in the first.

    show: told how many of the total are done.
    """

    def __init__(self, here: Processes, show: Callable[[int], None]):
        self.here, self.show = here, show
        self.started, self.told = time.perf_counter(), 0

    def update(self, done: float) -> None:
        """Tell how many samples this process has done so far; a part of one that is at work counts as a part.

        Raises ProcessError where the run cannot be finished.
        """
        self.here.check()
        more, self.told = int(done) - self.told, max(self.told, int(done))
        total = self.here.add(DONE, max(0, more))
        if self.here.main:
            self.show(total)

    def idle(self) -> None:
        """Show what the others have done meanwhile."""
        if self.here.main:
            self.show(self.here.add(DONE, 0))

    def finished(self, text: str) -> None:
        """Say what this process has done, as in "3 of 5 shards", where several write a log."""
        if not self.here.alone and not sys.stderr.isatty():
            seconds = time.perf_counter() - self.started
            speed = f"{self.told:,} in {seconds:.0f} s, {self.told / seconds:.1f}/s"
            print(f"process {self.here.rank + 1} of {self.here.size}: {text}, {speed}", file=sys.stderr, flush=True)


@contextmanager
def overall(here: Processes, total: int, what: str = "sampling", unit: str = "samples") -> Iterator[Overall]:
    """A bar on stderr over what all processes do, where that is a terminal; of a long run, a line that says how long.

    total: samples, or images, of all processes together; some that are found done already count as they are met.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    console = Console(stderr=True)
    shown = here.main and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task, forecast = bar.add_task("", total=total), Forecast(total)

        def show(done: int) -> None:
            if line := forecast.hear(done):
                bar.console.print(f"{total:,} {unit}: {line}", highlight=False)
            bar.update(task, completed=done)

        yield Overall(here, show)
