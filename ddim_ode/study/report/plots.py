"""Pictures of a study for documents: the work-precision plot and a sheet of samples, as on its page."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from ddim_ode.errors import DDIMError
from ddim_ode.study.report.series import CEILING, LIGHT, Line, best_grids, lines, sheet
from ddim_ode.study.report.tables import in_digits
from ddim_ode.support.drawing import caption, save_figure

MARKS_OF_MATPLOTLIB = {
    "circle": "o",
    "square": "s",
    "triangle": "^",
    "diamond": "D",
    "triangle-down": "v",
    "plus": "P",
    "star": "*",
}
PICTURE, NAMES = 0.44, 1.2  # inches: the height of a picture, the least width of the names beside them
LETTER = 0.07  # inches: the width of a letter of a name
GAP, PITCH = 0.12, 1.42  # in heights of a picture: between two columns, and from row to row


def save_work_precision(results: Mapping[str, Any], file: Path) -> None:
    """Median error against measured NFE, both logarithmic, as a PNG.

    A line joins a method's best grid at each budget; bars are 95% intervals, hollow points are not well above the
    reference's own error, which is shaded. The legend follows the right ends of the lines. An error above `CEILING` is
    left out.
    """
    figure = Figure(figsize=(9, 5.4), dpi=150, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    drawn = [line for line in lines(results["rows"]) if best_grids(line.rows)]
    spent = {row["measured_nfe"]["mean"] for line in drawn for row in best_grids(line.rows)}
    if len(spent) == 1:  # of which no axis can be made, and matplotlib would say so
        axes.set_xlim(min(spent) / 2, 2 * min(spent))
    for line in sorted(drawn, key=lambda line: best_grids(line.rows)[-1]["error"]["median"], reverse=True):
        _draw(axes, line)
    axes.axhspan(0, results["reference"]["error"]["median"], color="0.9", zorder=0, label="reference's own error")
    if axes.get_ylim()[1] > CEILING:
        axes.set_ylim(top=CEILING)
    axes.set(xlabel="network evaluations an image (NFE), measured", ylabel="median error, RMS over pixels in [-1, 1]")
    axes.set_title(_title(results), fontsize=11)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9, handlelength=3)
    save_figure(figure, file)


def save_sheet(results: Mapping[str, Any], strips: Mapping[str, bytes], file: Path, samples: int = 4) -> None:
    """The first samples of a study as a PNG: a row for each method and grid, a column for each budget, the reference on
    top, and each cell's median error.

    Raises DDIMError where `strips` has no "reference".
    """
    if "reference" not in strips:
        raise DDIMError("strips have no 'reference'; a sheet needs one, and a model of images has it")
    columns, rows = sheet([row for row in results["rows"] if row["key"] in strips])
    *_, high, wide = results["model"]["shape"]
    strip = samples * wide / high  # its width; lengths are in heights of a strip

    def pixels(key: str) -> np.ndarray:
        found = np.asarray(Image.open(io.BytesIO(strips[key])))
        return found[:, : round(found.shape[0] * strip)]

    names = ["\n".join(map(caption, filter(None, (row.name, row.grid)))) for row in rows]
    longest = max((len(part) for name in names for part in name.split("\n")), default=0)
    left, right = -max(NAMES, LETTER * longest + 0.2) / PICTURE, len(columns) * (strip + GAP)
    top, bottom = -0.6, (len(rows) + 1) * PITCH
    figure = Figure(figsize=((right - left) * PICTURE, (bottom - top) * PICTURE), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
    axes.axis("off")
    for column, title in enumerate(columns):
        x = column * (strip + GAP)
        axes.text(x, -0.12, title, fontsize=9)
        _place(axes, pixels("reference"), x, 0)
        for y, row in enumerate(rows, start=1):
            cell = row.cells[column]
            if cell is not None:
                _place(axes, pixels(cell["key"]), x, y * PITCH)
                error = f"error {in_digits(cell['error']['median'])}" if cell["error"] else ""
                axes.text(x, y * PITCH + 1.05, error, fontsize=7, color="0.35", va="top")
    for y, name in enumerate(["reference", *names]):
        axes.text(-0.12, y * PITCH + 0.5, name, fontsize=8, ha="right", va="center")
    save_figure(figure, file)


def _draw(axes: Axes, line: Line) -> None:
    best = [row for row in best_grids(line.rows) if row["error"]["median"] > 0]
    nfe = [row["measured_nfe"]["mean"] for row in best]
    error = np.array([[row["error"][name] for name in ("median_low", "median", "median_high")] for row in best]).T
    style: dict[str, Any] = {
        "color": LIGHT[line.color],
        "marker": MARKS_OF_MATPLOTLIB[line.marker],
        "markersize": 6,
        "linewidth": 1.6,
    }
    axes.plot(nfe, error[1], label=caption(line.name), linestyle=(0, line.dash) if line.dash else "-", **style)
    axes.vlines(nfe, error[0], error[2], color=LIGHT[line.color], linewidth=0.8, alpha=0.6)
    hollow = [i for i, row in enumerate(best) if not row["resolved"]]
    axes.plot(np.take(nfe, hollow), error[1][hollow], **style | {"linestyle": "", "markerfacecolor": "white"})


def _place(axes: Axes, pixels: np.ndarray, x: float, y: float) -> None:
    shade: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.ndim == 2 else {}
    extent = (x, x + pixels.shape[1] / pixels.shape[0], y + 1, y)
    axes.imshow(pixels, extent=extent, aspect="auto", interpolation="nearest", **shade)


def _title(results: Mapping[str, Any]) -> str:
    return f"{caption(results['model']['name'])}, {len(results['settings']['seeds'])} images from the same start noise"
