"""Tuned methods on the command line: beside the model, from a file, forced, and in manifests."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ddim_ode import load, load_tuned, sample, save_tuned
from tests.helpers.command_line import Command, make_model, unsealed
from tests.helpers.tuned import FIVE, grids_for, model_with_tables

Fails = Callable[..., str]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with_tables(tmp_path_factory.mktemp("tuned") / "tiny")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another model, and no tables beside it."""
    return make_model(tmp_path / "other", seed=1)


@pytest.mark.parametrize("how", ["beside", "file"])
def test_a_manifest_draws_the_same_bytes_whatever_became_of_the_file(
    run: Command, tuned: Path, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tuned, folder)
    file = folder / "tuned.json" if how == "beside" else (folder / "tuned.json").rename(tmp_path / "mine.json")
    method = "tuned" if how == "beside" else file
    ran = run("sample", folder, "--method", method, "--nfe", 4, "-n", 3, "--label", "each", "--out", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert "measured NFE 3" in ran.out
    model = load(folder)
    expected = sample(model, load_tuned(file), 4, range(3), labels=[0, 1, 2])
    assert torch.equal(load_file(tmp_path / "out/samples.safetensors")["x"], expected.x)
    told = unsealed(tmp_path / "out/manifest.json")["arguments"]
    assert told["method"] == "tuned"
    assert [table["predictions"] for table in told["tuned"]["tables"]] == [3, 5]
    file.unlink()
    ran = run("sample", "--manifest", tmp_path / "out/manifest.json", "--out", tmp_path / "again")
    assert (ran.code, ran.err) == (0, "")
    name = "samples.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_another_model_is_refused_unless_forced(
    run: Command, fails: Fails, tuned: Path, other: Path, tmp_path: Path
) -> None:
    file = tuned / "tuned.json"
    assert "tuned to another model" in fails("sample", other, "--method", file, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    how = ["--method", file, "--force", "--nfe", 5, "-n", 2, "--label", 3, "--guidance", 2]
    assert "is too small" in fails("sample", other, *how, "--out", tmp_path / "out")
    how[4] = 10
    assert run("sample", other, *how, "--out", tmp_path / "out").code == 0
    assert run("sample", "--manifest", tmp_path / "out/manifest.json", "--out", tmp_path / "again").code == 0
    one, two = (load_file(tmp_path / name / "samples.safetensors")["x"] for name in ("out", "again"))
    assert torch.equal(one, two)
    assert torch.equal(one, sample(load(other), load_tuned(file, force=True), 10, range(2), labels=3, guidance=2.0).x)


def test_what_is_refused_in_a_line(fails: Fails, tuned: Path, other: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    assert "no tuned.json beside it; make one with ddim-ode tune" in fails("sample", other, "--method", "tuned", *out)
    assert "grid='karras' is not one" in fails("sample", tuned, "--method", "tuned", "--grid", "karras", *out)
    assert "a tuned method takes nfe" in fails("sample", tuned, "--method", "tuned", "--tol", 0.1, *out)
    assert "is too small" in fails("sample", tuned, "--method", "tuned", "--nfe", 2, *out)
    assert "without guidance, and is to run with guidance=2" in fails(
        "sample", tuned, "--method", "tuned", "--guidance", 2, "--label", 1, *out
    )
    assert "--force lets a tuned method" in fails("sample", tuned, "--force", *out)
    assert "cannot be read" in fails("sample", tuned, "--method", tmp_path / "none.json", *out)
    assert "is not valid JSON" in fails("sample", tuned, "--method", tuned / "config.yaml", *out)
    assert "does not choose its steps" in fails("sample", tuned, "--method", "tuned", "--trace", *out)
    assert "does not encode" in fails("encode", tuned, "--method", "tuned", "--out", tmp_path / "z")
    assert "stands for the tables beside a model" in fails("reconstruct", tuned, "--method", "tuned")


def test_grids_alone_encode_and_decode(run: Command, tuned: Path, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "grids.json"
    save_tuned(grids_for(load(tuned), "adams2"), file)
    z, how = tmp_path / "z.safetensors", ["--method", file, "--nfe", 5]
    ran = run("encode", tuned, images, *how, "--out", z, "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["sigmas"][:5] == list(FIVE)
    assert run("decode", tuned, z, "--out", tmp_path / "back").code == 0
    assert run("interpolate", tuned, "--seeds", "0,1", "--frames", 3, *how, "--out", tmp_path / "between").code == 0
    assert run("sample", tuned, "--method", file, "--grid", "karras", "-n", 1, "--out", tmp_path / "out").code == 0


def test_compare_and_its_force(run: Command, fails: Fails, tuned: Path, other: Path, tmp_path: Path) -> None:
    how = ["-n", 2, "--nfe", "2,5", "--reference-tol", 0.05, "--label", "none"]
    ran = run("compare", tuned, "--methods", "tuned,ddim", *how, "--out", tmp_path / "study", "--json")
    rows = {(row["method"], row["nfe"]): row for row in json.loads(ran.out)["rows"]}
    assert rows["tuned", 2]["status"] == "skipped"
    assert rows["tuned", 5]["measured_nfe"]["mean"] == 5
    file = tuned / "tuned.json"
    ran = run("compare", other, "--methods", f"{file},ddim", *how, "--out", tmp_path / "two", "--json")
    rows = {(row["method"], row["nfe"]): row for row in json.loads(ran.out)["rows"]}
    assert "tuned to another model" in rows[str(file), 5]["reason"]
    ran = run("compare", other, "--methods", f"{file},ddim", "--force", *how, "--out", tmp_path / "two")
    assert ran.code == 0
    assert "tuned to another" not in ran.out
    assert "--force lets" in fails("compare", other, "--methods", "ddim", "--force", *how, "--out", tmp_path / "three")


def test_methods_lists_it_where_the_model_has_one(run: Command, tuned: Path, other: Path) -> None:
    rows = json.loads(run("methods", tuned, "--json").out)["methods"]
    found = {row["grid"]: row["sigmas"] for row in rows if row["name"] == "tuned"}
    assert found == {"nfe 3": [20, 2, 0.3, 0], "nfe 5": [*FIVE, 0]}
    assert "tuned" in run("methods", tuned).out
    assert "tuned" not in run("methods", other).out


def test_methods_warns_of_one_that_is_not_of_the_model(run: Command, tuned: Path, other: Path) -> None:
    shutil.copy(tuned / "tuned.json", other)
    ran = run("methods", other)
    assert ran.code == 0
    assert ran.err.startswith(f"warning: {other}/tuned.json: this method was tuned to another model")
    (other / "tuned.json").write_text("{}")
    ran = run("methods", other, "--json")
    assert (ran.code, ran.err.count("\n"), ran.err.count("tuned.json")) == (0, 1, 1)
    assert "tuned" not in ran.out


def test_the_command_of_a_study_repeats_its_force(run: Command, tuned: Path, tmp_path: Path) -> None:
    how = ["--methods", "tuned", "--force", "-n", 1, "--nfe", 3, "--reference-tol", 0.1]
    assert run("compare", tuned, *how, "--out", tmp_path / "study").code == 0
    command = json.loads((tmp_path / "study/results.json").read_text())["command"]
    assert "--methods tuned" in command
    assert "--force --out" in command or "--force -" in command
    assert "True" not in command
