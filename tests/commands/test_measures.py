"""The commands that measure: images to latents and back, method by method, and their likelihood."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddim_ode
from ddim_ode.likelihood import log_likelihood
from tests.helpers.command_line import Command, pixels_of


def test_reconstruct_compares_methods(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    common = ["reconstruct", model, images, "--method", "leapfrog,ddim,rk4,adaptive", "--nfe", 3, "--tol", 0.1]
    ran = run(*common, "--guidance", 1.5, "--label", 2, "--out", out, "--json")
    assert (ran.code, ran.err) == (0, "")
    rows = json.loads(ran.out)["methods"]
    names = ["leapfrog", "ddim", "rk4", "adaptive"]
    assert [(row["method"], row["guidance"]) for row in rows] == [(n, g) for n in names for g in (1, 1.5)]
    expected = ddim_ode.reconstruct(ddim_ode.load(model), pixels_of(images), "ddim", 3, labels=2)
    assert rows[2]["max_error"] == float(expected.max_error.max())
    assert rows[2]["psnr"] == pytest.approx(-10 * float(expected.mse.mean().log10()))
    assert rows[2]["latent_std"] == pytest.approx(float(expected.latent.noise.std(correction=0)))
    assert (rows[0]["bit_exact"], rows[0]["same_bytes"], rows[0]["psnr"]) == (4, 4, None)  # infinity is no JSON
    assert "nfe=3 is too small" in rows[4]["error"]
    results = json.loads((out / "results.json").read_text())
    assert results["methods"][2]["each"]["rms"] == expected.rms.tolist()
    pictures = [f"{name}{g}.png" for name in ("adaptive", "ddim", "leapfrog") for g in ("", "_guidance_1.5")]
    assert sorted(file.name for file in out.iterdir()) == sorted([*pictures, "manifest.json", "results.json"])
    with Image.open(out / "leapfrog.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_reconstruct_prints_a_table_and_the_reasons(run: Command, model: Path, images: Path) -> None:
    ran = run("reconstruct", model, images, "--method", "leapfrog, ddim,rk4", "--nfe", 3)
    lines = {line.split()[0]: line.split() for line in ran.out.splitlines() if line.strip()}
    assert lines["leapfrog"][:6] == ["leapfrog", "3", "2", "4/4", "4/4", "0"]
    assert lines["ddim"][1:3] == ["3", "3"]
    assert "rk4 failed: nfe=3 is too small" in ran.out
    assert max(map(len, ran.out.splitlines()[:-1])) <= 80


def test_likelihood(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "out.csv"
    common = ["likelihood", model, images, "-n", 3, "--method", "heun3", "--nfe", 18]
    record = json.loads(run(*common, "--probes", 2, "--seed", 5, "--label", "1", "--json", "--out", file).out)
    network, x, how = ddim_ode.load(model), pixels_of(images)[:3], {"method": "heun3", "nfe": 18}
    expected = log_likelihood(network, x, labels=1, probes=2, seed=5, **how)
    assert (record["bits_per_dim"], record["standard_error"]) == (expected.mean, expected.mean_error)
    assert [row["nats"] for row in record["images"]] == expected.nats.tolist()
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [float(row["bits_per_dim"]) for row in rows] == expected.bits_per_dim.tolist()
    assert [row["image"] for row in rows] == [str(images / f"{i}.png") for i in range(3)]
    one = json.loads(run(*common, "--json", "--centre").out)
    assert one["standard_error_of_probes"] is None
    assert one["bits_per_dim"] == log_likelihood(network, x, dequantize=False, **how).mean
    exact = run(*common[:5], "--method", "euler", "--nfe", 65, "--exact").out
    assert "bits/dim" in exact
    assert "± 0.0000 from the probes" not in exact
