"""What was found, in the one schema that the JSON file and the tables are made of."""

import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from benchmarks.gpu_sections.base import Names, Section, Setting
from ddim_ode.support.files import replacing

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
Found = Annotated[FiniteFloat, Field(ge=0)]


class UnreadableError(Exception):
    """A file that holds no numbers of ours; the message says what is wrong with it, in a line."""


class Row(BaseModel):
    """A case. Of one that was not measured, `why` says why not, in a line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: dict[str, str | int | float]
    status: Literal["measured", "skipped", "failed"]
    values: dict[str, Found] = {}
    why: str = ""


class Table(BaseModel):
    """A section and what became of its cases."""

    model_config = ConfigDict(extra="forbid")

    name: str
    title: str
    seconds: Found = 0.0
    rows: list[Row] = []

    def holds(self, names: Names) -> bool:
        """Whether a case has been measured."""
        return any(row.names == names and row.status == "measured" for row in self.rows)

    def put(self, row: Row) -> None:
        """Add a row, in place of what was said of its case before."""
        places = [place for place, other in enumerate(self.rows) if other.names == row.names]
        if places:
            self.rows[places[0]] = row
        else:
            self.rows.append(row)


class Circumstances(BaseModel):
    """What must be the same for rows of two runs to stand in one table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str  # the card's name, or the processor's
    small: bool
    versions: dict[str, str]
    code: str  # a digest of the library and of what measures it

    def others(self, here: "Circumstances") -> list[str]:
        """What is otherwise here, a few words each."""
        mine, theirs = ({**each.versions, **each.model_dump(exclude={"versions"})} for each in (self, here))
        return [
            f"{name} {mine.get(name, 'unknown')} (here {theirs.get(name, 'unknown')})"
            for name in {**mine, **theirs}
            if mine.get(name) != theirs.get(name)
        ]


class Call(BaseModel):
    """A command that measured some of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    date: str
    command: str


class Report(BaseModel):
    """All there is to know of a run, and of those that went on with it."""

    model_config = ConfigDict(extra="forbid")

    calls: Annotated[list[Call], Field(min_length=1)]  # the first one first
    circumstances: Circumstances
    seconds: Found = 0.0
    tables: list[Table] = []

    def table(self, section: Section) -> Table:
        """The table of a section, made if need be."""
        found = next((table for table in self.tables if table.name == section.name), None)
        if found is None:
            found = Table(name=section.name, title=section.title)
            self.tables.append(found)
        return found

    @property
    def failed(self) -> int:
        return sum(row.status == "failed" for table in self.tables for row in table.rows)


def read(file: Path) -> Report:
    """The report in a file. Raises UnreadableError."""
    try:
        return Report.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UnreadableError(f"{file} cannot be read ({error.strerror})") from None
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise UnreadableError(f"{file} is not as it was written ({where}{': ' * bool(where)}{fault['msg']})") from None


def circumstances(setting: Setting) -> Circumstances:
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    if setting.cuda:
        versions |= {"CUDA": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version()), "driver": driver()}
    versions["diffusers"] = importlib.metadata.version("diffusers")
    device = torch.cuda.get_device_name(setting.device) if setting.cuda else processor()
    return Circumstances(device=device, small=setting.small, versions=versions, code=digest())


def driver() -> str:
    """The version of NVIDIA's driver."""
    if not shutil.which("nvidia-smi"):
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.split()
    return told[0] if told else "unknown"


def processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{name or platform.machine()}, {kind}, {torch.get_num_threads()} threads"


def digest() -> str:
    """Of the sources of the library and of all that measures it, in hex."""
    found = hashlib.sha256()
    folders = [sorted((ROOT / folder).rglob("*.py")) for folder in ("ddim_ode", "benchmarks/gpu_sections")]
    for file in chain(*folders, (ROOT / "benchmarks" / name for name in ("gpu.py", "unet_speed.py"))):
        found.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return found.hexdigest()[:16]


def markdown(report: Report) -> str:
    """The tables, for people."""
    told = report.circumstances
    versions = ", ".join(f"{name} {version}" for name, version in told.versions.items())
    calls = ", then ".join(f"`{call.command}` ({call.date})" for call in report.calls)
    lines = [f"{calls}, {report.seconds:.0f} s: **{told.device}**, {versions}.", ""]
    if told.small:
        lines += ["Tiny sizes, to see that it runs: **these are no measurements.**", ""]
    for table in report.tables:
        lines += [f"### {table.name}", "", f"{table.title} ({table.seconds:.0f} s.)", ""]
        measured = [row for row in table.rows if row.status == "measured"]
        if measured:
            names, values = columns(row.names for row in measured), columns(row.values for row in measured)
            told_names = [[str(row.names.get(name, "")) for name in names] for row in measured]
            told_values = [
                [number(row.values[name]) if name in row.values else "" for name in values] for row in measured
            ]
            lines += [grid([*names, *values], [[*a, *b] for a, b in zip(told_names, told_values, strict=True)]), ""]
        for row in table.rows:
            if row.status != "measured":
                lines.append(f"- {row.status}: {', '.join(map(str, row.names.values())) or 'all'}: {row.why}")
        lines += [""] * (lines[-1] != "")
    return "\n".join(lines).rstrip() + "\n"


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def columns(rows: Iterable[Iterable[str]]) -> list[str]:
    """All columns of rows, each once, in the order in which they come up."""
    return list(dict.fromkeys(name for row in rows for name in row))


def number(value: float) -> str:
    """Three digits, and thousands in full."""
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def put(text: str, page: Path) -> None:
    """Write the tables between the page's markers, or a page of them alone where there is none."""
    whole = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{page} has no place for tables; put {BEGIN} and {END} where they should go")
    with replacing(page) as new:
        new.write(f"{before}{BEGIN}\n{text}{END}{after}".encode())


def unmeasured(tables: Sequence[Table]) -> list[str]:
    """What is missing, a line each."""
    rows = ((table.name, row) for table in tables for row in table.rows if row.status != "measured")
    return [f"{row.status}: {name}, {', '.join(map(str, row.names.values()))}: {row.why}" for name, row in rows]
