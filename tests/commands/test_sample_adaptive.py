"""The command line with methods that choose their steps: what it says of them, draws of them and keeps of them."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ddim_ode
from ddim_ode.commands.shared.display import histogram
from ddim_ode.commands.shared.pictures import steps_of
from ddim_ode.solvers import METHODS, Solution
from tests.helpers.assertions import same
from tests.helpers.command_line import Command, changed

COUNT, TOL = 12, 0.001


@pytest.fixture(scope="module")
def expected(model: Path) -> Solution:
    """Samples that cost different amounts."""
    sol = ddim_ode.sample(ddim_ode.load(model), method="adaptive", tol=TOL, seeds=range(COUNT))
    assert len(sol.nfe.unique()) > 2
    assert sol.rejected.any()
    assert sol.sigmas.isnan().any()
    return sol


def adaptive(*options: object) -> list[object]:
    return ["--method", "adaptive", "--tol", TOL, "-n", COUNT, *options]


def spread(counts: torch.Tensor) -> dict[str, float]:
    n = sorted(counts.tolist())
    middle = (n[(len(n) - 1) // 2] + n[len(n) // 2]) / 2
    return {"min": n[0], "median": middle, "max": n[-1], "mean": pytest.approx(sum(n) / len(n), rel=1e-12)}


def bars(text: str) -> dict[str, int]:
    """The histogram in an output: number or range of NFE -> samples."""
    rows = [line.split() for line in text.splitlines() if line.startswith("  NFE ")]
    return {row[1]: int(row[2]) for row in rows}


# --- what it says -----------------------------------------------------------------------------------------------------


def test_it_says_what_the_samples_cost(run: Command, model: Path, tmp_path: Path, expected: Solution) -> None:
    ran = run("sample", model, *adaptive("--out", tmp_path / "out"))
    assert (ran.code, ran.err) == (0, "")
    cost = spread(expected.nfe)
    mean = f"{expected.nfe.double().mean():.1f}"
    said = f"{COUNT} samples, measured NFE {cost['min']} to {cost['max']} (median {cost['median']:g}, mean {mean}), "
    assert said in ran.out
    steps, rejected = (f"{counts.double().mean():.1f}" for counts in (expected.steps, expected.rejected))
    assert f"tol {TOL}: {steps} steps accepted and {rejected} rejected a sample\n" in ran.out
    every = range(int(cost["min"]), int(cost["max"]) + 1)
    assert bars(ran.out) == {str(n): expected.nfe.tolist().count(n) for n in every}


def test_for_machines(run: Command, model: Path, tmp_path: Path, expected: Solution) -> None:
    record = json.loads(run("sample", model, *adaptive("--json", "--trace", "--out", tmp_path / "out")).out)
    assert record["nfe"] == spread(expected.nfe)
    assert record["steps"] == spread(expected.steps)
    assert record["rejected"] == spread(expected.rejected)
    assert (record["tol"], record["not_converged"], record["count"]) == (TOL, 0, COUNT)
    assert all(Path(record[file]).is_file() for file in ("grid", "trace", "samples", "manifest"))


def test_samples_of_one_price_need_no_histogram(run: Command, model: Path, tmp_path: Path) -> None:
    ran = run("sample", model, "--method", "adaptive", "-n", 1, "--out", tmp_path / "one")
    (nfe,) = ddim_ode.sample(ddim_ode.load(model), method="adaptive", tol=0.01).nfe.tolist()
    assert f"1 sample, measured NFE {nfe}, " in ran.out
    assert "tol 0.01: " in ran.out
    assert bars(ran.out) == {}


@pytest.mark.parametrize("high", [1, 12, 13, 30, 977])
def test_histogram(high: int) -> None:
    counts = [1, high, *torch.randint(1, high + 1, (200,), generator=torch.Generator().manual_seed(high)).tolist()]
    lines = histogram(counts, rows=12, width=10).splitlines()
    assert len(lines) <= 12
    rows = bars("\n".join(lines))
    covered: Counter[int] = Counter()
    for line, (name, number) in zip(lines, rows.items(), strict=True):
        low, _, top = name.partition("-")
        members = range(int(low), int(top or low) + 1)
        assert number == sum(counts.count(n) for n in members)
        assert line.count("#") == math.ceil(10 * number / max(rows.values()))
        covered.update(members)
    assert covered.keys() >= set(counts)
    assert set(covered.values()) == {1}


def test_a_histogram_of_few_has_a_mark_a_sample() -> None:
    assert histogram([9, 10, 10, 12]).splitlines() == ["  NFE  9 1 #", "  NFE 10 2 ##", "  NFE 11 0", "  NFE 12 1 #"]


def test_a_sample_that_runs_out_is_a_warning(run: Command, model: Path, tmp_path: Path, expected: Solution) -> None:
    most = int(expected.nfe.max()) - 1
    short = ddim_ode.sample(ddim_ode.load(model), method="adaptive", tol=TOL, max_nfe=most, seeds=range(COUNT))
    number = int((~short.converged).sum())
    assert 0 < number < COUNT
    for options in ([], ["--json"], ["--trace"]):
        options = adaptive("--max-nfe", most, *options, "--overwrite", "--out", tmp_path / "out")
        ran = run("sample", model, *options)
        assert ran.code == 0
        assert ran.err.count("\n") == 1
        assert ran.err.startswith(f"warning: {number} of {COUNT} samples did not reach tol={TOL} within {most} evalu")
        assert "one DDIM step" in ran.err
        assert "use a larger --max-nfe, or a larger --tol" in ran.err
        if "--json" in options:
            assert json.loads(ran.out)["not_converged"] == number
        tensors = load_file(tmp_path / "out" / "samples.safetensors")
        assert torch.equal(tensors["converged"], short.converged)
        assert torch.equal(tensors["nfe"], short.nfe)


def test_a_budget_is_a_tolerance(run: Command, model: Path, tmp_path: Path) -> None:
    ran = run("sample", model, "--method", "adaptive", "--nfe", 9, "-n", 4, "--out", tmp_path / "out")
    sol = ddim_ode.sample(ddim_ode.load(model), method="adaptive", nfe=9, seeds=range(4))
    assert 1e-6 <= sol.tol < 1  # what the search looks at, tighter than the coarsest
    assert f"tol {sol.tol:.4g}, found for --nfe 9 (--tol {sol.tol:.4g} spares the search): " in ran.out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["tol"] == sol.tol
    assert (manifest["arguments"]["nfe"], manifest["arguments"]["tol"]) == (9, None)
    short = ["--method", "adaptive", "--nfe", 12, "--max-nfe", 6, "-n", 2, "--out", tmp_path / "short"]
    assert "use a larger --max-nfe, or a smaller --nfe" in run("sample", model, *short).err


# --- what it keeps ----------------------------------------------------------------------------------------------------


def test_every_node_is_kept(run: Command, model: Path, tmp_path: Path, expected: Solution) -> None:
    run("sample", model, *adaptive("--out", tmp_path / "out"))
    tensors = load_file(tmp_path / "out" / "samples.safetensors")
    assert set(tensors) == {"x", "seeds", "sigmas", "nfe", "converged"}
    assert torch.equal(tensors["x"], expected.x)
    assert tensors["sigmas"].dtype == torch.float64
    assert np.array_equal(tensors["sigmas"], expected.sigmas, equal_nan=True)
    nodes = (~tensors["sigmas"].isnan()).sum(1)
    assert torch.equal(nodes - 1, expected.steps)
    assert same([tensors["nfe"], tensors["converged"]], [expected.nfe, expected.converged])


@pytest.mark.parametrize(
    "options",
    [
        ["--tol", 0.004],
        ["--nfe", 9],
        ["--nfe", 9, "--label", "each", "--guidance", 1.5, "--guidance-range", "0.1:2"],
        ["--tol", 1e-3, "--max-nfe", 9, "--dtype", "float64"],
        ["--grid", "20,0", "--batch-size", 2],
        ["--grid", "20,0.3"],
        ["--final", "sigma_min"],
        ["--method", "dopri5", "--batch-size", 2],
        ["--method", "bosh3", "--nfe", 30, "--batch-size", 3],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_a_manifest_recreates_the_same_bytes(
    run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[object]
) -> None:
    options = options if "--method" in options else ["--method", "adaptive", *options]
    assert run("sample", model, "-n", 5, "--trace", *options, "--out", tmp_path / "one").code == 0

    def search(*_: object) -> None:
        raise AssertionError("the tolerance is known")

    monkeypatch.setattr("ddim_ode.planning.plan.tolerance_for", search)
    file = tmp_path / "one" / "manifest.json"
    assert run("sample", "--manifest", file, "--trace", "--out", tmp_path / "two").code == 0
    for name in ("samples.safetensors", "grid.png", "trace.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, two = (
        json.loads((tmp_path / name / "manifest.json").read_text(), parse_constant=pytest.fail)
        for name in ("one", "two")
    )
    assert {**one, "seconds": 0, "sha256": ""} == {**two, "seconds": 0, "sha256": ""}
    den = ddim_ode.load(model)
    ends = {"20,0": [20, den.sigma_min, 0], "20,0.3": [20, 0.3], "sigma_min": [den.sigma_max, den.sigma_min]}
    known = [sigmas for option, sigmas in ends.items() if option in options]
    assert one["sigmas"] == (known[0] if known else [den.sigma_max, den.sigma_min, 0])


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"tol": None}, "adaptive needs the tolerance"), ({"tol": math.nan}, "tol=nan"), ({"tol": "x"}, "tol: ")],
)
def test_a_manifest_without_its_tolerance(
    run: Command, fails: Callable[..., str], model: Path, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    run("sample", model, "--method", "adaptive", "-n", 1, "--out", tmp_path / "one")
    file = tmp_path / "one" / "manifest.json"
    changed(file, **changes)
    assert word in fails("sample", "--manifest", file, "--out", tmp_path / "two")
    assert not (tmp_path / "two").exists()


def test_a_tolerance_means_nothing_to_a_grid(
    run: Command, fails: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    run("sample", model, "--nfe", 2, "-n", 1, "--out", tmp_path / "one")
    file = tmp_path / "one" / "manifest.json"
    changed(file, tol=0.1)
    assert "ddim has no tolerance" in fails("sample", "--manifest", file, "--out", tmp_path / "two")


# --- what it draws ----------------------------------------------------------------------------------------------------


def test_steps_are_angles() -> None:
    steps = steps_of(np.array([math.inf, math.sqrt(3), 1, 0]))
    assert steps[:, 0].tolist() == [math.inf, math.sqrt(3), 1]
    assert steps[:, 1] == pytest.approx([math.pi / 6, math.pi / 12, math.pi / 4], rel=1e-12)


@pytest.mark.parametrize("options", [[], ["--max-nfe", 15], ["--method", "dopri5"]])
def test_the_trace_is_a_picture(run: Command, model: Path, tmp_path: Path, options: list[object]) -> None:
    ran = run("sample", model, *adaptive("--trace", *options, "--out", tmp_path / "out"))
    assert ran.out.splitlines()[:2] == [str(tmp_path / "out" / name) for name in ("grid.png", "trace.png")]
    with Image.open(tmp_path / "out" / "trace.png") as image:
        assert image.format == "PNG"
        assert image.size == (1200, 750)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    assert ((blue > red + 40).sum() > 500) == ("--max-nfe" not in options)  # lines of the samples that converged
    assert ((red > green + 40).sum() > 500) == ("--max-nfe" in options)


def test_a_picture_that_cannot_be_written_leaves_nothing(
    fails: Callable[..., str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ddim_ode.commands.shared.pictures.save_trace", no_space)
    assert "No space left" in fails("sample", model, *adaptive("--trace", "--out", tmp_path / "out"))
    assert not any(tmp_path.iterdir())


def test_without_trace_no_picture_is_drawn(run: Command, model: Path, tmp_path: Path) -> None:
    run("sample", model, *adaptive("--out", tmp_path / "out"))
    assert not (tmp_path / "out" / "trace.png").exists()
    assert [METHODS[name].tells_steps for name in ("adaptive", "dopri5", "ddim", "scipy_solver")] == [
        True,
        True,
        False,
        False,
    ]
