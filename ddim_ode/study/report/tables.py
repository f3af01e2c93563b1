"""The tables of a study's page: which columns, what they mean in one sentence, and how a value is written."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ddim_ode.study.report.series import Row, asked

Value = float | str | None


class Cell(NamedTuple):
    """What a cell shows, what it is sorted by (None, a value that does not exist, goes last), and what qualifies it."""

    text: str
    value: Value
    note: str = ""


class Column(NamedTuple):
    """A title, what the numbers under it mean, and the cell of a row that is done."""

    title: str
    meaning: str
    cell: Callable[[Row], Cell]


class Line(NamedTuple):
    """A row of a table: its cells, or for a cell of the study that is not done the first of them and why."""

    row: Row
    cells: list[Cell]
    reason: str | None


class Table(NamedTuple):
    """Columns in which at least one row has a value, and the rows."""

    name: str
    columns: list[Column]
    lines: list[Line]

    @property
    def own_columns(self) -> list[Column]:
        """Those that only this table has."""
        return [column for column in self.columns if column not in (*IDENTITY, NFE)]


def number(value: float | None, digits: int = 3) -> str:
    """Some significant digits: 0.0218, 1.2e-5; a dash for None."""
    if value is None:
        return "–"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or 1e-4 <= abs(rounded) < 1e6:
        return f"{rounded:.10g}"
    mantissa, exponent = f"{rounded:.{digits}g}".split("e")
    return f"{mantissa}e{int(exponent)}"


def results_table(rows: Sequence[Row]) -> Table:
    """Every cell of the study, done or not."""
    return _table("results", [*IDENTITY, NFE, *RESULTS], rows)


def distribution_table(rows: Sequence[Row]) -> Table:
    """The rows whose samples were compared with real data."""
    return _table("distribution", [*IDENTITY, NFE, *DISTRIBUTION], [row for row in rows if row["distribution"]])


def reconstruction_table(rows: Sequence[Row]) -> Table:
    """The rows that encoded images and decoded them again."""
    kept = [row for row in rows if row["reconstruction"]]
    return _table("reconstruction", [*IDENTITY, *RECONSTRUCTION], kept)


def _table(name: str, columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    done = [row for row in rows if row["status"] == "done"]

    def used(column: Column) -> bool:  # the reason of a row that is not done needs a column beside those of IDENTITY
        told = rows if column in IDENTITY else done
        return column is NFE or any(column.cell(row).value is not None for row in told)

    kept = [column for column in columns if used(column)]
    first = [column for column in kept if column in IDENTITY]
    return Table(name, kept, [_line(row, kept if row["status"] == "done" else first) for row in rows])


def _line(row: Row, columns: Sequence[Column]) -> Line:
    reason = None if row["status"] == "done" else f"{row['status']}: {row['reason']}"
    return Line(row, [column.cell(row) for column in columns], reason)


def _plain(path: str, unit: float = 1.0) -> Callable[[Row], Cell]:
    """A number at a path such as "timing.seconds", times a unit."""
    first, _, rest = path.partition(".")

    def cell(row: Row) -> Cell:
        value: Any = row[first] if not rest else (row[first] or {}).get(rest)
        value = None if value is None else value * unit
        return Cell(number(value), value)

    return cell


def _error(name: str) -> Callable[[Row], Cell]:
    """An error with its interval; a dagger where the reference is not exact enough to tell."""

    def cell(row: Row) -> Cell:
        error = row["error"]
        if not error or error[name] is None:
            return Cell("–", None)
        mark = "" if row["resolved"] else " †"
        low, high = number(error[f"{name}_low"], 2), number(error[f"{name}_high"], 2)
        return Cell(f"{number(error[name])}{mark}", error[name], f"{low} to {high}")

    return cell


def _spent(row: Row) -> Cell:
    nfe = row["measured_nfe"]
    if nfe["min"] == nfe["max"]:
        return Cell(number(nfe["mean"]), nfe["mean"])
    return Cell(number(nfe["mean"]), nfe["mean"], f"{nfe['min']} to {nfe['max']}")


def _kid(row: Row) -> Cell:
    found = row["distribution"]
    if found["kid"] is None:
        return Cell("–", None)
    spread = "" if found["kid_error"] is None else f"± {number(found['kid_error'])}"
    return Cell(number(found["kid"]), found["kid"], spread)


def _text(name: str) -> Callable[[Row], Cell]:
    return lambda row: Cell("–" if row[name] is None else f"{row[name]}", row[name])


def _asked(row: Row) -> Cell:
    return Cell(asked(row), row["nfe"] if row["nfe"] is not None else -row["tol"])


IDENTITY = [
    Column("Method", "The solver; ddim-ode methods describes them.", _text("method")),
    Column("Grid", "Where the steps lie; an adaptive method has none.", _text("grid")),
    Column("Eta", "Noise added on the way: 0 is none, 1 is that of DDPM.", _text("eta")),
    Column("Asked", "The budget of evaluations, or the tolerance, that was asked for.", _asked),
]

NFE = Column("NFE", "Network evaluations an image, counted where the network is called (mean; least to most).", _spent)

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
    Column("Seconds", "Wall time for all samples of the row.", _plain("timing.seconds")),
    Column("Memory, MB", "Largest memory in use while the row ran.", _plain("timing.peak_memory_mb")),
]

DISTRIBUTION = [
    Column(
        "Frechet",
        "Frechet distance between the features of samples and of real images; 0 is best.",
        _plain("distribution.frechet"),
    ),
    Column("KID", "Kernel distance between the same features, with its standard error; 0 is best.", _kid),
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
