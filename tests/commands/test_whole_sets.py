"""The commands that measure a whole set of images, by one process or many: the same numbers, whoever was killed."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddim_ode
from ddim_ode.data import bundled_images
from ddim_ode.image_sets import open_images
from ddim_ode.likelihood import log_likelihood
from ddim_ode.support.process import computing
from tests.helpers.command_line import Command
from tests.helpers.launching import kill, launched, ranks_of, started
from tests.helpers.launching import run as ended

COUNT = 80
HEUN3 = ("--method", "heun3", "--nfe", 12, "--batch-size", 32)


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 80 images of 8 x 8 bytes: three shards of batches of 32."""
    folder = tmp_path_factory.mktemp("many")
    for i, image in enumerate(np.random.default_rng(4).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8)):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def shards_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def test_the_likelihood_of_a_set(run: Command, model: Path, many: Path, tmp_path: Path) -> None:
    keep, out = tmp_path / "kept", tmp_path / "out.csv"
    ran = run("likelihood", model, many, "--keep", keep, *HEUN3, "--seed", 3, "--label", 2, "--out", out)
    assert (ran.code, ran.err) == (0, "")
    x = open_images(many)[:COUNT]
    with computing(1):
        expected = log_likelihood(ddim_ode.load(model), x, 2, method="heun3", nfe=12, batch_size=32, seed=3)
    assert ran.out.splitlines()[0].startswith(f"{many}: 80 images, heun3, measured NFE 12, ")
    assert ran.out.splitlines()[1] == f"bits/dim  {expected.mean:.4f} ± {expected.mean_error:.4f}"
    assert ran.out.splitlines()[3:] == [str(out), str(keep / "results.json")]
    with out.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [float(row["nats"]) for row in rows] == expected.nats.tolist()
    assert [row["image"] for row in rows] == [f"{i}.png" for i in range(COUNT)]
    results = json.loads((keep / "results.json").read_text())
    assert [results[name] for name in ("in_set", "asked", "count", "threads")] == [COUNT, COUNT, COUNT, 1]
    assert (results["bits_per_dim"], results["standard_error"]) == (expected.mean, expected.mean_error)
    again = run("likelihood", model, many, "--keep", keep, *HEUN3, "--seed", 3, "--label", 2, "--json")
    told = json.loads(again.out)
    assert (told["bits_per_dim"], len(told["images"]), told["results"]) == (
        expected.mean,
        COUNT,
        str(keep / "results.json"),
    )


def test_reconstruct_a_set(run: Command, model: Path, many: Path, tmp_path: Path) -> None:
    common = ["reconstruct", model, many, "-n", 40, "--method", "leapfrog,ddim,rk4", "--nfe", 3, "--batch-size", 32]
    ran = run(*common, "--keep", tmp_path / "kept", "--guidance", 1.5, "--label", 2, "--json")
    assert (ran.code, ran.err) == (0, "")
    rows = json.loads(ran.out)["methods"]
    assert [(row["method"], row["guidance"]) for row in rows] == [
        (n, g) for n in ("leapfrog", "ddim", "rk4") for g in (1, 1.5)
    ]
    with computing(1):
        network, x = ddim_ode.load(model), open_images(many)[:40]
        expected = ddim_ode.reconstruct(network, x, "ddim", 3, labels=2, batch_size=32)
    assert (rows[0]["bit_exact"], rows[0]["same_bytes"], rows[0]["psnr"]) == (40, 40, None)
    assert rows[2]["max_error"] == float(expected.max_error.max())
    assert "nfe=3 is too small" in rows[4]["error"]
    results = json.loads((tmp_path / "kept" / "results.json").read_text())
    assert results["methods"][2]["each"]["rms"] == expected.rms.tolist()
    assert (results["in_set"], results["asked"], len(results["images"]), results["labels"][-1]) == (COUNT, 40, 40, 2)
    text = run(*common, "--keep", tmp_path / "text").out
    assert text.startswith(f"{many}: 40 images, float32\n")
    assert "40/40" in text
    assert "rk4 failed: nfe=3 is too small" in text


def test_a_set_has_labels_of_its_own(run: Command, tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    ran = run("reconstruct", "fashion", "bundled", "--keep", keep, "-n", 3, "--method", "ddim", "--nfe", 1)
    assert ran.code == 0
    pixels, labels = bundled_images()
    results = json.loads((keep / "results.json").read_text())
    assert results["labels"] == labels[:3].tolist()
    with computing(1):
        expected = ddim_ode.reconstruct(ddim_ode.load("fashion"), pixels[:3], "ddim", 1, labels=labels[:3])
    assert results["methods"][0]["each"]["mse"] == expected.mse.tolist()


def test_two_processes_that_were_killed_go_on(run: Command, model: Path, many: Path, tmp_path: Path) -> None:
    slow = ("--method", "heun3", "--nfe", 48, "--batch-size", 32)
    one, two = tmp_path / "one", tmp_path / "two"
    assert run("likelihood", model, many, *slow, "--keep", one, "--out", tmp_path / "one.csv").code == 0
    command = launched(["likelihood", model, many, *slow, "--keep", two, "--out", tmp_path / "two.csv"])
    killed = started(command)
    while killed.poll() is None and not shards_in(two):
        time.sleep(0.02)
    ranks = ranks_of(killed)
    kill(killed.pid, *ranks)
    killed.communicate(timeout=20)
    left = len(shards_in(two))
    assert 1 <= left < len(shards_in(one))
    assert not (tmp_path / "two.csv").exists()
    gone_on = ended(command)
    assert gone_on.returncode == 0, gone_on.stderr
    assert gone_on.stdout.count("bits/dim") == 1  # the first process alone tells
    lines = [line for line in gone_on.stderr.splitlines() if line.startswith("process ")]
    assert sorted(line[:15] for line in lines) == ["process 1 of 2:", "process 2 of 2:"]
    assert shards_in(two) == shards_in(one)
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_several_processes_need_a_folder(fails, model: Path, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in ("likelihood", "reconstruct"):
        line = fails(command, model, many, "--method", "euler" if command == "likelihood" else "ddim")
        assert line == "error: 2 processes share the work by a folder; say which: --keep DIR\n"


def test_what_cannot_be_is_one_line(fails, run: Command, model: Path, many: Path, tmp_path: Path) -> None:
    keep = ("--keep", tmp_path / "kept")
    line = fails("likelihood", model, many, "-n", 81, *HEUN3, *keep)
    assert line == "error: n=81 is too many: there are 80 images; use -n 80 or fewer\n"
    assert not (tmp_path / "kept").exists()
    assert "measures one set of images, and none was given" in fails("likelihood", model, *keep)
    assert "measures one set of images, and 2 were given" in fails("reconstruct", model, many, many, *keep)
    assert "no such file or folder" in fails("likelihood", model, tmp_path / "none", *keep)
    assert "are (1, 28, 28), not (1, 8, 8)" in fails("likelihood", model, "bundled", *keep)
    line = fails("reconstruct", model, many, *keep, "--out", tmp_path / "out")
    assert f"--out is for a few images; with --keep the results are in {tmp_path / 'kept'}" in line
    assert run("likelihood", model, many, "-n", 40, *HEUN3, *keep).code == 0
    line = fails("likelihood", model, many, "-n", 40, *HEUN3, *keep, "--seed", 1)
    assert line == f"error: {tmp_path / 'kept'} belongs to another job: its seed is 0, not 1; choose another --keep\n"
    assert "its threads is 1, not 2" in fails("likelihood", model, many, "-n", 40, *HEUN3, *keep, "--threads", 2)
    line = fails("reconstruct", model, many, "-n", 40, *keep)
    assert "choose another --keep" in line


@pytest.mark.filterwarnings("default")
def test_changed_images_and_flipped_bits(run: Command, fails, model: Path, tmp_path: Path) -> None:
    images, keep = tmp_path / "images", tmp_path / "kept"
    images.mkdir()
    for i in range(40):
        Image.new("L", (8, 8), 6 * i).save(images / f"{i}.png")
    command = ["likelihood", model, images, "--method", "euler", "--nfe", 2, "--batch-size", 32, "--keep", keep]
    first = run(*command)
    file = keep / "likelihood-00001-of-00002.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again = run(*command)
    assert again.err == f"warning: {file} is damaged: its digest is another; it is measured again\n"
    assert again.out.splitlines()[1:] == first.out.splitlines()[1:]
    assert file.read_bytes() == whole
    Image.new("L", (8, 8), 1).save(images / "7.png")
    line = fails(*command)
    assert f"{keep} holds the numbers of other images: image 7 (7.png) is not the one that was measured" in line
