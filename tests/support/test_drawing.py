"""Names in pictures stay as they are, whatever matplotlib would make of them, and nothing fails or warns."""

from pathlib import Path

import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image

from ddim_ode.support.drawing import caption, save_figure
from ddim_ode.support.files import OutputError
from tests.helpers.assertions import one_line

NAMES = [
    r"cost$\foo$x",
    "a_$b",
    "$$",
    r"\$",
    "_hidden",
    "a\nb\x1b[31m",
    "\u202ereversed",
    "é漢字😀",
    "a\udcff",
    "x" * 1500,
    "{x:g} %s",
]


def test_names_anywhere_in_a_picture_are_drawn_as_they_are(tmp_path: Path) -> None:
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    axes = figure.add_subplot(xscale="log")
    shown = [caption(name) for name in NAMES]
    for name in shown:
        axes.plot([1, 100], [1, 2], label=name)
        axes.text(1, 1, name)
    axes.set_title(shown[0])
    axes.set(xlabel=shown[1], ylabel=shown[2])
    axes.legend()
    figure.suptitle(shown[3])
    figure.legend()
    save_figure(figure, tmp_path / "a.png")
    texts = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts, *figure.texts]
    for legend in (figure.legends[0], axes.get_legend()):
        assert [text.get_text() for text in legend.get_texts()] == shown
        texts += legend.get_texts()
    assert len(texts) == 4 + 3 * len(NAMES)
    assert not any(text.get_parse_math() for text in texts)
    assert all(label.get_parse_math() for label in axes.get_xticklabels())  # powers of ten are formulas
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("name", NAMES)
def test_a_caption_is_one_short_line(name: str) -> None:
    found = caption(name)
    assert found.isprintable()
    assert not found.startswith("_")
    assert len(found) <= 60
    if len(name) <= 60 and name.isprintable():
        assert found.strip() == name


def test_other_peoples_settings_do_not_start_latex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rcParams, "text.usetex", True)
    figure = Figure()
    figure.suptitle("a_b")
    save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    assert "absent" in one_line(OutputError, save_figure, Figure(), tmp_path / "absent" / "a.png")
