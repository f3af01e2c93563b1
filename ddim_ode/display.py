"""What the command line shows: JSON for machines, tables, a progress bar and one-line errors for people."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddim_ode.errors import DDIMError

if TYPE_CHECKING:
    from ddim_ode.sampling import Progress as SamplingProgress


@contextmanager
def progress(total: int) -> Iterator[Callable[["SamplingProgress"], None]]:
    """A bar on stderr, where that is a terminal; the callback moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("sampling"), BarColumn(), TextColumn("{task.fields[status]}"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, status="")

        def update(now: "SamplingProgress") -> None:
            done = now.samples.start + len(now.samples) * now.share
            step = f"{now.step}/{now.steps}" if now.steps else f"{now.step}"
            status = f"samples {now.samples.start + 1}-{now.samples.stop} of {total}, step {step}"
            bar.update(task, total=total, completed=done, status=status)

        yield update


def print_json(record: Mapping[str, Any]) -> None:
    print(json.dumps(record, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, box=SIMPLE)
    for row in rows:
        table.add_row(*(escape(text(row[column])) for column in columns))
    console = Console()
    if not console.is_terminal:  # for grep and the like: a row a line
        console = Console(width=1000)
    console.print(table)


def text(value: Any) -> str:
    """A value for people: 1 x 28 x 28 for whole numbers, a to b for a range, thousands set apart."""
    if isinstance(value, list):
        whole = all(isinstance(v, int) for v in value)
        return " x ".join(map(str, value)) if whole else " to ".join(f"{v:.6g}" for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def explain(error: Exception) -> str | None:
    """What to tell the user, or None when the error is a bug."""
    if hasattr(error, "format_message"):  # a usage error of click, which newer versions of typer bring along
        return _usage(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, and torch may not have been imported
        return "out of memory; use a smaller --batch-size (or batch_size in a config)"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return f"torch.compile failed ({str(error).splitlines()[0]}); set compile: false in the config"
    return str(error) if isinstance(error, DDIMError) else None


def _usage(error: Any) -> str:
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    if hasattr(error.__context__, "errors"):  # pydantic's, which does not name the value
        value = repr(error.__context__.errors()[0]["input"])
        message += f", found {value}" if value not in message else ""
    context = getattr(error, "ctx", None)
    return f"{message} (see {context.command_path} --help)" if context else message
