"""Names on a study's page and in its table that a terminal, a browser or an encoding would stumble over."""

import csv
import json
import re

import pytest

from ddim_ode.study.report.page import write_csv, write_report
from tests.helpers import study_example


def test_what_one_cannot_see_in_a_name_is_shown(tmp_path):
    results = study_example.results()
    results["model"]["name"] = "a\u202eb\x1b[31m\x00\udcff"
    results["reference"]["method"] = results["rows"][0]["method"] = "m\u2066\n"
    write_report(tmp_path / "a.html", results, {})
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    shown = r"a\u202eb\x1b[31m\x00\udcff"
    for tag in ("h1", "title"):
        assert f"<{tag}>Solvers compared on {shown}</{tag}>" in html
    assert not {c for c in html if not c.isprintable()} - {"\n"}
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1]
    assert json.loads(data)["rows"][0]["method"] == "m\u2066\n"


@pytest.mark.parametrize("name", ["a,b", 'say "a"', "a\nb", "a\r\nb", "ünï", "a\udcff"])
def test_a_name_is_one_field_of_the_table(tmp_path, name):
    results = study_example.results()
    results["rows"][0]["method"] = name
    write_csv(tmp_path / "a.csv", results)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results["rows"])
    assert rows[0]["method"] == name.replace("\udcff", r"\udcff")
