"""`ddim-ode info` tells of every kind of model what it is and where it comes from, and the tables what there is."""

import json
from pathlib import Path

import pytest
import torch
from yaml import safe_dump

import ddim_ode
from ddim_ode import cascade, checkpoints
from ddim_ode.checkpoints import sha256
from tests.helpers.command_line import Command, make_model
from tests.helpers.foreign import LAYOUTS, OTHERS, pipeline, unet2d
from tests.helpers.original_unet import ORIGINAL, original


def described(run, folder) -> dict:
    facts = json.loads(run("info", folder, "--json").out)
    lines = run("info", folder).out.splitlines()
    assert len(lines) == len(facts)
    model = ddim_ode.load(folder)
    assert facts["sigma_range"] == [model.sigma_min, model.sigma_max]
    assert facts["parameters"] == sum(p.numel() for p in model.net.parameters())
    return facts


def test_a_folder_of_ours(run, tmp_path):
    facts = described(run, make_model(tmp_path))
    assert (facts["kind"], facts["ema"], facts["dtype"], facts["ignored"]) == (
        "ddim_ode",
        "not stated",
        "float16",
        "nothing",
    )
    assert (facts["classes"], facts["null_class"], facts["zero_snr"]) == (10, True, False)


def test_a_folder_of_diffusers(run, tmp_path):
    unet = unet2d(LAYOUTS["class-conditional"])
    pipeline(tmp_path, unet, beta_schedule="scaled_linear", prediction_type="v_prediction")
    facts = described(run, tmp_path)
    file = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    assert facts["parameters"] == unet.num_parameters()
    assert (facts["kind"], facts["predicts"], facts["schedule"]) == ("diffusers", "velocity", "scaled_linear")
    assert (facts["classes"], facts["null_class"]) == (5, False)
    assert (facts["dtype"], facts["ignored"]) == ("float32", "clip_sample")
    assert (facts["weights"], facts["bytes"], facts["sha256"]) == (str(file), file.stat().st_size, sha256(file))


def test_shards_are_counted_together(run, tmp_path):
    unet = unet2d(LAYOUTS["no attention"])
    pipeline(tmp_path, unet)
    for file in (tmp_path / "unet").glob("*.safetensors"):
        file.unlink()
    unet.half().save_pretrained(tmp_path / "unet", max_shard_size="100KB")
    facts = described(run, tmp_path)
    files = sorted((tmp_path / "unet").glob("*.safetensors"))
    assert len(files) > 1
    assert facts["bytes"] == sum(file.stat().st_size for file in files)
    assert facts["sha256"] == sha256(*files)
    assert facts["dtype"] == "float16"


def test_what_is_run_by_diffusers(run, tmp_path):
    pipeline(tmp_path, unet2d(OTHERS["SkipDownBlock2D"]))
    facts = described(run, tmp_path)
    assert facts["description"] == "UNet of diffusers, linear schedule"
    folder = tmp_path / "out"
    assert run("sample", tmp_path, "--nfe", 2, "-n", 1, "--out", folder).code == 0
    assert json.loads((folder / "manifest.json").read_text())["model"]["config"] is None
    again = run("sample", "--manifest", folder / "manifest.json", "--out", tmp_path / "again")
    assert again.code == 0


def test_a_checkpoint_of_the_ddim_code(run, tmp_path):
    (tmp_path / "config.yml").write_text(safe_dump(ORIGINAL))
    state = original().state_dict()
    torch.save([state, {}, 1, 10, state], tmp_path / "ckpt.pth")
    facts = described(run, tmp_path)
    assert (facts["kind"], facts["ema"], facts["dtype"]) == ("DDIM code", "yes", "float32")
    assert (facts["schedule"], facts["timesteps"], facts["predicts"]) == ("linear", 1000, "noise")
    assert facts["sha256"] == sha256(tmp_path / "ckpt.pth")


def test_info(run: Command, model: Path) -> None:
    facts = json.loads(run("info", model, "--json").out)
    den = ddim_ode.load(model)
    file = model / "model.safetensors"
    assert facts["shape"] == [1, 8, 8]
    assert facts["classes"] == 10
    assert facts["parameters"] == sum(p.numel() for p in den.net.parameters())
    assert (facts["predicts"], facts["schedule"], facts["timesteps"]) == ("noise", "cosine", 50)
    assert facts["sigma_range"] == [den.sigma_min, den.sigma_max]
    assert (facts["weights"], facts["bytes"]) == (str(file), file.stat().st_size)
    assert facts["sha256"] == sha256(file)
    assert "1 x 8 x 8" in run("info", model).out


def test_models(run: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in (checkpoints, cascade):
        monkeypatch.setattr(part, "ASSETS", model.parent)
    (row,) = json.loads(run("models", "--json").out)["models"]
    assert (row["name"], row["shape"], row["classes"]) == ("tiny", [1, 8, 8], 10)
    assert "tiny" in run("models").out


def test_methods_and_grids(run: Command) -> None:
    table = json.loads(run("methods", "--json").out)
    assert [row["name"] for row in table["methods"]] == list(ddim_ode.METHODS)
    assert [row["grid"] for row in table["grids"]] == list(ddim_ode.GRIDS)
    assert all(row["summary"] for row in [*table["methods"], *table["grids"]])
    assert "karras" in run("methods").out


def test_the_table_says_what_is_out_of_the_ordinary(run: Command) -> None:
    rows = json.loads(run("methods", "--json").out)["methods"]
    for row in rows:
        method = ddim_ode.METHODS[row["name"]]
        assert (row["adaptive"], row["per_sample"], row["grid"]) == (method.adaptive, method.per_sample, method.grid)
        assert bool(row["grid"]) != row["adaptive"]
    lines = {line.split()[0]: line for line in run("methods").out.splitlines() if line.strip()}
    words = {
        name: [word for word in ("adaptive,", "adaptive", "coupled") if word in line.split()[3:5]]
        for name, line in lines.items()
    }
    assert words["ddim"] == []
    assert words["adaptive"] == ["adaptive"]
    assert words["dopri5"] == ["adaptive,", "coupled"]


def test_where_the_methods_step_on_a_model(run, fails, tmp_path):
    folder = make_model(tmp_path)
    told = json.loads(run("methods", folder, "--nfe", 6, "--json").out)
    model = ddim_ode.load(folder)
    assert told["sigma_range"] == [model.sigma_min, model.sigma_max]
    rows = {row["name"]: row for row in told["methods"]}
    assert rows.keys() == {name for name, method in ddim_ode.METHODS.items() if not method.adaptive}
    for name in ("ddim", "adams4", "unipc_2", "heun"):
        assert rows[name]["grid"] == ddim_ode.METHODS[name].grid
        assert rows[name]["sigmas"] == ddim_ode.sample(model, name, nfe=6, seeds=[0]).sigmas.tolist()
    assert "with nfe=1 these methods step at" in run("methods", folder, "--nfe", 1).out
    assert "nfe=0 must be a whole number" in fails("methods", folder, "--nfe", 0)
