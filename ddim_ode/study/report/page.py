"""The results of a study for people: one HTML file that opens from disk and needs no network, and a CSV of its cells.

`results` is what a study writes as results.json. The page is made by jinja2 from the files in `templates`; its text and
tables are plain HTML, and the script adds the plot, sorting and the sheet of samples. Names in `results` are never
trusted: text is escaped, data is embedded as escaped JSON, and the page's own policy allows no script but ours and no
address outside the file.
"""

import csv
import hashlib
import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from ddim_ode.study.report import series
from ddim_ode.study.report.tables import distribution_table, in_digits, reconstruction_table, results_table
from ddim_ode.study.report.words import chosen_on, grids_made, grouped, guided, measured_by, names_of, seconds, shortly
from ddim_ode.study.rows import LEAVES, leaf
from ddim_ode.study.schema import lookup
from ddim_ode.support.files import replacing
from ddim_ode.support.records import finite

LIMIT = 5_000_000  # bytes of the page
TEXT, ROW = 150_000, 3_500  # at most: bytes of the page's text, and of what each row adds to it but its picture
LEAST = 500_000  # bytes that pictures get in any case
SCRIPTS = ("report.js", "plot.js", "interact.js", "table.js", "sheet.js")
PLOTTED = tuple(map(leaf, ("error.median", "error.rms", "distribution.frechet", "distribution.sliced_wasserstein")))
CSV_COLUMNS = LEAVES  # where the value of each column lies in a row of results.json


def write_report(file: Path, results: Mapping[str, Any], strips: Mapping[str, bytes]) -> None:
    """Write the page of a study, under 5 MB up to a thousand rows.

    strips: a PNG for each row's key, and for "reference": the first samples side by side. Where they would make the
    page too large, fewer samples are shown, then smaller ones, and the page says so.
    """
    html = render(results, strips)
    with replacing(file) as new:
        new.write(html.encode("utf-8", "backslashreplace"))  # of a name that is no text


def write_csv(file: Path, results: Mapping[str, Any]) -> None:
    """Write a line for each cell of a study, with the columns `CSV_COLUMNS`; a missing value is empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(column.replace(".", "_") for column in CSV_COLUMNS)
    writer.writerows([lookup(row, column) for column in CSV_COLUMNS] for row in results["rows"])
    with replacing(file) as new:
        new.write(text.getvalue().encode("utf-8", "backslashreplace"))


def render(results: Mapping[str, Any], strips: Mapping[str, bytes]) -> str:
    """The page as text."""
    results = finite(results)
    rows = results["rows"]
    shape = results["model"]["shape"]
    room = max(LIMIT - TEXT - ROW * len(rows), LEAST)
    done = {"reference", *(row["key"] for row in rows if row["status"] == "done")}
    pictures, shown, scale = fitting({key: strips[key] for key in strips if key in done}, shape, room)
    titles, sheet = series.sheet([row for row in rows if row["key"] in pictures or row["status"] != "done"])
    style, script = source("report.css"), Markup("\n").join(map(source, SCRIPTS))
    style = palette() + style
    environment = Environment(
        loader=PackageLoader("ddim_ode.study.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": in_digits, "seconds": seconds, "breakable": breakable, "grouped": grouped}
    return environment.get_template("report.html.j2").render(
        results,
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {digest(style)}; script-src {digest(script)}",
        winners=winners(results),
        chosen_on=chosen_on(results),
        grids_made=grids_made(rows),
        measured_by=measured_by(results["timing"]),
        plotted=any(lookup(row, value) for row in rows for value in PLOTTED),
        tables=[results_table(rows), distribution_table(rows), reconstruction_table(rows)],
        columns=titles,
        sheet=sheet if pictures else [],
        samples=shown,
        scale=scale,
        seeds=shortly(results["settings"]["seeds"]),
        labels=shortly(results["settings"]["labels"] or []),
        guidance=guided(results["settings"]),
        asked=series.asked,
        name_of=series.name_of,
        data={
            "rows": rows,
            "lines": [line._asdict() | {"rows": [row["key"] for row in line.rows]} for line in series.lines(rows)],
            "floor": results["reference"]["error"],
            "ceiling": series.CEILING,
            "seeds": results["settings"]["seeds"][:shown],
            "tile": [round(shape[-1] * scale), round(shape[-2] * scale)] if pictures else None,
            "strips": {key: f"data:image/png;base64,{b64encode(png).decode()}" for key, png in pictures.items()},
        },
    )


def winners(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each budget that has one: the best row, and the names of others that cannot be told from it."""
    rows = {row["key"]: row for row in results["rows"]}
    return [
        {"nfe": best["nfe"], "row": rows[best["key"]], "tied": names_of(results, best["tied"], best["key"])}
        for best in results["best"]
    ]


def fitting(strips: Mapping[str, bytes], shape: Sequence[int], room: int) -> tuple[dict[str, bytes], int, float]:
    """The strips, cut to what fits into so many bytes as base64; how many samples each has; the scale they are at.

    Half of the samples is given up before half of the size, because a smaller picture hides what the sheet is for.
    """
    if "reference" not in strips:
        return {}, 0, 1.0
    width, height = Image.open(io.BytesIO(strips["reference"])).size
    tile = round(height * shape[-1] / shape[-2])
    shown, scale, found = width // tile, height / shape[-2], dict(strips)
    while sum(map(len, found.values())) * 4 / 3 > room:
        if shown > 2:
            shown //= 2
        else:
            scale /= 2
        size = (shown * round(shape[-1] * scale), round(shape[-2] * scale))
        found = {key: cut(png, shown * tile, size) for key, png in strips.items()}
    return found, shown, scale


def cut(png: bytes, width: int, size: tuple[int, int]) -> bytes:
    """The left part of a picture, at another size."""
    image = Image.open(io.BytesIO(png))
    written = io.BytesIO()
    image.crop((0, 0, width, image.height)).resize(size, Image.Resampling.BOX).save(written, "PNG")
    return written.getvalue()


def palette() -> Markup:
    """The colours of the lines as CSS variables, by day and by night."""
    day, night = (
        "".join(f"--line-{i}: {color}; " for i, color in enumerate(colors)) for colors in (series.LIGHT, series.DARK)
    )
    return Markup(f":root {{ {day}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {night}}} }}\n")


def source(name: str) -> Markup:
    """A file of `templates`, as it is."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def digest(text: str) -> str:
    """The word of a Content-Security-Policy that allows exactly this text."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def visible(value: Any) -> Any:
    """A text with what one cannot see in it as escapes, such as marks that turn the direction of what follows."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in value)


def breakable(text: str) -> Markup:
    """A name that a narrow column may break after an underscore."""
    return escape(visible(text)).replace("_", Markup("_<wbr>"))
