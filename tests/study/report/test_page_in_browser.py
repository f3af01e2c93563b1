"""The page of a study in a real browser, without a network: it loads without an error, fits, sorts and can be read."""

import re

import numpy as np
import pytest

from tests.helpers import study_example

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from ddim_ode.study.report.page import write_report
from tests.helpers.browsing import column, find


def test_it_loads_and_fits_the_width(page):
    assert page.title == "Solvers compared on fashion"
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert len(page.find_elements(By.CSS_SELECTOR, "#drawing .line")) == len(study_example.METHODS)
    box = find(page, "#drawing").rect
    sizes = page.execute_script(
        "return [...document.querySelectorAll('#drawing text')].map(t => parseFloat(getComputedStyle(t).fontSize)"
        " * Math.hypot(t.getScreenCTM().a, t.getScreenCTM().b))"
    )
    assert box["width"] > 300
    assert min(sizes) > 11.5  # text keeps its size on a phone


@pytest.mark.parametrize("press", ["click", "enter"])
def test_a_title_sorts_its_column_and_again_the_other_way(page, press):
    before = column(page, 5)
    head = find(page, "#table-results th:nth-child(6)")
    assert head.text.startswith("Median error")
    assert head.get_attribute("aria-sort") == "none"

    def press_title() -> list[float]:
        button = head.find_element(By.TAG_NAME, "button")
        if press == "click":
            button.click()
        else:
            button.send_keys(Keys.ENTER)
        return [float(text.split()[0]) for text in column(page, 5) if text and re.match(r"\d", text)]

    up = press_title()
    assert head.get_attribute("aria-sort") == "ascending"
    assert up == sorted(up)
    assert len(up) == 51
    assert all(text is None or text == "–" for text in column(page, 5)[len(up) :])  # no error, or not done
    down = press_title()
    assert head.get_attribute("aria-sort") == "descending"
    assert down == up[::-1] == sorted(up, reverse=True)
    assert sorted(map(str, column(page, 5))) == sorted(map(str, before))


def test_names_sort_as_words_and_only_one_column_is_marked(page):
    find(page, "#table-results th:nth-child(5) button").click()
    find(page, "#table-results th:nth-child(1) button").click()
    names = column(page, 0)
    assert names == sorted(names, key=lambda name: name.replace("_", " "))
    marked = page.find_elements(By.CSS_SELECTOR, "#table-results th[aria-sort]:not([aria-sort=none])")
    assert [head.text.split()[0] for head in marked] == ["Method"]


def test_the_command_is_copied_or_selected(page):
    find(page, "#copy").click()
    WebDriverWait(page, 5).until(lambda d: find(d, "#copy").text in ("Copied", "Selected"))
    if find(page, "#copy").text == "Selected":
        selected = page.execute_script("return getSelection().toString()")
        assert selected == study_example.results()["command"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_the_paper(page, scheme):
    """WCAG 2 contrast: 4.5 for text, 3 for what is drawn."""
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    style = "const s = getComputedStyle(document.documentElement); return arguments[0].map(n => s.getPropertyValue(n))"
    paper, raised, *texts = page.execute_script(style, ["--paper", "--raised", "--ink", "--quiet", "--link"])
    lines = page.execute_script(style, [f"--line-{i}" for i in range(8)])
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert (luminance(paper) > 0.9) == (scheme == "light")
    for behind in (paper, raised):
        assert min(contrast(text, behind) for text in texts) >= 4.5
        assert min(contrast(line, behind) for line in lines) >= 3


def luminance(color: str) -> float:
    channels = np.array([int(color.strip()[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_a_study_without_pictures_and_errors_still_runs(browser, tmp_path):
    results = study_example.results()
    results["rows"] = [row for row in results["rows"] if row["status"] != "done"]
    results["best"] = []
    write_report(tmp_path / "empty.html", results, {})
    browser.get_log("browser")  # of other pages; reading empties it
    browser.get((tmp_path / "empty.html").as_uri())
    assert browser.get_log("browser") == []
    assert len(column(browser, 0)) == len(results["rows"]) == 3
    assert browser.find_elements(By.CSS_SELECTOR, "#plot, #samples") == []
