"""The sheet of samples of a study's page in a real browser: one or all, differences, and one enlarged."""

import numpy as np
import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.helpers.browsing import canvas, find


def of(key: str) -> str:
    return f".sheet .cell canvas[data-key='{key}']"


REFERENCE = ".sheet canvas[data-key='reference']"
DDIM = "ddim|uniform|nfe=5|eta=0"


def test_the_sheet_shows_all_samples_or_one(page):
    whole = canvas(page, of(DDIM))
    assert whole.shape == (2 * 28, 4 * 28, 4)
    Select(find(page, "#sheet-seed")).select_by_visible_text("seed 5")
    one = canvas(page, of(DDIM))
    assert np.array_equal(one, whole[28:, 28:56])
    assert canvas(page, REFERENCE).shape == (28, 28, 4)


def test_the_difference_view_is_the_amplified_signed_difference(page):
    own, reference = (canvas(page, name).astype(int) for name in (of(DDIM), REFERENCE))
    assert not np.array_equal(own, reference)
    for gain, title in ((1, "difference from the reference"), (5, "difference × 5")):
        Select(find(page, "#sheet-view")).select_by_visible_text(title)
        expected = np.clip(128 + gain * (own - reference), 0, 255)
        assert np.array_equal(canvas(page, of(DDIM))[..., :3], expected[..., :3])
        assert np.array_equal(canvas(page, REFERENCE), reference)
    Select(find(page, "#sheet-view")).select_by_visible_text("images")
    assert np.array_equal(canvas(page, of(DDIM)), own)


def test_a_cell_is_enlarged_beside_the_reference(page):
    whole, reference = canvas(page, of(DDIM)), canvas(page, REFERENCE)
    find(page, f".cell[data-key='{DDIM}']").send_keys(Keys.ENTER)
    assert find(page, "#enlarged").is_displayed()
    assert find(page, "#enlarged-title").text == "ddim on uniform, NFE 5"
    assert find(page, "#enlarged-note").text.startswith("Seed 0, sample 1 of 8")
    assert np.array_equal(canvas(page, "#enlarged-own"), whole[:28, :28])
    find(page, "#enlarged-on").click()
    assert np.array_equal(canvas(page, "#enlarged-own"), whole[:28, 28:56])
    assert np.array_equal(canvas(page, "#enlarged-reference"), reference[:28, 28:56])
    ActionChains(page).send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT).perform()
    assert find(page, "#enlarged-note").text.startswith("Seed 7, sample 8 of 8")
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    assert not find(page, "#enlarged").is_displayed()
    # by pointer, the sample that was pressed
    cell = find(page, f".cell[data-key='{DDIM}'] canvas")
    ActionChains(page).move_to_element_with_offset(cell, 2, cell.rect["height"] // 4).click().perform()
    assert find(page, "#enlarged-note").text.startswith("Seed 6, sample 7 of 8")
    find(page, "#enlarged-close").click()
