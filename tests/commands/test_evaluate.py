"""The command that evaluates: a row, its counts, and the same from several processes, killed or not."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_ode import data
from ddim_ode.metrics import evaluate
from tests.helpers.command_line import Command
from tests.helpers.launching import kill, launched, ranks_of, run, started

GENERATOR = torch.Generator().manual_seed(0)
PIXELS = torch.randint(256, (40, 8, 8, 1), dtype=torch.uint8, generator=GENERATOR).numpy()


def npz(file: Path, pixels: np.ndarray) -> Path:
    np.savez(file, pixels)
    return file


def record_of(out: Path) -> dict:
    """What an evaluation says, but for the time that it took and its seal."""
    told = json.loads((out / "evaluation.json").read_text())
    return {name: value for name, value in told.items() if name not in ("seconds", "sha256")}


def test_a_row_and_its_counts(run: Command, tmp_path: Path) -> None:
    ours, theirs = npz(tmp_path / "a.npz", PIXELS[:25]), npz(tmp_path / "b.npz", PIXELS[15:])
    ran = run("evaluate", ours, "--real", theirs, "--out", tmp_path / "out", "-n", 25, "--statistics")
    assert ran.code == 0
    assert ran.err == "warning: 10 of the samples are real images, to the last byte\n"
    found = evaluate(ours, theirs)
    row = next(line.split() for line in ran.out.splitlines() if line.split()[:1] == ["25"])
    assert row[:3] == ["25", f"{found.frechet:.4g}", "-"]
    for line in (
        f"{ours}: 25 of 25 samples, 25 distinct",
        f"against {theirs}: 25 real images, 25 distinct",
        "KID of 25 and 25 images, precision and recall of 25 each",
        "no spatial_frechet: features='pixels' have no spatial ones; sFID is of features='inception'",
        "no inception_score, inception_score_error: features='pixels' tell no probabilities of classes",
        str(tmp_path / "out"),
    ):
        assert line in ran.out.splitlines()
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {
        *("evaluation.json", "statistics.npz", "samples-statistics.npz", "samples", "real")
    }
    ran = run("evaluate", ours, "--real", tmp_path / "out" / "statistics.npz", "--out", tmp_path / "b", "--json")
    assert json.loads(ran.out)["frechet"] == pytest.approx(found.frechet, rel=1e-6)
    assert json.loads(ran.out)["samples"] == {"name": str(ours), "asked": 25, "found": 25, "distinct": 25}


def test_fewer_samples_than_asked_for_and_equal_ones_make_no_row(run: Command, tmp_path: Path) -> None:
    ours, out = npz(tmp_path / "a.npz", PIXELS[[0, 1, 2, 3, 4, 5, 6, 7, 7]]), tmp_path / "out"
    ran = run("evaluate", ours, "--real", ours, "--out", out, "-n", 10)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: {ours}: 10 samples asked for, 9 found, 8 distinct; make 1 more, or measure what there are with -n 9\n"
    )
    ran = run("evaluate", ours, "--real", ours, "--out", out)
    assert (ran.code, ran.out) == (2, "")
    assert "9 samples asked for, 9 found, 8 distinct; leave out those that are there again, or allow" in ran.err
    assert run("evaluate", ours, "--real", ours, "--out", out, "--repeats").code == 0


def test_a_reference_batch_of_others_says_what_it_does_not_say(run: Command, tmp_path: Path) -> None:
    batch, pixels = tmp_path / "batch.npz", PIXELS[:30].reshape(30, -1) / 127.5 - 1
    np.savez(batch, arr_0=PIXELS[:30], mu=pixels.mean(0), sigma=np.cov(pixels, rowvar=False))
    ran = run("evaluate", npz(tmp_path / "a.npz", PIXELS[20:]), "--real", batch, "--out", tmp_path / "out")
    assert (ran.code, ran.err) == (
        0,
        f"warning: {batch} does not say in which features, or how resized: see to it that these are the same\n"
        "warning: 10 of the samples are real images, to the last byte\n",
    )
    assert "KID of 20 and 30 images, precision and recall of 20 each" in ran.out.splitlines()


def test_what_ddim_ode_sample_wrote_is_evaluated(run: Command, model: Path, tmp_path: Path) -> None:
    assert run("sample", model, "-n", 12, "--nfe", 2, "--images", "--out", tmp_path / "samples").code == 0
    found = []
    for what, out in ((tmp_path / "samples", "a"), (tmp_path / "samples" / "images", "b")):
        ran = run("evaluate", what, "--real", npz(tmp_path / "a.npz", PIXELS), "--out", tmp_path / out, "--json")
        assert ran.code == 0, ran.err
        found.append(json.loads(ran.out))
    for name in ("frechet", "kid", "precision", "recall", "copies"):
        assert found[0][name] == found[1][name]


def test_two_processes_that_are_killed_and_two_that_go_on_give_what_one_gives(tmp_path: Path) -> None:
    images, _ = data.fashion_mnist("test")
    ours = npz(tmp_path / "a.npz", images[:800].movedim(1, -1).numpy())
    theirs = npz(tmp_path / "b.npz", images[800:2000].movedim(1, -1).numpy())

    def words(out: str) -> list[object]:
        return ["evaluate", ours, "--real", theirs, "--out", tmp_path / out, "--shard-size", 50, "--most", 300]

    launcher = started(launched(words("two")))
    while len(list((tmp_path / "two").glob("*/*.safetensors"))) < 6:
        assert launcher.poll() is None, launcher.stderr.read()
        time.sleep(0.02)
    kill(*ranks_of(launcher), launcher.pid)
    launcher.communicate(timeout=20)
    left = len(list((tmp_path / "two").glob("*/*.safetensors")))
    assert left < 40
    assert not (tmp_path / "two" / "evaluation.json").exists()
    ended = run(launched(words("two")))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("800 of 800 samples") == 1
    assert "process 2 of 2: evaluated" in ended.stderr
    evaluate(ours, theirs, out=tmp_path / "one", shard_size=50, most=300)
    assert record_of(tmp_path / "two") == record_of(tmp_path / "one")
    files = sorted(file.relative_to(tmp_path / "one") for file in (tmp_path / "one").rglob("*.*") if file.is_file())
    assert len(files) > 40
    for file in files:
        if file.name not in ("evaluation.json", ".lock"):
            assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), file
