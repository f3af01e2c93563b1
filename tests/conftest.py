"""Settings that must hold before torch is imported, and the fixtures of several files. Nothing is seeded here: a test
passes its own seed.
"""

import json
import os
import shutil
import time

# Idle OpenMP threads that spin slow torch several-fold as soon as another process is busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch
from PIL import Image

from ddim_ode.cli import main
from ddim_ode.study.report.page import write_report
from ddim_ode.training.train import TrainingRun, train
from tests.helpers import study_example
from tests.helpers.command_line import Command, Ran, make_model
from tests.helpers.training import KINDS, folder_of, settings

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

# The same examples on every run, and no time limit an example could miss by chance.
hypothesis.settings.register_profile("ddim_ode", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ddim_ode")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that uses the browser has its marker."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


# --- training


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One folder of each kind of data."""
    generator = torch.Generator().manual_seed(0)
    images = tmp_path_factory.mktemp("images")
    for i in range(24):
        pixels = torch.randint(256, (64,), generator=generator).tolist()
        Image.frombytes("L", (8, 8), bytes(pixels)).save(images / f"{i:02d}.png")
    fashion = tmp_path_factory.mktemp("fashion")
    pixels = torch.randint(256, (20 * 784,), generator=generator).tolist()
    header = b"".join(n.to_bytes(4, "big") for n in (20, 28, 28))
    (fashion / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + header + bytes(pixels))
    (fashion / "train-labels-idx1-ubyte").write_bytes(
        b"\0\0\x08\x01" + (20).to_bytes(4, "big") + bytes(k % 10 for k in range(20))
    )
    classes = tmp_path_factory.mktemp("classes")
    for i, name in enumerate(("b", "a", "c") * 8):
        (classes / name).mkdir(exist_ok=True)
        shutil.copy(images / f"{i:02d}.png", classes / name)
    return {"images": images, "fashion-mnist": fashion, "classes": classes}


@pytest.fixture
def pictures(request, monkeypatch) -> None:
    """The sheet of samples costs more than all else; in a file that uses this, only the tests marked so draw it."""
    if "draws" not in request.fixturenames:
        monkeypatch.setattr(TrainingRun, "picture", lambda self: None)


@pytest.fixture
def draws() -> None:
    """Ask for the sheet of samples."""


@pytest.fixture(scope="session")
def whole(folders, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of an uninterrupted run of each kind, made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("whole")
            config = settings(**KINDS[kind])
            train(config, made[kind], folder_of(config, folders))
        return made[kind]

    return get


# --- the command line


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def fails(run: Command) -> Callable[..., str]:
    """Run something that must fail as bad input does; returns the line."""

    def fails(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return fails


# --- a browser


@pytest.fixture(scope="session")
def browser() -> Iterator["WebDriver"]:
    """A headless Chromium that has no network."""
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if chromium is None or driver is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    started.execute_cdp_cmd("Network.enable", {})
    started.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield started
    started.quit()


@pytest.fixture(scope="session")
def study_page(tmp_path_factory) -> Path:
    """The page of the invented study."""
    results = study_example.results()
    file = tmp_path_factory.mktemp("study") / "report.html"
    write_report(file, results, study_example.strips(results["rows"]))
    return file


@pytest.fixture(params=[1280, 390], ids=lambda width: f"{width}px")
def page(request, browser, study_page) -> Iterator["WebDriver"]:
    """The page at a width, new; afterwards, no error and no request but for the file itself and its own data."""
    size = {"width": request.param, "height": 844, "deviceScaleFactor": 1, "mobile": request.param < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # of other pages; reading empties it
    browser.get(study_page.as_uri())
    deadline = time.monotonic() + 20
    while not browser.execute_script("return document.getElementById('sheet-seed').length"):  # pictures are decoded
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield browser
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [
        event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
    ]
    assert study_page.as_uri() in requested  # the log is not empty because it is off
    assert [url for url in requested if url != study_page.as_uri() and not url.startswith("data:")] == []
