"""Files of weights that are not what they should be: each gives one line that names them, and none runs code."""

import json
import pickle
from pathlib import Path

import pytest
import torch

import ddim_ode
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.errors import DDIMError
from tests.helpers.assertions import one_line
from tests.helpers.files import RunsCode
from tests.helpers.foreign import LAYOUTS, pipeline, unet2d

NAME = "diffusion_pytorch_model"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of a pipeline whose weights are in shards."""
    unet = unet2d(LAYOUTS["class-conditional"])
    pipeline(tmp_path, unet)
    for file in (tmp_path / "unet").glob("*.safetensors"):
        file.unlink()
    unet.save_pretrained(tmp_path / "unet", max_shard_size="300KB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 2
    return tmp_path


def index(folder: Path) -> Path:
    return folder / "unet" / f"{NAME}.safetensors.index.json"


def test_a_missing_shard_is_named(folder):
    gone = sorted((folder / "unet").glob("*.safetensors"))[1]
    gone.unlink()
    assert f"{gone} is missing" in one_line(CheckpointError, ddim_ode.load, folder)


def test_a_shard_elsewhere_is_refused(folder):
    values = json.loads(index(folder).read_text())
    values["weight_map"]["conv_in.bias"] = "../../secret.safetensors"
    index(folder).write_text(json.dumps(values))
    text = one_line(CheckpointError, ddim_ode.load, folder)
    assert "index.json names '../../secret.safetensors', which is not a file beside it; it was refused" in text


@pytest.mark.parametrize("content", ["{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}'])
def test_an_index_without_a_map_is_named(folder, content):
    index(folder).write_text(content)
    assert "index.json has no weight_map" in one_line(CheckpointError, ddim_ode.load, folder)


@pytest.mark.parametrize(("content", "message"), [("{", "is not valid JSON"), ("[]", "is not a JSON object")])
@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_json_of_another_kind_is_named(folder, part, content, message):
    (folder / part).write_text(content)
    assert f"{folder / part} {message}" in one_line(CheckpointError, ddim_ode.load, folder)


def test_a_pipeline_without_a_unet_or_weights_says_what_is_missing(folder):
    for file in (folder / "unet").glob(f"{NAME}*"):
        file.unlink()
    assert "has no weights; looked for diffusion_pytorch_model.safetensors" in one_line(
        CheckpointError, ddim_ode.load, folder
    )
    (folder / "unet/config.json").unlink()
    assert "has no unet/config.json" in one_line(CheckpointError, ddim_ode.load, folder)


def replace_by_bin(folder: Path, content: object, form: str = "torch") -> Path:
    for file in (folder / "unet").glob(f"{NAME}*"):
        file.unlink()
    file = folder / "unet" / f"{NAME}.bin"
    if form == "torch":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    return file


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_a_bin_that_would_run_code_does_not(folder, form):
    mark = folder / "ran"
    file = replace_by_bin(folder, RunsCode(mark), form)
    text = one_line(CheckpointError, ddim_ode.load, folder)
    assert f"{file} is a pickle that would run code when loaded, so it was refused" in text
    assert not mark.exists()


def test_a_cut_bin_is_damaged(folder):
    file = replace_by_bin(folder, unet2d(LAYOUTS["class-conditional"]).state_dict())
    file.write_bytes(file.read_bytes()[:-1000])
    assert f"{file} is damaged" in one_line(CheckpointError, ddim_ode.load, folder)


@pytest.mark.parametrize("content", [{}, [], {"a": 1}, {1: torch.ones(1)}], ids=str)
def test_a_bin_of_something_else_is_named(folder, content):
    file = replace_by_bin(folder, content)
    text = one_line(CheckpointError, ddim_ode.load, folder)
    assert f"{file} holds a {type(content).__name__} of {len(content)}; a dict of tensors was expected" in text


@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_no_value_of_a_configuration_escapes_as_another_error(folder, part):
    file = folder / part
    values = json.loads(file.read_text())
    messages = []
    for key in values:
        for value in ("x", [1]):
            file.write_text(json.dumps(values | {key: value}))
            try:
                ddim_ode.load(folder, check=False)
            except DDIMError as error:
                messages.append(str(error))
    assert len(messages) > len(values) / 2
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_a_variant_alone_is_loaded_and_computes_in_float32(tmp_path, variant, safe):
    unet = unet2d(LAYOUTS["no attention"])
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    pipeline(tmp_path, unet.to(half))
    for file in (tmp_path / "unet").glob(f"{NAME}*"):
        file.unlink()
    unet.save_pretrained(tmp_path / "unet", variant=variant, safe_serialization=safe)
    model = ddim_ode.load(tmp_path, check=False)
    assert Path(model.provenance.file).name == f"{NAME}.{variant}.{'safetensors' if safe else 'bin'}"
    assert (model.dtype, model.provenance.dtype) == (torch.float32, str(half).removeprefix("torch."))
    x, t = torch.ones(1, 3, 8, 8), torch.tensor([500.0])
    torch.testing.assert_close(model.net(x, t), unet.float()(x, t).sample, rtol=1e-4, atol=1e-5)


def test_full_weights_come_before_a_variant(tmp_path):
    unet = unet2d(LAYOUTS["no attention"])
    pipeline(tmp_path, unet)
    unet.half().save_pretrained(tmp_path / "unet", variant="fp16")
    assert Path(ddim_ode.load(tmp_path, check=False).provenance.file).name == f"{NAME}.safetensors"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sample_size": 10**6}, "sample_size: 1,000,000 is more than any network here has, 65,536"),
        ({"sample_size": 65_536}, "numbers in an image: 12,884,901,888 is more"),
        ({"in_channels": 10**6}, "in_channels: 1,000,000 is more"),
        ({"out_channels": 10**9}, "out_channels: 1,000,000,000 is more"),
        ({"layers_per_block": 10**6}, "layers_per_block: 1,000,000 is more"),
        ({"block_out_channels": [32, 10**9]}, "block_out_channels: 1,000,000,000 is more"),
        ({"block_out_channels": [32] * 99}, "the length of block_out_channels: 99 is more"),
        ({"up_block_types": ["UpBlock2D"] * 10**4}, "the length of up_block_types: 10,000 is more"),
        ({"num_class_embeds": 10**12}, "num_class_embeds: 1,000,000,000,000 is more"),
        ({"num_train_timesteps": 10**9}, "num_train_timesteps: 1,000,000,000 is more"),
        ({"block_out_channels": [65_536, 65_536]}, "parameters, more than any network here has, 2e+10"),
    ],
)
@pytest.mark.parametrize("other", [{}, {"center_input_sample": True}], ids=["ours", "theirs"])
def test_a_size_that_no_network_has_is_refused_before_one_is_built(folder, monkeypatch, values, words, other):
    monkeypatch.setattr("diffusers.UNet2DModel.from_config", None)
    file = folder / "unet/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values, **other}))
    assert words in one_line(CheckpointError, ddim_ode.load, folder)
