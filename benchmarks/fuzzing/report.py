"""What a run found: a table of outcomes, and each distinct failure once."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.fuzzing.inputs import OUTCOMES, Verdict

SHOWN = 3  # names of inputs of a failure


@dataclass(frozen=True)
class Failure:
    """Inputs that failed alike: of the same outcome and exception, in the same frame."""

    outcome: str
    error: str
    where: str
    verdicts: tuple[Verdict, ...]

    def __str__(self) -> str:
        first = self.verdicts[0]
        names = ", ".join(verdict.name for verdict in self.verdicts[:SHOWN])
        message = " ".join(first.message.split())
        return (
            f"{len(self.verdicts):>5} x {self.outcome}: {self.error} at {self.where or '(no frame of ddim_ode)'}\n"
            f"        {message[:200]}\n        {first.what[:200]!r}\n        {names}"
        )


def distinct(verdicts: Sequence[Verdict]) -> list[Failure]:
    """The failures, the most frequent first."""
    groups: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in verdicts:
        if not verdict.good:
            groups.setdefault((verdict.outcome, verdict.error, verdict.where), []).append(verdict)
    found = [Failure(*key, tuple(group)) for key, group in groups.items()]
    return sorted(found, key=lambda failure: (-len(failure.verdicts), failure.where))


def table(verdicts: Sequence[Verdict]) -> str:
    """Kinds by outcomes."""
    counts = Counter((verdict.name.partition(":")[0], verdict.outcome) for verdict in verdicts)
    kinds = list(dict.fromkeys(kind for kind, _ in counts))
    rows = [["kind", "inputs", *OUTCOMES]]
    for kind in kinds:
        each = [counts[kind, outcome] for outcome in OUTCOMES]
        rows.append([kind, *map(str, [sum(each), *each])])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [" | ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(f"| {line} |" for line in [lines[0], " | ".join("-" * width for width in widths), *lines[1:]])


def text(verdicts: Sequence[Verdict]) -> str:
    """The table, and below it the failures."""
    failures = distinct(verdicts)
    failed = sum(len(failure.verdicts) for failure in failures)
    parts = [table(verdicts), f"{failed} inputs failed, in {len(failures)} ways"]
    return "\n\n".join([*parts, *map(str, failures)])


def write(file: Path, verdicts: Sequence[Verdict]) -> None:
    """The failures as JSON, each with every verdict that belongs to it."""
    file.write_text(json.dumps([asdict(failure) for failure in distinct(verdicts)], indent=1))
