"""The page of a study as a file: what it holds, that names cannot break out of it, its size, and the CSV."""

import base64
import csv
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddim_ode.study.report.page import CSV_COLUMNS, LIMIT, fitting, write_csv, write_report
from ddim_ode.support.records import finite
from tests.helpers import study_example

VOID = {"meta", "br", "wbr", "img", "link", "input"}


class Page(HTMLParser):
    """Every tag with its attributes, and the text inside each element, by tag."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag  # every element is closed where it was opened

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.inside[-1], data.strip()))

    def text(self) -> str:
        return " ".join(" ".join(text for tag, text in self.texts if tag not in ("script", "style")).split())

    def of(self, tag: str) -> list[str]:
        return [text for found, text in self.texts if found == tag]


@pytest.fixture(scope="module")
def study() -> tuple[dict[str, Any], dict[str, bytes]]:
    results = study_example.results()
    return results, study_example.strips(results["rows"])


@pytest.fixture
def written(tmp_path):
    def written(results, strips) -> str:
        write_report(tmp_path / "report.html", results, strips)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return written


def data_of(html: str) -> dict[str, Any]:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])


def test_the_data_of_the_page_are_those_of_the_study(written, study):
    results, strips = study
    data = data_of(written(*study))
    assert data["rows"] == results["rows"]
    assert data["floor"] == study_example.REFERENCE
    assert data["seeds"] == list(range(8))
    assert data["tile"] == [28, 28]
    assert {key: base64.b64decode(url.partition("base64,")[2]) for key, url in data["strips"].items()} == strips


def test_every_number_that_json_does_not_have_is_null(written, study):
    results = study_example.results()
    results["rows"][0]["psnr"] = math.inf
    results["rows"][1]["ssim"] = math.nan
    rows = data_of(written(results, {}))["rows"]
    assert rows[0]["psnr"] is None
    assert rows[1]["ssim"] is None
    assert finite({"a": (1.0, -math.inf), "b": "inf"}) == {"a": [1.0, None], "b": "inf"}


HOSTILE = "</script><marquee>\"'&`{{7*7}}<img src=x onerror=alert(1)>"


def test_names_stay_text(written, study):
    results = study_example.results()
    clean = Page(written(results, {}))
    results["model"]["name"] = results["command"] = results["reference"]["method"] = HOSTILE
    results["versions"][HOSTILE] = results["timing"]["machine"] = results["settings"]["real"]["what"] = HOSTILE
    for row in results["rows"]:
        row.update(method=HOSTILE if row["method"] == "ddim" else row["method"], grid=HOSTILE, reason=HOSTILE)
    html = written(results, {})
    page = Page(html)
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in clean.tags}
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.of("h1") == [f"Solvers compared on {HOSTILE}"]
    assert page.of("code") == [HOSTILE]
    assert data_of(html)["rows"][0]["method"] == HOSTILE


def test_the_page_needs_no_other_file(written, study):
    html = written(*study)
    page = Page(html)
    addresses = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
    assert addresses
    assert all(address.startswith("#") for address in addresses)
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed", "base", "img"})
    assert re.findall(r"https?:|@import|\bfetch\(|XMLHttpRequest|import\(", html) == []
    assert set(re.findall(r"url\([^)]*\)", html)) == {"url(#inside)"}
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {address[1:] for address in addresses} <= ids


def test_the_policy_allows_this_script_and_this_style_and_nothing_else(written, study):
    html = written(*study)
    (policy,) = [a["content"] for _, a in Page(html).tags if a.get("http-equiv") == "Content-Security-Policy"]
    expected = ["default-src 'none'", "img-src data:"]
    for name, tag in (("style-src", "style"), ("script-src", 'script type="module"')):
        text = re.search(f"<{tag}>(.*?)</{tag.split()[0]}>", html, re.S)[1]
        expected.append(f"{name} 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")
    assert policy == "; ".join(expected)
    assert not [a for _, a in Page(html).tags if "style" in a]  # the policy would refuse it


def test_the_headline_names_the_best_and_its_ties(written, study):
    text = Page(written(*study)).text()
    assert "NFE 10 adaptive steps of its own choice 0.016 median error; 95%: 0.014 to 0.019 Not told apart from" in text
    assert re.search(
        r"NFE 50, 48 used rk4 grid trailing_angle 0.0008 † median error; 95%: [^N]* Not told apart from", text
    )
    assert "Not told apart from adams4, unipc_2." in text
    assert re.search(r"Not told apart from adams4, \w+, \w+ and \d more\.", text)
    assert "† is not well above the reference's own error of 0.0008" in text


def test_a_study_without_errors_says_so(written):
    results = study_example.results()
    results["rows"] = [row for row in results["rows"] if not row["error"]]
    results["best"] = []
    text = Page(written(results, {})).text()
    assert "No cell of this study has an error that could be compared." in text
    assert "Chosen on" not in text


def test_what_was_not_done_is_in_the_table_with_its_reason(written, study):
    reasons = [f"{row['status']}: {row['reason']}" for row in study[0]["rows"] if row["status"] != "done"]
    assert len(reasons) == 3
    assert set(reasons) <= set(Page(written(*study)).of("td"))


def test_only_what_was_measured_has_a_column_or_a_section(written):
    results = study_example.results()
    results["rows"] = [
        row | {"distribution": None, "reconstruction": None, "ssim": None}
        for row in results["rows"]
        if row["eta"] is None
    ]
    page = Page(written(results, {}))
    results_and_on = page.of("button")[2:]  # after those of the legend
    titles = ["Method", "Grid", "Asked", "NFE", "Median error", "RMS error", "Over 0.1, %", "PSNR, dB", "Consistency"]
    assert results_and_on == [*titles, "Images/s", "Seconds", "Memory, MB", "Copy"]
    assert {"distribution", "reconstruction", "samples"}.isdisjoint({a.get("id") for _, a in page.tags})


def test_timing_reference_settings_and_command_are_told(written, study):
    text = Page(written(*study)).text()
    assert (
        "It took 7 min 11 s. Its 118 400 network evaluations alone would take 6 min 42 s, so the whole cost 1.07"
        in text
    )
    assert "own error, estimated from its two finest resolutions, is 0.0008 (median) and 0.0014 (RMS)" in text
    assert "It was refined until they agreed to 0.001." in text
    assert study[0]["command"] in text
    assert "Seeds 0 to 63" in text
    assert "torch 2.13.0" in text


@pytest.mark.parametrize(
    ("processes", "devices", "told"),
    [
        (2, ["core 0", "core 1"], "Measured by 2 processes, each on cores of its own (core 0, core 1)."),
        (4, ["cuda:0", "cuda:1"], "Measured by 2 of 4 processes, each on a GPU of its own (cuda:0, cuda:1)."),
        (3, ["cpu"], "Measured by 1 of 3 processes."),
    ],
)
def test_it_tells_of_several_processes(written, processes, devices, told):
    results = study_example.results()
    assert "Measured by" not in Page(written(results, {})).text()
    results["timing"] |= {"processes": processes, "devices": devices}
    text = Page(written(results, {})).text()
    assert f"It took 7 min 11 s in {processes} processes." in text
    assert told in text


def test_a_study_made_in_python_has_no_command(written):
    results = study_example.results()
    results["command"] = None
    page = Page(written(results, {}))
    assert "To run it again" not in page.text()
    assert page.of("code") == []


def test_a_run_that_had_nothing_to_measure_says_so(written):
    results = study_example.results()
    results["timing"] |= {"network_seconds": 0.0, "ratio": None, "evaluations": 0, "seconds": 2.0}
    text = Page(written(results, {})).text()
    assert "It took 2.0 s. Nothing was left to measure: every cell was kept from an earlier run." in text
    assert "times the network" not in text


def test_a_reference_that_did_not_agree_is_told(written):
    results = study_example.results()
    results["reference"]["agreed"] = False
    assert "They did not agree to the 0.001 that was wanted" in Page(written(results, {})).text()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 56, 56)])
def test_sixty_rows_stay_below_five_megabytes(written, shape):
    results = study_example.results()
    results["model"]["shape"] = list(shape)
    assert len(results["rows"]) >= 58
    html = written(results, study_example.strips(results["rows"], shape))
    assert len(html.encode()) < LIMIT
    assert data_of(html)["tile"] == [shape[2], shape[1]]


def test_a_study_of_every_grid_stays_below_five_megabytes(written):
    results = study_example.results()
    results["model"]["shape"] = [3, 28, 28]
    results["rows"] = [
        row | {"key": f"{row['key']} {i}", "grid": f"grid {i}"} for i in range(8) for row in results["rows"]
    ]
    results["best"] = []
    picture = noise((3, 28, 28), 0)
    html = written(results, {"reference": picture} | {row["key"]: picture for row in results["rows"]})
    assert LIMIT / 2 < len(html.encode()) < LIMIT
    assert data_of(html)["seeds"] == [0, 1]


def noise(shape: tuple[int, int, int], seed: int) -> bytes:
    """A strip of 8 samples that does not compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (shape[1], 8 * shape[2], shape[0]), np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG", compress_level=0)
    return written.getvalue()


@pytest.mark.parametrize(("side", "count", "shown", "scale"), [(64, 20, 8, 1), (64, 60, 4, 1), (128, 40, 2, 0.5)])
def test_pictures_that_are_too_large_are_cut_and_then_made_smaller(side, count, shown, scale):
    strips = {name: noise((3, side, side), i) for i, name in enumerate(["reference", *map(str, range(count - 1))])}
    found, kept, at = fitting(strips, [3, side, side], 4_000_000)
    assert (kept, at) == (shown, scale)
    assert sum(map(len, found.values())) * 4 / 3 < 4e6
    first = np.asarray(Image.open(io.BytesIO(found["0"])), float)
    whole = np.asarray(Image.open(io.BytesIO(strips["0"])), float)[:, : shown * side]
    block = round(1 / scale)
    means = whole.reshape(side // block, block, shown * side // block, block, 3).mean((1, 3))
    assert np.abs(first - means).max() <= 1  # across and down, each rounded to bytes


def test_the_page_says_that_its_pictures_are_smaller(written):
    results = study_example.results()
    results["model"]["shape"] = [3, 128, 128]
    strips = {"reference": noise((3, 128, 128), 0)}
    strips |= {row["key"]: noise((3, 128, 128), i) for i, row in enumerate(results["rows"][:40], 1) if row["error"]}
    html = written(results, strips)
    assert "The same 2 start noises" in Page(html).text()
    assert "shown at 0.5 of their size" in Page(html).text()
    assert len(html.encode()) < LIMIT


def test_the_csv_has_a_line_a_cell_and_every_value(tmp_path, study):
    rows = study[0]["rows"]
    write_csv(tmp_path / "results.csv", study[0])
    with (tmp_path / "results.csv").open(newline="") as file:
        names, *lines = csv.reader(file)
    assert names == [column.replace(".", "_") for column in CSV_COLUMNS]
    assert len(set(names)) == len(names)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        flat = {}
        for name, value in row.items():
            inner = value if isinstance(value, dict) else {None: value}
            flat |= {name if part is None else f"{name}_{part}": found for part, found in inner.items()}
        told = {name: text for name, text in zip(names, line, strict=True) if text}
        assert told == {name: str(value) for name, value in flat.items() if value not in (None, "")}
