"""The page of a study in a real browser, without a network: it runs, sorts, tells numbers, and shows samples."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import study_example
from PIL import Image

from ddim_ode.report import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs a browser: apt-get install chromium chromium-driver",
)
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
    )
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    results = study_example.results()
    file = tmp_path_factory.mktemp("study") / "report.html"
    write_report(file, results, study_example.strips(results["rows"]))
    return file


@pytest.fixture(params=WIDTHS, ids=lambda width: f"{width}px")
def page(request, browser, file) -> Iterator[WebDriver]:
    """The page at a width, new; afterwards, no error and no request but for the file itself and its own data."""
    size = {"width": request.param, "height": 844, "deviceScaleFactor": 1, "mobile": request.param < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(file.as_uri())
    WebDriverWait(browser, 20).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#sheet-seed option"))
    yield browser
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert file.as_uri() in requested  # the log is not empty because it is off
    assert [url for url in requested if url != file.as_uri() and not url.startswith("data:")] == []


def find(page: WebDriver, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def column(page: WebDriver, index: int) -> list[str]:
    """The texts of a column of the table of results, down to the first row that has none."""
    script = (
        "return [...document.querySelectorAll('#table-results tbody tr')].map(r => r.cells[arguments[0]]?.innerText)"
    )
    return page.execute_script(script, index)


def canvas(page: WebDriver, selector: str) -> np.ndarray:
    """The pixels of a canvas, (H, W, 4)."""
    url = page.execute_script("return document.querySelector(arguments[0]).toDataURL()", selector)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def of(key: str) -> str:
    return f".sheet .cell canvas[data-key='{key}']"


REFERENCE = ".sheet canvas[data-key='reference']"
DDIM = "ddim|uniform|nfe=5|eta=0"


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


def point(page: WebDriver, key: str) -> WebElement:
    return find(page, f"#drawing .point[data-key='{key}']")


def test_pointing_at_a_point_shows_its_numbers(page):
    tip = find(page, "#tooltip")
    assert not tip.is_displayed()
    ActionChains(page).move_to_element(point(page, "dpmpp_2m|log_snr|nfe=20|eta=0")).perform()
    assert tip.text.split("\n")[:5] == ["dpmpp_2m on log_snr, NFE 20", "NFE measured", "20", "Median error", "0.0105"]
    box, drawing = tip.rect, find(page, ".drawing").rect
    assert box["x"] >= drawing["x"] - 1
    assert box["x"] + box["width"] <= drawing["x"] + drawing["width"] + 1
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
    assert find(page, "#drawing [data-line='ddim, eta 0.5']")  # no error, but a distribution


def test_unresolved_points_are_hollow(page):
    keys = {row["key"] for row in study_example.results()["rows"] if row["resolved"] is False}
    marks = page.find_elements(By.CSS_SELECTOR, ".point.hollow")
    assert {mark.get_attribute("data-key") for mark in marks} == keys
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert {mark.value_of_css_property("fill") for mark in marks} == {paper}


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
    browser.get_log("browser")
    browser.get((tmp_path / "empty.html").as_uri())
    assert browser.get_log("browser") == []
    assert len(column(browser, 0)) == len(results["rows"]) == 3
    assert browser.find_elements(By.CSS_SELECTOR, "#plot, #samples") == []
