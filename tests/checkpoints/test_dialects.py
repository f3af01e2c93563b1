"""What programs put around weights and in front of their names, and which tensors are no weights."""

import itertools
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ddim_ode
from ddim_ode.checkpoints import CheckpointError, dialects, save
from tests.helpers.assertions import one_line
from tests.helpers.foreign import LAYOUTS, pipeline, unet2d
from tests.helpers.guided_unet import FLAGS, guided, write_guided
from tests.helpers.networks import tiny_unet
from tests.helpers.original_unet import ORIGINAL, original, write_original

RAW, EMA = original(seed=1).state_dict(), original(seed=2).state_dict()
PREFIXES = [
    *("", "module.", "_orig_mod.", "model.", "unet.", "model.diffusion_model.", "ema_model.module."),
    *("".join(order) for order in itertools.permutations(["module.", "_orig_mod.", "model."], 2)),
    "module._orig_mod.module._orig_mod.",
]


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


def is_of(model: ddim_ode.Denoiser, theirs: torch.Tensor, ours: str = "conv_in.weight") -> bool:
    return torch.equal(model.net.state_dict()[ours], theirs)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_wrappers_put_in_front_is_taken_off(prefix):
    found, averaged = dialects.plain(under(prefix, RAW))
    assert found.keys() == RAW.keys()
    assert all(torch.equal(found[name], RAW[name]) for name in RAW)
    assert averaged == ("ema" in prefix)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod."])
def test_every_loader_takes_it_off(tmp_path, prefix):
    model = ddim_ode.load(write_original(tmp_path / "a", found=under(prefix, RAW)), check=False)
    assert is_of(model, RAW["conv_in.weight"])
    (tmp_path / "b").mkdir()
    state = guided(FLAGS).state_dict()
    model = ddim_ode.load(write_guided(tmp_path / "b", state=under(prefix, state)), check=False)
    assert is_of(model, state["input_blocks.0.0.weight"])
    pipeline(tmp_path / "c", unet2d(LAYOUTS["no attention"]))
    file = tmp_path / "c/unet/diffusion_pytorch_model.safetensors"
    state = load_file(file)
    save_file(under(prefix, state), file)
    assert is_of(ddim_ode.load(tmp_path / "c", check=False), state["conv_in.weight"])
    net = tiny_unet()
    config = ddim_ode.models.config.ModelConfig(network=net.config)
    save(tmp_path / "d", config, under(prefix, net.state_dict()), torch.float32)
    assert is_of(ddim_ode.load(tmp_path / "d"), net.state_dict()["conv_in.weight"])


def test_names_that_do_not_all_have_a_prefix_keep_theirs(tmp_path):
    """As a checkpoint of Lightning with more than the network in it."""
    state = under("model.", RAW) | under("vae.", {"w": torch.ones(2)}) | {"betas": torch.ones(4)}
    assert dialects.plain(state)[0].keys() == state.keys()
    folder = write_original(tmp_path, found={"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.0"})
    text = one_line(CheckpointError, ddim_ode.load, folder)
    assert f"it has model.* ({len(RAW)}), vae.* (1), betas" in text


def test_an_averaged_model_of_torch(tmp_path):
    net = original(seed=2)
    averaged = torch.optim.swa_utils.AveragedModel(net)
    model = ddim_ode.load(write_original(tmp_path, found=averaged.state_dict()), check=False)
    assert is_of(model, EMA["conv_in.weight"])
    assert model.provenance.ema == "yes"


@pytest.mark.parametrize(
    ("found", "ema", "which", "said"),
    [
        ({"state_dict": RAW, "epoch": 3}, True, RAW, "not stated"),
        ({"model": RAW, "optimizer": {"state": {}, "param_groups": []}}, True, RAW, "not stated"),
        ({"net": RAW, "step": 3}, False, RAW, "not stated"),
        ({"model": RAW, "ema": EMA}, True, EMA, "yes"),
        ({"model": RAW, "ema": EMA}, False, RAW, "no"),
        ({"params": RAW, "params_ema": EMA}, True, EMA, "yes"),
        ({"state_dict": under("module.", RAW), "ema_state_dict": under("_orig_mod.", EMA)}, True, EMA, "yes"),
        ({"model_ema": EMA, "epoch": 3}, True, EMA, "yes"),
        ({"model": RAW, "ema": {"model": EMA}}, True, EMA, "yes"),
        ({"model": RAW, "ema": {"model": EMA}}, False, RAW, "no"),
        ({"model": RAW, "model_ema": {"state_dict": EMA, "decay": 0.99, "updates": torch.tensor(3)}}, True, EMA, "yes"),
        ({"model": RAW, "ema": {"shadow": EMA, "decay": 0.99}}, True, EMA, "yes"),
        ({"state_dict": RAW, "ema_net": EMA}, True, EMA, "yes"),
        ({"state_dict": RAW, "netAveraged": EMA}, True, EMA, "yes"),
        ({"model": RAW, "ema": {"shadow_params": list(EMA.values())}}, False, RAW, "no"),
        ({"model": RAW, "ema_decay": 0.99, "n_averaged": torch.tensor(3), "ema": None}, True, RAW, "not stated"),
        ([RAW, {}, 1, 1000, {"shadow": EMA}], True, EMA, "yes"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) and len(value) < 9 else None,
)
def test_weights_inside_a_dict(tmp_path, found, ema, which, said):
    model = ddim_ode.load(write_original(tmp_path, found=found), ema=ema, check=False)
    assert is_of(model, which["conv_in.weight"])
    assert model.provenance.ema == said


@pytest.mark.parametrize(
    ("found", "ema", "message"),
    [
        ({"model": RAW, "net": RAW}, True, "holds 2 sets of weights (model, net); save one by itself"),
        ({"ema": EMA, "model_ema": EMA, "net": RAW}, True, "holds 2 sets of weights (ema, model_ema)"),
        ({"ema": EMA}, False, "holds averaged weights only (ema); leave ema=False (--no-ema) out"),
        (under("ema_model.", EMA), False, "holds averaged weights only; leave ema=False (--no-ema) out"),
        ({"generator": RAW, "step": 3}, True, "one under a name such as state_dict, model, net, ema"),
        ({"generator": RAW, "step": 3}, True, "there is generator, step"),
        ({"step": 3}, True, "holds a dict of 1; a dict of tensors was expected"),
        ({"ema_0.99": EMA, "ema_0.999": EMA, "net": RAW}, True, "holds 2 sets of weights (ema_0.99, ema_0.999)"),
        *(
            (found, True, f"holds averages under {key!r} in a form not known here; save them alone, as a dict")
            for key, found in {
                "ema": {"model": RAW, "ema": {"decay": 0.99, "shadow_params": list(EMA.values())}},
                "model_ema": {"model": RAW, "model_ema": {"fast": EMA, "slow": EMA}},
                "ema_params": {"model": RAW, "ema_params": list(EMA.values())},
                "avg": {"net": RAW, "avg": {"state": {"weights": EMA}}},
                "[4]": [RAW, {}, 1, 1000, list(EMA.values())],
            }.items()
        ),
    ],
)
def test_what_could_be_several_or_none_is_refused(tmp_path, found, ema, message):
    assert message in one_line(CheckpointError, ddim_ode.load, write_original(tmp_path, found=found), ema=ema)


def strange(kind: str) -> Any:
    values = RAW["conv_in.bias"]
    return {
        "int64": lambda: values.long(),
        "bool": lambda: values > 0,
        "complex64": lambda: values.to(torch.complex64),
        "float8_e4m3fn": lambda: values.to(torch.float8_e4m3fn),
        "sparse": lambda: values.to_sparse(),
        "nested": lambda: torch.nested.nested_tensor([values, values[:2]]),
        "quantised": lambda: torch.quantize_per_tensor(values, 0.1, 0, torch.qint8),
        "no values": lambda: torch.empty(10**12, device="meta"),
        "claim the shape": lambda: torch.ones(1).expand(10**6, 10**6),
        "NaN": lambda: values.clone().fill_(float("nan")),
        "too large for float32": lambda: values.double() + 1e300,
    }[kind]()


@pytest.mark.filterwarnings("ignore")  # torch's, that some of these kinds are new or old
@pytest.mark.parametrize(
    "kind",
    [
        *("int64", "bool", "complex64", "float8_e4m3fn", "sparse", "nested", "quantised", "no values"),
        *("claim the shape", "NaN", "too large for float32"),
    ],
)
def test_a_tensor_that_is_no_weights_is_named(tmp_path, kind):
    folder = write_original(tmp_path, found=RAW | {"conv_in.bias": strange(kind)})
    text = one_line(CheckpointError, ddim_ode.load, folder)
    assert text.startswith(f"{tmp_path / 'ckpt.pth'}: the weights of conv_in.bias ")
    assert kind in text


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_read(tmp_path, dtype):
    state = {name: value.to(dtype) for name, value in RAW.items()}
    model = ddim_ode.load(write_original(tmp_path, ORIGINAL, state), check=False)
    assert is_of(model, state["conv_in.weight"].float())
    assert model.provenance.dtype == str(dtype).removeprefix("torch.")
