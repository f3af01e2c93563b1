"""The plot of a study's page in a real browser: by pointer, by keyboard, its legend and its menus."""

import re

import numpy as np
import pytest

from tests.helpers import study_example

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.helpers.browsing import find, point


def test_pointing_at_a_point_shows_its_numbers(page):
    tip = find(page, "#tooltip")
    assert not tip.is_displayed()
    ActionChains(page).move_to_element(point(page, "dpmpp_2m|log_snr|nfe=20|eta=0")).perform()
    WebDriverWait(page, 5).until(lambda _: tip.is_displayed())  # which a busy machine is slow to do
    assert tip.text.split("\n")[:5] == ["dpmpp_2m on log_snr, NFE 20", "NFE measured", "20", "Median error", "0.0105"]
    box, drawing = tip.rect, find(page, ".drawing").rect
    assert box["x"] >= drawing["x"] - 1
    assert box["x"] + box["width"] <= drawing["x"] + drawing["width"] + 1
    mark = point(page, "dpmpp_2m|log_snr|nfe=20|eta=0").rect
    x, y = mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2
    # it does not cover the point
    assert not (box["x"] < x < box["x"] + box["width"] and box["y"] < y < box["y"] + box["height"])
    ActionChains(page).move_to_element(find(page, "#plot h2")).perform()
    assert not tip.is_displayed()


def test_the_keyboard_walks_from_point_to_point(page):
    tip = find(page, "#tooltip")
    first = find(page, "#drawing .point[tabindex='0']")
    find(page, "#plot-y").click()
    ActionChains(page).send_keys(Keys.ESCAPE, Keys.TAB).perform()
    assert page.switch_to.active_element == first
    assert first.get_attribute("aria-label").startswith(tip.text.split("\n")[0])
    seen = [tip.text.split("\n")[0]]
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_DOWN):
        ActionChains(page).send_keys(key).perform()
        seen.append(tip.text.split("\n")[0])
    assert seen[:3] == ["ddim on uniform, NFE 5", "ddim on uniform, NFE 10", "ddim on uniform, NFE 5"]
    assert not seen[3].startswith("ddim ")
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()


def test_the_legend_hides_and_shows_a_method(page):
    button = find(page, "#legend [data-line='heun']")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.find_elements(By.CSS_SELECTOR, "#drawing [data-line='heun']") == []
    assert len(page.find_elements(By.CSS_SELECTOR, "#drawing .line")) == len(study_example.METHODS) - 1
    button.send_keys(Keys.SPACE)
    assert len(page.find_elements(By.CSS_SELECTOR, "#drawing .line")) == len(study_example.METHODS)
    find(page, "#show-none").click()
    assert page.find_elements(By.CSS_SELECTOR, "#drawing .line") == []
    find(page, "#show-all").click()
    assert len(page.find_elements(By.CSS_SELECTOR, "#drawing .line")) == len(study_example.METHODS)


def test_points_lie_where_the_axes_say(page):
    """Against a straight line through the tick labels in log NFE and log error."""
    ticks = page.execute_script(
        "return [...document.querySelectorAll('.axes text')].map(t => [t.textContent, +t.getAttribute('x'),"
        " +t.getAttribute('y'), t.getAttribute('text-anchor')])"
    )
    where = {"middle": ([], []), "end": ([], [])}
    for text, x, y, anchor in ticks:
        if re.fullmatch(r"[\d.e-]+", text):
            where[anchor][0].append(np.log(float(text)))
            where[anchor][1].append(x if anchor == "middle" else y - 4)
    (ax, bx), (ay, by) = (np.polyfit(*where[anchor], 1) for anchor in ("middle", "end"))
    row = next(row for row in study_example.results()["rows"] if row["key"] == "ddim|uniform|nfe=20|eta=0")
    mark = point(page, row["key"])
    assert float(mark.get_attribute("cx")) == pytest.approx(ax * np.log(20) + bx, abs=0.5)
    assert float(mark.get_attribute("cy")) == pytest.approx(ay * np.log(row["error"]["median"]) + by, abs=0.5)


def test_another_cost_and_another_quality(page):
    before = point(page, "ddim|uniform|nfe=20|eta=0").get_attribute("cx")
    Select(find(page, "#plot-x")).select_by_visible_text("Wall time an image, ms")
    assert "Wall time an image, ms" in find(page, "#drawing").get_attribute("textContent")
    assert point(page, "ddim|uniform|nfe=20|eta=0").get_attribute("cx") != before
    assert len(page.find_elements(By.CSS_SELECTOR, ".floor")) == 1
    Select(find(page, "#plot-y")).select_by_visible_text("Frechet distance")
    assert page.find_elements(By.CSS_SELECTOR, ".floor") == []
    ActionChains(page).move_to_element(point(page, "heun|karras|nfe=20|eta=0")).perform()
    assert "Frechet distance\n12.3\n" in find(page, "#tooltip").text
    assert find(page, "#drawing [data-line='ddim, eta 0.5']")  # no error, but a distribution


def test_unresolved_points_are_hollow(page):
    keys = {row["key"] for row in study_example.results()["rows"] if row["resolved"] is False}
    marks = page.find_elements(By.CSS_SELECTOR, ".point.hollow")
    assert {mark.get_attribute("data-key") for mark in marks} == keys
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert {mark.value_of_css_property("fill") for mark in marks} == {paper}
