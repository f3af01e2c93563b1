"""A folder of diffusers is the network that diffusers makes of it, and samples as its pipeline does."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

import ddim_ode
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.checkpoints.diffusers_folder import Wrapped
from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import DenoiserError
from ddim_ode.models.unet import UNet
from tests.helpers.assertions import one_line
from tests.helpers.foreign import LAYOUTS, OTHERS, Sinusoid, pipeline, relative, unet2d
from tests.helpers.tensors import normal

TIMES = torch.tensor([0.0, 37.0, 500.5, 999.0])


def inputs(model: ddim_ode.Denoiser, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    x = normal(len(TIMES), *model.shape, seed=0, dtype=torch.float64).to(dtype)
    return (x, TIMES.to(dtype), torch.tensor([0, 1, 4, 2])) if model.num_classes else (x, TIMES.to(dtype))


def both(model: ddim_ode.Denoiser, unet: torch.nn.Module, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    given = inputs(model, dtype)
    return model.net(*given), unet(*given).sample[:, : model.shape[0]]


def as_it_is(unet: torch.nn.Module, model: ddim_ode.Denoiser) -> ddim_ode.Denoiser:
    """The network of diffusers itself, in the place of what was loaded."""

    def net(x: torch.Tensor, t: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
        return unet(x, t.long() if model.quantize else t, *labels).sample  # an embedding takes whole numbers only

    return dataclasses.replace(model, net=net)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_output_is_that_of_diffusers(tmp_path, layout):
    unet = unet2d(LAYOUTS[layout])
    pipeline(tmp_path, unet)
    model = ddim_ode.load(tmp_path)
    assert isinstance(model.net, UNet)
    single = both(model, unet, torch.float32)
    assert single[1].std() > 0.05
    assert relative(*single) < 1e-5
    unet.time_proj = Sinusoid(unet)
    model.net.double()
    assert relative(*both(model, unet.double(), torch.float64)) < 1e-10


@pytest.mark.parametrize("key", OTHERS)
def test_what_our_unet_is_not_is_wrapped(tmp_path, key, monkeypatch):
    unet = unet2d(OTHERS[key])
    if key == "time_embedding_type":
        unet.time_proj.float()
    pipeline(tmp_path, unet)
    model = ddim_ode.load(tmp_path)
    assert isinstance(model.net, Wrapped)
    x = normal(2, *model.shape, seed=0, dtype=torch.float32)
    labels = [torch.tensor([1, 3])] if model.num_classes else []
    t = torch.tensor([7, 900])
    assert torch.equal(model.net(x, t, *labels), unet(x, t, *labels).sample)
    assert model.quantize == (key == "time_embedding_type")
    asked = {"nfe": 3, "seeds": [0], "labels": [1] if labels else None}
    assert torch.equal(ddim_ode.sample(model, **asked).x, ddim_ode.sample(as_it_is(unet, model), **asked).x)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CheckpointError, match=rf"config.json: our UNet .*{key}.*pip install diffusers") as caught:
        ddim_ode.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"class_embed_type": "timestep"}, "class_labels should be provided"),
        ({"sample_size": 9}, "Sizes of tensors must match"),
        ({"norm_num_groups": 5}, "must be divisible by num_groups"),
    ],
    ids=str,
)
def test_what_diffusers_cannot_run_is_refused_on_loading(tmp_path, changes, fault):
    layout = LAYOUTS["no attention"] | {k: v for k, v in changes.items() if k == "class_embed_type"}
    pipeline(tmp_path, unet2d(layout))
    edit(tmp_path, "unet", **changes)
    text = one_line(CheckpointError, ddim_ode.load, tmp_path)
    assert "and diffusers finds: " in text
    assert fault in text


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("ddpm-cifar10-32", {}),
        ("attention in the middle", {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        ("attention in the middle", {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}),
        ("no attention", {"prediction_type": "sample"}),
        ("no attention", {"trained_betas": [0.001 + 0.0002 * k for k in range(100)], "num_train_timesteps": 100}),
    ],
)
def test_ddim_draws_the_images_of_the_pipeline(tmp_path, monkeypatch, layout, options):
    steps = 10
    pipe = pipeline(tmp_path, unet2d(LAYOUTS[layout]), clip_sample=False, **options)
    model = ddim_ode.load(tmp_path)
    z = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(3))
    last = {}
    step = pipe.scheduler.step
    monkeypatch.setattr(pipe.scheduler, "step", lambda *a, **k: last.update(step(*a, **k)) or step(*a, **k))
    pipe.set_progress_bar_config(disable=True)
    images = pipe(2, torch.Generator().manual_seed(3), num_inference_steps=steps, output_type="pt").images
    ours = ddim_ode.sample(model, "ddim", grid="leading", nfe=steps, noise=z).x
    assert relative(ours, last["prev_sample"]) < 5e-6  # before they clip; their schedules are in float32
    assert float(((ours / 2 + 0.5).clamp(0, 1) - images).abs().max()) < 2e-5


def test_zero_snr_begins_at_the_last_finite_sigma(tmp_path):
    options = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    pipe = pipeline(tmp_path, unet2d(LAYOUTS["no attention"]), **options)
    path = ddim_ode.load(tmp_path).path
    assert path.zero_terminal_snr
    theirs = pipe.scheduler.alphas_cumprod
    assert theirs[-1] == 0
    torch.testing.assert_close(torch.tensor(path.alphas_cumprod), theirs[:-1].double(), rtol=1e-3, atol=1e-7)


def test_zero_snr_with_prediction_of_noise_is_refused(tmp_path):
    pipeline(tmp_path, unet2d(LAYOUTS["no attention"]), rescale_betas_zero_snr=True)
    with pytest.raises(DenoiserError, match="says nothing about the image at zero terminal SNR; leave the last"):
        ddim_ode.load(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta_schedule": "scaled_linear"},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
        {"beta_end": 0.03, "num_train_timesteps": 300},
    ],
    ids=str,
)
def test_the_schedule_is_that_of_diffusers(tmp_path, options):
    scheduler = pipeline(tmp_path, unet2d(LAYOUTS["no attention"]), **options).scheduler
    path = ddim_ode.load(tmp_path).path
    torch.testing.assert_close(torch.tensor(path.alphas_cumprod), scheduler.alphas_cumprod.double(), rtol=2e-4, atol=0)


@pytest.mark.parametrize("form", ["safetensors", "sharded", "bin", "sharded bin"])
def test_weights_are_read_in_every_form(tmp_path, form):
    unet = unet2d(LAYOUTS["class-conditional"])
    options = {"max_shard_size": "200KB"} if "sharded" in form else {}
    unet.save_pretrained(tmp_path, safe_serialization="bin" not in form, **options)
    DDIMScheduler().save_pretrained(tmp_path)
    files = [file.name for file in tmp_path.iterdir() if "diffusion_pytorch_model" in file.name]
    assert (len(files) > 2) == ("sharded" in form)
    model = ddim_ode.load(tmp_path)
    assert relative(*both(model, unet, torch.float32)) < 1e-5
    assert len(model.provenance.sha256) == 64


def test_attention_under_its_old_names(tmp_path):
    unet = unet2d(LAYOUTS["ddpm-cifar10-32"])
    pipeline(tmp_path, unet)
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    file = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for modern, old in new.items():
        weights = {name.replace(f".{modern}.", f".{old}."): value for name, value in weights.items()}
    file.unlink()
    torch.save(weights, file.with_suffix(".bin"))
    assert relative(*both(ddim_ode.load(tmp_path), unet, torch.float32)) < 1e-5


def test_a_network_without_a_null_class_says_so(tmp_path):
    unet = unet2d(LAYOUTS["class-conditional"])
    pipeline(tmp_path, unet)
    model = ddim_ode.load(tmp_path)
    assert (model.num_classes, model.null_class) == (5, False)
    asked = {"nfe": 3, "seeds": [0], "labels": [4]}
    expected = ddim_ode.sample(as_it_is(unet, model), **asked).x
    torch.testing.assert_close(ddim_ode.sample(model, **asked).x, expected, rtol=1e-4, atol=1e-4)
    for guidance, labels in ((1.0, None), (2.0, [0])):
        text = one_line(DenoiserError, ddim_ode.sample, model, nfe=4, seeds=[0], labels=labels, guidance=guidance)
        assert "has no null class; give labels in 0..4, and guidance=1" in text


@pytest.mark.parametrize("where", ["pipeline", "pipeline/unet", "flat"])
def test_a_pipeline_its_unet_and_both_in_one_folder(tmp_path, where):
    unet = unet2d(LAYOUTS["no attention"])
    pipeline(tmp_path / "pipeline", unet, beta_end=0.01)
    if where == "flat":  # as google/ddpm-cifar10-32 is laid out
        unet.save_pretrained(tmp_path / "flat")
        DDIMScheduler(beta_end=0.01).save_pretrained(tmp_path / "flat")
        (tmp_path / "flat/model_index.json").write_text("{}")
    model = ddim_ode.load(tmp_path / where)
    assert model.path == ddim_ode.paths.DiscreteVP.linear(1000, 1e-4, 0.01)


def test_what_samplers_do_is_reported_and_ignored(tmp_path):
    pipeline(tmp_path, unet2d(LAYOUTS["learned variance"]), clip_sample=True, thresholding=True)
    assert ddim_ode.load(tmp_path).provenance.ignored == ("clip_sample", "thresholding", "learned variance")
    file = tmp_path / "scheduler/scheduler_config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"clip_sample": False, "thresholding": False}))
    assert ddim_ode.load(tmp_path).provenance.ignored == ("learned variance",)


def test_nothing_of_diffusers_is_imported(tmp_path, monkeypatch):
    pipeline(tmp_path, unet2d(LAYOUTS["ddpm-cifar10-32"]))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert isinstance(ddim_ode.load(tmp_path).net, UNet)


def test_a_model_without_a_schedule_has_ddpms_and_says_so(tmp_path):
    unet2d(LAYOUTS["no attention"]).save_pretrained(tmp_path)
    with pytest.warns(ddim_ode.checkpoints.CheckpointWarning, match="has no scheduler_config.json: DDPM's linear"):
        model = ddim_ode.load(tmp_path)
    assert (model.path, model.predicts) == (ddim_ode.paths.DiscreteVP.linear(), "noise")


def edit(folder: Path, part: str, **changes: object) -> None:
    file = folder / {"unet": "unet/config.json", "scheduler": "scheduler/scheduler_config.json"}[part]
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("unet", {"sample_size": None}, "config.json has no sample_size; write the height"),
        ("unet", {"_class_name": "UNet2DConditionModel"}, "is of a UNet2DConditionModel; only a UNet2DModel"),
        (
            "scheduler",
            {"prediction_type": "flow_prediction"},
            r"unknown prediction_type 'flow_prediction'; did you mean 'v_prediction'\? choose one of epsilon",
        ),
        ("scheduler", {"beta_schedule": "sigmoid"}, "unknown beta_schedule 'sigmoid'; choose one of linear"),
        (
            "scheduler",
            {"trained_betas": [0.1]},
            "scheduler_config.json: timesteps: Input should be greater than or equal to 2",
        ),
        ("scheduler", {"beta_start": 2}, "scheduler_config.json: beta_start: Input should be less than 1"),
    ],
)
def test_a_configuration_that_means_nothing_here_is_named(tmp_path, part, changes, message):
    pipeline(tmp_path, unet2d(LAYOUTS["no attention"]))
    edit(tmp_path, part, **changes)
    with pytest.raises(DDIMError, match=message) as caught:
        ddim_ode.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_schedule_of_another_kind_is_named(tmp_path):
    pipeline(tmp_path, unet2d(LAYOUTS["no attention"]))
    (tmp_path / "scheduler/scheduler_config.json").write_text('{"_class_name": "EDMEulerScheduler"}')
    with pytest.raises(CheckpointError, match="EDMEulerScheduler has no beta_schedule"):
        ddim_ode.load(tmp_path)
    (tmp_path / "scheduler/scheduler_config.json").write_text('{"_class_name": "FlowMatchScheduler"}')
    with pytest.raises(CheckpointError, match="FlowMatchScheduler, which diffusers has not"):
        ddim_ode.load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop("conv_in.bias"), "conv_in.bias is missing; it is another network's, or not whole"),
        (lambda w: w.clear(), "time_embedding.linear_1.weight, .* and [0-9]+ more are missing"),
        (lambda w: w.update({"extra.weight": torch.ones(1)}), "extra.weight is unknown to the network"),
        (
            lambda w: w.update({"conv_out.bias": torch.ones(4)}),
            r"conv_out.bias has shape \(4,\), where its configuration means \(3,\)",
        ),
        (lambda w: w["conv_out.bias"].fill_(float("nan")), "the weights of conv_out.bias hold NaN or infinity"),
    ],
    ids=["missing", "all missing", "extra", "shape", "nan"],
)
def test_weights_that_do_not_fit_are_named(tmp_path, damage, message):
    pipeline(tmp_path, unet2d(LAYOUTS["no attention"]))
    file = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    damage(weights)
    save_file(weights or {"x": torch.ones(1)}, file)
    with pytest.raises(CheckpointError, match=f"{file}: {message}") as caught:
        ddim_ode.load(tmp_path)
    assert "\n" not in str(caught.value)
