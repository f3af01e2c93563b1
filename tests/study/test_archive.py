"""The folder of a study: it goes on wherever it was cut short, and is nobody else's."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_ode.study import archive
from ddim_ode.study.cells import StudyError
from ddim_ode.study.comparison import Study, compare
from ddim_ode.support.outputs import OutputError
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.small_study import MODEL, SMALL, timeless
from tests.helpers.tables import PATHS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study() -> Study:
    return compare(MODEL, **SMALL)


def test_a_study_that_is_cut_short_goes_on_and_one_more_method_costs_its_own_cells(study, tmp_path):
    generator, cuts, found = np.random.default_rng(0), 0, None
    while not found:
        left = iter(range(int(generator.integers(1, 12))))

        def stop(now, left=left, first=not cuts):
            if (first or not now.what.startswith("reference")) and next(left, None) is None:
                raise KeyboardInterrupt

        try:
            found = compare(MODEL, **SMALL, out=tmp_path, callback=stop)
        except KeyboardInterrupt:
            cuts += 1
    assert cuts >= 5
    assert timeless(found) == timeless(study)
    again = compare(MODEL, **SMALL, out=tmp_path)
    assert again.results["timing"]["evaluations"] == 0
    assert timeless(again) == timeless(study)
    more = compare(MODEL, **{**SMALL, "methods": [*SMALL["methods"], "dpmpp_2m"]}, out=tmp_path)
    assert more.results["timing"]["evaluations"] == 6 * (4 + 9)
    assert more.rows[: len(study.rows)] == again.rows


def test_one_study_at_a_time_and_no_folder_of_another(tmp_path):
    few = {"methods": ["ddim"], "nfe": [2], "seeds": range(2)}
    compare(MODEL, **few, out=tmp_path / "a")
    with archive.opened(tmp_path / "b", {"model": "x"}):
        line = one_line(OutputError, compare, MODEL, **few, out=tmp_path / "b")
        assert line.startswith(f"another run is at work in {tmp_path / 'b'}; wait for it")
    line = one_line(StudyError, compare, MODEL, **{**few, "seeds": [5, 6]}, out=tmp_path / "a")
    assert line == f"{tmp_path / 'a'} belongs to another study: its seeds is [0, 1], not [5, 6]; choose another --out"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.tex").write_text("precious")
    assert "is not empty and has no study.json" in one_line(OutputError, compare, MODEL, **few, out=tmp_path / "c")
    (tmp_path / "d").write_text("a file")
    one_line(OutputError, compare, MODEL, **few, out=tmp_path / "d")


def test_another_network_without_weights_is_another_study(tmp_path):
    few = {"methods": ["ddim"], "nfe": [3], "seeds": range(2), "out": tmp_path}
    compare(MODEL, **few)
    other = labelled((1, 12, 12), seed=5).denoiser(PATHS["linear"])
    line = one_line(StudyError, compare, other, **few)
    assert line == f"{tmp_path} belongs to another study: its network answers otherwise; choose another --out"


def test_a_kill_before_the_folder_was_claimed_does_not_block_it(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".study.json.0123456789ab.tmp").write_text("{")
    compare(MODEL, ["ddim"], [2], range(2), out=tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "cells", "study.json"]


def test_a_folder_of_cells_alone_is_not_a_study(tmp_path):
    """Whose dotted files would be deleted."""
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / ".mine.tmp").write_text("precious")
    one_line(OutputError, compare, MODEL, ["ddim"], [2], range(2), out=tmp_path)
    assert (tmp_path / "cells" / ".mine.tmp").read_text() == "precious"


@pytest.mark.parametrize("which", [0, -1])
def test_a_bit_of_a_cell_that_flips_is_measured_again(which, tmp_path):
    few = {"methods": ["ddim"], "nfe": [2], "seeds": range(2)}
    wanted = timeless(compare(MODEL, **few, out=tmp_path))["rows"]
    file = sorted((tmp_path / "cells").iterdir())[which]
    written = file.read_bytes()
    for bit in torch.randint(8 * len(written), (5,), generator=torch.Generator().manual_seed(0)).tolist():
        flipped = bytearray(written)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        assert timeless(compare(MODEL, **few, out=tmp_path))["rows"] == wanted
        assert file.read_bytes() != bytes(flipped)


@pytest.mark.slow
def test_kill_9_at_ten_random_moments_changes_nothing(tmp_path):
    script = [sys.executable, "-m", "tests.helpers.killed_study"]
    whole = tmp_path / "whole.json"
    subprocess.run([*script, tmp_path / "a", whole], cwd=ROOT, check=True)
    generator, kills = np.random.default_rng(1), 0
    while kills < 10:
        child = subprocess.Popen([*script, tmp_path / "b", tmp_path / "resumed.json"], cwd=ROOT)
        deadline = time.monotonic() + 60
        while not (tmp_path / "b" / "cells").is_dir() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(float(generator.uniform(0.5, 4)))
        if child.poll() is not None:
            break
        child.kill()
        child.wait()
        kills += 1
    assert kills >= 3  # a fast machine is through before the tenth
    subprocess.run([*script, tmp_path / "b", tmp_path / "resumed.json"], cwd=ROOT, check=True)
    assert json.loads((tmp_path / "resumed.json").read_text()) == json.loads(whole.read_text())
