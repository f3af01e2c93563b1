"""Pictures of matplotlib with other people's words in them: names stay as they are, and fit."""

import warnings
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from ddim_ode.errors import one_line
from ddim_ode.support.files import replacing

LONGEST = 60  # characters of a name that leave room for what is drawn


def caption(name: str, longest: int = LONGEST) -> str:
    """A name as a picture can show it: one short line, with no underscore first, which would hide it from a legend."""
    shown = one_line(name, longest)
    return f" {shown}" if shown.startswith("_") else shown


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as a PNG; a dollar sign in a text of it begins no formula. Raises OutputError."""
    for text in _texts(figure):
        text.set_parse_math(False)
        text.set_usetex(False)
    with replacing(file) as new, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # a box stands for it
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support", category=UserWarning)
        warnings.filterwarnings("ignore", message="constrained_layout not applied", category=UserWarning)  # no room
        figure.savefig(new, format="png")


def _texts(figure: Figure) -> Iterator[Text]:
    """All but the numbers at the ticks, which may be formulas."""
    legends: list[Legend | None] = [*figure.legends]
    yield from figure.texts
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        legends.append(axes.get_legend())
    for legend in filter(None, legends):
        yield from legend.get_texts()
