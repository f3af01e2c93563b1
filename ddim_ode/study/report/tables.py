"""The tables of a study's page: which columns, what they mean in one sentence, and how a value is written."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ddim_ode.study.report.series import RowRecord, asked
from ddim_ode.study.rows import leaf
from ddim_ode.study.schema import lookup

Value = float | str | None


class Entry(NamedTuple):
    """A text of a table, what it is sorted by (None, a value that does not exist, goes last), and what qualifies it."""

    text: str
    value: Value
    note: str = ""


class Column(NamedTuple):
    """A title, what the numbers under it mean, and the entry of a row that is done."""

    title: str
    meaning: str
    entry: Callable[[RowRecord], Entry]


class TableRow(NamedTuple):
    """A row of a table: its entries, or for a cell of the study that is not done the first of them and why."""

    record: RowRecord
    entries: list[Entry]
    reason: str | None


class Table(NamedTuple):
    """Columns in which at least one row has a value, and the rows."""

    name: str
    columns: list[Column]
    rows: list[TableRow]

    @property
    def own_columns(self) -> list[Column]:
        """The columns that only this table has."""
        return [column for column in self.columns if column not in (*IDENTITY, NFE)]


def in_digits(value: float | None, digits: int = 3) -> str:
    """Some significant digits: 0.0218, 1.2e-5; a dash for None."""
    if value is None:
        return "–"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or 1e-4 <= abs(rounded) < 1e6:
        return f"{rounded:.10g}"
    mantissa, exponent = f"{rounded:.{digits}g}".split("e")
    return f"{mantissa}e{int(exponent)}"


def results_table(rows: Sequence[RowRecord]) -> Table:
    """Every cell of the study, done or not."""
    return _table("results", [*IDENTITY, NFE, *RESULTS], rows)


def distribution_table(rows: Sequence[RowRecord]) -> Table:
    """The rows whose samples were compared with real data."""
    return _table("distribution", [*IDENTITY, NFE, *DISTRIBUTION], [row for row in rows if row["distribution"]])


def reconstruction_table(rows: Sequence[RowRecord]) -> Table:
    """The rows that encoded images and decoded them again."""
    kept = [row for row in rows if row["reconstruction"]]
    return _table("reconstruction", [*IDENTITY, *RECONSTRUCTION], kept)


def _table(name: str, columns: Sequence[Column], rows: Sequence[RowRecord]) -> Table:
    done = [row for row in rows if row["status"] == "done"]

    def used(column: Column) -> bool:  # the reason of a row that is not done needs a column beside those of IDENTITY
        told = rows if column in IDENTITY else done
        return column is NFE or any(column.entry(row).value is not None for row in told)

    kept = [column for column in columns if used(column)]
    first = [column for column in kept if column in IDENTITY]
    return Table(name, kept, [_row(row, kept if row["status"] == "done" else first) for row in rows])


def _row(row: RowRecord, columns: Sequence[Column]) -> TableRow:
    reason = None if row["status"] == "done" else f"{row['status']}: {row['reason']}"
    return TableRow(row, [column.entry(row) for column in columns], reason)


def _plain(name: str, unit: float = 1.0) -> Callable[[RowRecord], Entry]:
    """A number at a leaf such as "timing.seconds", times a unit."""
    at = leaf(name)

    def entry(row: RowRecord) -> Entry:
        value = lookup(row, at)
        value = None if value is None else value * unit
        return Entry(in_digits(value), value)

    return entry


def _error(name: str) -> Callable[[RowRecord], Entry]:
    """An error with its interval; a dagger where the reference is not exact enough to tell."""
    at, low, high = (leaf(f"error.{name}{end}") for end in ("", "_low", "_high"))

    def entry(row: RowRecord) -> Entry:
        value = lookup(row, at)
        if value is None:
            return Entry("–", None)
        mark = "" if row["resolved"] else " †"
        interval = " to ".join(in_digits(lookup(row, end), 2) for end in (low, high))
        return Entry(f"{in_digits(value)}{mark}", value, interval)

    return entry


def _with_range(name: str) -> Callable[[RowRecord], Entry]:
    """A mean, with the least and the most where they differ."""
    mean, low, high = (leaf(f"{name}.{part}") for part in ("mean", "min", "max"))

    def entry(row: RowRecord) -> Entry:
        value, least, most = (lookup(row, at) for at in (mean, low, high))
        return Entry(in_digits(value), value, "" if least == most else f"{least} to {most}")

    return entry


def _with_error(name: str) -> Callable[[RowRecord], Entry]:
    """A number with its standard error."""
    at, spread = leaf(name), leaf(f"{name}_error")

    def entry(row: RowRecord) -> Entry:
        value, by = lookup(row, at), lookup(row, spread)
        return Entry(in_digits(value), value, "" if by is None else f"± {in_digits(by)}")

    return entry


def _making(row: RowRecord) -> Entry:
    """What the grid took, and how much of it the profile."""
    cost = [lookup(row, at) for at in MAKING]
    if None in cost:
        return Entry("–", None)
    return Entry(f"{sum(cost)}", sum(cost), f"profile {cost[0]}")


def _text(name: str) -> Callable[[RowRecord], Entry]:
    """A value as it is."""
    at = leaf(name)
    return lambda row: Entry("–" if row[at] is None else f"{row[at]}", row[at])


def _asked(row: RowRecord) -> Entry:
    return Entry(asked(row), row["nfe"] if row["nfe"] is not None else -row["tol"])


MAKING = [leaf("grid_cost.profile"), leaf("grid_cost.trials")]

IDENTITY = [
    Column("Method", "The solver; ddim-ode methods describes them.", _text("method")),
    Column("Grid", "Where the steps lie; an adaptive method has none.", _text("grid")),
    Column("Eta", "Noise added on the way: 0 is none, 1 is that of DDPM.", _text("eta")),
    Column("Asked", "The budget of evaluations, or the tolerance, that was asked for.", _asked),
]

NFE = Column(
    "NFE",
    "Network evaluations an image, counted where the network is called (mean; least to most).",
    _with_range("measured_nfe"),
)

RESULTS = [
    Column(
        "Median error",
        "RMS difference from the reference image over pixels, which run from -1 to 1: 0.01 is 1.3 of 255 grey levels. "
        "Half of the samples are closer. The small numbers are a 95% bootstrap interval.",
        _error("median"),
    ),
    Column("RMS error", "The same over all samples together; a few that end elsewhere raise it.", _error("rms")),
    Column("Over 0.1, %", "Share of samples with an error above 0.1, which one can see.", _plain("error.share", 100)),
    Column("PSNR, dB", "Peak signal-to-noise ratio to the reference image; higher is closer.", _plain("psnr")),
    Column("SSIM", "Structural similarity to the reference image; 1 is the same.", _plain("ssim")),
    Column(
        "Consistency",
        "Distance from the reference image in features of a network; 0 is the same.",
        _plain("consistency"),
    ),
    Column(
        "Images/s", "Samples made in a second of wall time on this study's machine.", _plain("timing.images_per_second")
    ),
    Column(
        "Making the grid",
        "Evaluations that it took once to make the grid for this model: its profile, which all such grids share, and "
        "trials.",
        _making,
    ),
    Column("Seconds", "Wall time for all samples of the row.", _plain("timing.seconds")),
    Column("Memory, MB", "Largest memory in use while the row ran.", _plain("timing.peak_memory_mb")),
]

DISTRIBUTION = [
    Column(
        "Frechet",
        "Frechet distance between the features of samples and of real images; 0 is best.",
        _plain("distribution.frechet"),
    ),
    Column(
        "KID",
        "Kernel distance between the same features, with its standard error; 0 is best.",
        _with_error("distribution.kid"),
    ),
    Column("Precision", "Share of samples that look like real images; 1 is best.", _plain("distribution.precision")),
    Column("Recall", "Share of real images that the samples cover; 1 is best.", _plain("distribution.recall")),
    Column(
        "Sliced Wasserstein",
        "Distance between pixel distributions along random directions, no network; 0 is best.",
        _plain("distribution.sliced_wasserstein"),
    ),
]

RECONSTRUCTION = [
    Column(
        "Lost, RMS",
        "RMS difference between an image and itself after encoding and decoding; pixels run from -1 to 1.",
        _plain("reconstruction.rms"),
    ),
    Column(
        "Bit exact, %",
        "Share of images that came back with every bit the same.",
        _plain("reconstruction.bit_exact", 100),
    ),
    Column("NFE to encode", "Network evaluations an image on the way to the latent.", _plain("reconstruction.nfe_up")),
    Column("NFE to decode", "Network evaluations an image on the way back.", _plain("reconstruction.nfe_down")),
]
