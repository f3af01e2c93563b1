"""The PNG pictures of a study: what is drawn where."""

import io

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from ddim_ode.errors import DDIMError
from ddim_ode.study.report import series
from ddim_ode.study.report.plots import save_sheet, save_work_precision
from ddim_ode.support.drawing import caption
from tests.helpers import study_example
from tests.helpers.assertions import one_line


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(self, *args, **kwargs):
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_every_method_is_a_line_of_its_errors_against_its_measured_nfe(tmp_path, drawn):
    results = study_example.results()
    save_work_precision(results, tmp_path / "a.png")
    (axes,) = drawn[0].axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    found = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(found) == {name for name, *_ in study_example.METHODS}
    for line in series.lines(results["rows"])[: len(found)]:
        points = sorted((row["measured_nfe"]["mean"], row["error"]["median"]) for row in line.rows)
        assert np.array_equal(found[line.name].get_xydata(), points)
        assert to_hex(found[line.name].get_color()) == series.LIGHT[line.color]
    hollow = [line for line in axes.lines if line.get_label().startswith("_") and len(line.get_xdata())]
    unresolved = [row for row in results["rows"] if row["resolved"] is False]
    assert sum(len(line.get_xdata()) for line in hollow) == len(unresolved)
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert sum(len(bar.get_segments()) for bar in bars) == sum(1 for row in results["rows"] if row["error"])
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1350, 810)


def test_the_legend_follows_the_right_ends_and_the_floor_is_the_references(tmp_path, drawn):
    results = study_example.results()
    save_work_precision(results, tmp_path / "a.png")
    (axes,) = drawn[0].axes
    *names, floor = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    ends = [next(line for line in axes.lines if line.get_label() == name).get_ydata()[-1] for name in names]
    assert ends == sorted(ends, reverse=True)
    assert floor == "reference's own error"
    assert axes.patches[0].get_y() + axes.patches[0].get_height() == study_example.REFERENCE["median"]


def test_an_error_above_the_range_of_a_pixel_does_not_squeeze_the_others(tmp_path, drawn):
    results = study_example.results()
    results["rows"][0]["error"]["median"] = 400.0
    save_work_precision(results, tmp_path / "a.png")
    assert drawn[0].axes[0].get_ylim()[1] == series.CEILING


@pytest.mark.filterwarnings("error")  # of matplotlib, which a user would read
@pytest.mark.parametrize("spent", [7.5, 10, 100])
def test_a_study_of_one_budget_has_an_axis_around_it(tmp_path, drawn, spent):
    results = study_example.results()
    same = {"measured_nfe": results["rows"][0]["measured_nfe"] | {"mean": spent}}
    rows = [row | same for row in results["rows"] if row["error"]]
    save_work_precision(results | {"rows": rows}, tmp_path / "a.png")
    (axes,) = drawn[0].axes
    assert axes.get_xlim() == (spent / 2, 2 * spent)


def test_a_sheet_shows_the_first_samples_of_every_cell_below_the_reference(tmp_path, drawn):
    results = study_example.results()
    strips = study_example.strips(results["rows"])
    save_sheet(results, strips, tmp_path / "a.png", samples=3)
    images = drawn[0].axes[0].images
    columns, rows = series.sheet(results["rows"])
    done = [row for row in results["rows"] if row["status"] == "done"]
    assert len(images) == len(columns) + len(done)
    reference = [image for image in images if image.get_extent()[3] == 0]
    assert len(reference) == len(columns)
    for key, image in (("reference", reference[0]), (done[0]["key"], images[1])):
        strip = np.asarray(Image.open(io.BytesIO(strips[key])))
        assert np.array_equal(image.get_array(), strip[:, : 3 * 28])
    texts = [text.get_text() for text in drawn[0].axes[0].texts]
    assert {*columns, "reference", "adaptive", "ddim\nuniform", "ddim, eta 0.5\nuniform", "error 0.208"} <= set(texts)
    assert len(rows) == 13  # with sde_srk, which failed and has no picture


def test_a_sheet_in_colour_keeps_its_colours(tmp_path, drawn):
    results = study_example.results()
    results["model"]["shape"] = [3, 56, 56]
    save_sheet(results, study_example.strips(results["rows"], (3, 56, 56)), tmp_path / "a.png")
    assert drawn[0].axes[0].images[0].get_array().shape == (56, 4 * 56, 3)


def test_a_sheet_without_a_reference_is_refused(tmp_path):
    assert "'reference'" in one_line(DDIMError, save_sheet, study_example.results(), {}, tmp_path / "a.png")


@pytest.mark.parametrize("name", [r"_cost$\foo$x\n\x1b漢\udcff", "x" * 1500])
def test_names_are_drawn_as_they_are(tmp_path, drawn, name):
    results = study_example.results()
    results["model"]["name"] = name
    for row in results["rows"]:
        row.update({"method": name, "grid": row["grid"] and name} if row["method"] == "ddim" else {})
    save_work_precision(results, tmp_path / "a.png")
    rows = [row for row in results["rows"] if row["method"] == name][:2]
    save_sheet(results | {"rows": rows}, study_example.strips(rows), tmp_path / "b.png")
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert caption(name) in legend
    assert len(legend) == 1 + len({row["method"] + str(row["eta"]) for row in results["rows"] if row["error"]})
    assert drawn[0].axes[0].get_title().startswith(caption(name))
    assert f"{caption(name)}\n{caption(name)}" in [text.get_text() for text in drawn[1].axes[0].texts]
