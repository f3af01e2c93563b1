"""`ddim-ode info` tells of every kind of model what it is and where it comes from."""

import json

import torch
from yaml import safe_dump

import ddim_ode
from ddim_ode.checkpoints import sha256
from tests.helpers.common import make_model
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
