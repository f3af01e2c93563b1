"""What the tests of the page of a study do in a browser."""

import base64
import io

import numpy as np
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement


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


def point(page: WebDriver, key: str) -> WebElement:
    return find(page, f"#drawing .point[data-key='{key}']")
