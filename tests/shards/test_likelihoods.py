"""The likelihood of a set by shards: the numbers of one call over all of its images."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ddim_ode.checkpoints import load
from ddim_ode.image_sets import open_images
from ddim_ode.inversion import reconstruct
from ddim_ode.likelihood import log_likelihood
from ddim_ode.planning.inputs import SampleError
from ddim_ode.shards.likelihoods import EACH, likelihood_shards
from ddim_ode.support.checks import ArgumentError
from ddim_ode.support.files import OutputError
from ddim_ode.support.process import computing
from tests.helpers.assertions import one_line
from tests.helpers.command_line import make_model
from tests.helpers.launching import run, under_torchrun
from tests.helpers.networks import random_network

TOTAL, BATCH = 40, 32  # two shards, the last of eight images
IMAGES = torch.randint(256, (TOTAL, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
LABELS = torch.arange(TOTAL) % 3
SCRIPT = """
import json, sys
from pathlib import Path
import ddim_ode
from ddim_ode.errors import DDIMError
from ddim_ode.image_sets import open_images
from ddim_ode.shards import likelihood_shards, reconstruct_shards
from ddim_ode.support.processes import rank

folder = Path(sys.argv[1])
model, x = ddim_ode.load(folder / "model"), open_images(folder / "images.safetensors")
how = {"method": "euler", "nfe": 4, "batch_size": 32}
told = {}
for seed, keep in ((0, "first"), (1, "first"), (1, "second")):
    try:
        found = likelihood_shards(model, x, folder / keep, seed=seed, **how)
        told[f"{seed} {keep}"] = found and found.nats.tolist()
    except DDIMError as error:
        told[f"{seed} {keep}"] = type(error).__name__
trips = reconstruct_shards(model, x, folder / "trips", methods=["ddim"], nfe=4, batch_size=32)
told["trips"] = trips and trips[0].each["rms"].tolist()
(folder / f"{rank()}.json").write_text(json.dumps(told))
"""


@pytest.mark.parametrize(
    "how",
    [
        {"method": "heun3", "nfe": 18, "probes": 2, "seed": 5},
        {"method": "adaptive_heun", "tol": 5.0, "guidance": 1.5},
        {"method": "euler", "nfe": 4, "probe": "gaussian", "dequantize": False, "dtype": torch.float64},
    ],
)
def test_the_numbers_are_those_of_one_call(tmp_path, how):
    model = random_network().to(dtype=how.get("dtype", torch.float32))
    with computing(1):
        expected = log_likelihood(model, IMAGES, LABELS, batch_size=BATCH, **how)
    for keep in (None, tmp_path / "kept", tmp_path / "kept"):
        found = likelihood_shards(model, IMAGES, keep, labels=LABELS, batch_size=BATCH, **how)
        for name in EACH:
            assert getattr(found, name).numpy().tobytes() == getattr(expected, name).numpy().tobytes()
    assert found.mean == expected.mean


def test_the_first_of_the_images_alone():
    model, how = random_network(), {"method": "euler", "nfe": 4, "batch_size": BATCH}
    found = likelihood_shards(model, IMAGES, labels=LABELS, count=35, **how)
    with computing(1):
        assert torch.equal(found.nats, log_likelihood(model, IMAGES[:35], LABELS[:35], **how).nats)


def test_a_part_says_where_it_begins():
    model, how = random_network(), {"method": "euler", "nfe": 4, "batch_size": 1}
    whole = log_likelihood(model, IMAGES[:4], **how)
    assert torch.equal(log_likelihood(model, IMAGES[2:4], first=2, **how).nats, whole.nats[2:])
    assert not torch.isclose(log_likelihood(model, IMAGES[2:4], **how).nats, whole.nats[2:]).any()


def test_another_model_or_option_is_refused_by_name(tmp_path):
    model, how = random_network(), {"method": "euler", "nfe": 4, "batch_size": BATCH}
    likelihood_shards(model, IMAGES, tmp_path, **how)
    changed = {"seed": 1, "nfe": 6, "probes": 2, "dequantize": False, "batch_size": 64, "labels": LABELS, "threads": 2}
    for name, value in changed.items():
        line = one_line(OutputError, likelihood_shards, model, IMAGES, tmp_path, **{**how, name: value})
        assert f"belongs to another job: its {name} is " in line
    with torch.no_grad():
        next(model.net.parameters()).add_(1)
    line = one_line(OutputError, likelihood_shards, model, IMAGES, tmp_path, **how)
    assert "belongs to another job: its model is " in line


def test_what_cannot_be_is_one_line(tmp_path):
    model = random_network()
    for name in ("prior", "conditions", "first", "callback", "steps"):
        assert f"unknown option '{name}'" in one_line(SampleError, likelihood_shards, model, IMAGES, **{name: None})
    assert "model is the str 'fashion'" in one_line(ArgumentError, likelihood_shards, "fashion", IMAGES)
    assert "n=41 is too many" in one_line(SampleError, likelihood_shards, model, IMAGES, count=41)
    assert "this model needs a tensor (B, 1, 8, 8)" in one_line(SampleError, likelihood_shards, model, IMAGES[..., :7])


def test_jobs_of_one_script_under_torchrun_one_of_which_is_refused(tmp_path):
    x = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(5)) * 2 - 1
    save_file({"x": x}, tmp_path / "images.safetensors")
    (tmp_path / "script.py").write_text(SCRIPT)
    model = load(make_model(tmp_path / "model"))
    ended = run(under_torchrun([tmp_path / "script.py", tmp_path]))
    assert ended.returncode == 0, ended.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert second == {"0 first": None, "1 first": "OtherFailedError", "1 second": None, "trips": None}
    images, how = open_images(tmp_path / "images.safetensors")[:], {"batch_size": BATCH}
    with computing(1):
        zero, one = (log_likelihood(model, images, method="euler", nfe=4, seed=seed, **how).nats for seed in (0, 1))
        trips = reconstruct(model, images, "ddim", 4, **how)
    expected = {
        "0 first": zero.tolist(),
        "1 first": "OutputError",
        "1 second": one.tolist(),
        "trips": trips.rms.tolist(),
    }
    assert first == expected
