"""`ddim-ode sample --grid auto`: what it says of the profile, the file that it leaves, and samples made from that."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ddim_ode
from ddim_ode.models.unet import UNet
from ddim_ode.planning.profile import Profile, measure
from ddim_ode.shards import blocks
from tests.helpers.command_line import Command, make_model

HOW = ["--method", "dpmpp_2m", "--nfe", 6, "--label", "each", "-n", 5]


@pytest.fixture(scope="module")
def first(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run, and what it said on stderr."""
    out = tmp_path_factory.mktemp("auto") / "first"
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("ddim_ode.commands.sample.note", said.append)
        assert ddim_ode.cli.main([str(word) for word in ("sample", model, *HOW, "--grid", "auto", "--out", out)]) == 0
    return out, "\n".join(said)


def test_it_tells_what_the_profile_cost_and_leaves_it(model: Path, first: tuple[Path, str]) -> None:
    out, said = first
    expected = measure(ddim_ode.load(model), labelled=True)
    assert said == (
        f"the profile of the model that the grid is made from took {expected.evaluations:,} evaluations"
        f"; --grid {out}/profile.safetensors spares them next time"
    )
    kept = Profile.load(out / "profile.safetensors")
    assert kept.labelled
    assert torch.equal(kept.images, expected.images)
    tensors = load_file(out / "samples.safetensors")
    drawn = ddim_ode.sample(ddim_ode.load(model), "dpmpp_2m", 6, range(5), labels=torch.arange(5), grid="auto")
    assert torch.equal(tensors["x"], drawn.x)
    assert torch.equal(tensors["sigmas"], drawn.sigmas)


def test_a_profile_from_a_file_gives_the_same_samples_for_less(
    run: Command, model: Path, first: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = UNet.forward, [0]

    def counted(net: UNet, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen[0] += len(x)
        return forward(net, x, *rest)

    monkeypatch.setattr(UNet, "forward", counted)
    profile = first[0] / "profile.safetensors"
    ran = run("sample", model, *HOW, "--grid", profile, "--out", tmp_path / "out", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert seen[0] < Profile.load(profile).evaluations / 3  # trials, and the samples
    one, two = (folder / "samples.safetensors" for folder in (first[0], tmp_path / "out"))
    assert one.read_bytes() == two.read_bytes()
    record = json.loads(ran.out)
    assert Path(record["profile"]).read_bytes() == profile.read_bytes()  # whoever has the folder has what it needs


def test_a_folder_may_be_replaced_that_holds_the_profile(
    run: Command, model: Path, first: tuple[Path, str], tmp_path: Path
) -> None:
    common = ["sample", model, *HOW, "--out", tmp_path / "out"]
    assert run(*common, "--grid", first[0] / "profile.safetensors").code == 0
    assert run(*common, "--grid", tmp_path / "out" / "profile.safetensors", "--overwrite").code == 0
    assert Profile.load(tmp_path / "out" / "profile.safetensors").labelled


def test_its_manifest_recreates_it_without_the_profile(run: Command, first: tuple[Path, str], tmp_path: Path) -> None:
    assert run("sample", "--manifest", first[0] / "manifest.json", "--out", tmp_path / "again").err == ""
    one, two = (folder / "samples.safetensors" for folder in (first[0], tmp_path / "again"))
    assert one.read_bytes() == two.read_bytes()
    assert not (tmp_path / "again" / "profile.safetensors").exists()


def test_the_grid_is_made_once_for_all_blocks(
    run: Command, model: Path, first: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 2)
    made, prepare = [], blocks.prepare

    def watched(*arguments: object, **options: object) -> object:
        made.append(prepare(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(blocks, "prepare", watched)
    common = ["sample", model, *HOW, "--batch-size", 2, "--grid", first[0] / "profile.safetensors"]
    assert run(*common, "--out", tmp_path / "out").code == 0
    assert len(made) == 1
    x, whole = (load_file(folder / "samples.safetensors")["x"] for folder in (tmp_path / "out", first[0]))
    torch.testing.assert_close(x, whole, rtol=1e-5, atol=1e-2)  # values reach 1000


def test_a_file_that_holds_no_profile_of_this_model_is_one_line(
    fails: Callable[..., str], model: Path, first: tuple[Path, str], tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "out"]
    missing = fails("sample", model, "--grid", "none.safetensors", *out)
    assert "none.safetensors cannot be read: No such file" in missing
    assert missing.endswith("; measure the profile again with --grid auto\n")
    samples = first[0] / "samples.safetensors"
    assert f"{samples} holds no profile of a model; measure" in fails("sample", model, "--grid", samples, *out)
    assert "has no digest of itself" in fails("sample", model, "--grid", first[0] / "grid.png", *out)
    profile = first[0] / "profile.safetensors"
    other = make_model(tmp_path / "other", num_classes=0)
    assert "and classes, and this one has 64 and 0 classes" in fails("sample", other, "--grid", profile, *out)
    assert "adaptive chooses its steps" in fails("sample", model, "--method", "adaptive", "--grid", profile, *out)
    assert "unknown grid 'autos'; did you mean 'auto'" in fails("sample", model, "--grid", "autos", *out)
    assert not (tmp_path / "out").exists()
