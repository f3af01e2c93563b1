"""What a network predicts can be told from what it says; where it cannot, nothing is said."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import ddim_ode
from ddim_ode import paths
from ddim_ode.checkpoints import PredictionWarning
from ddim_ode.checkpoints.diffusers_folder import save_diffusers
from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.equations import PREDICTS
from ddim_ode.models.unet import UNet, UNetConfig
from tests.helpers.assertions import one_line
from tests.helpers.foreign import LAYOUTS, pipeline, unet2d
from tests.helpers.mixtures import MIXTURES
from tests.helpers.networks import Counting, network, random_network, randomise, tiny_unet
from tests.helpers.tables import PATHS

RANGES = {"linear": paths.DiscreteVP.linear(), "cosine": paths.DiscreteVP.cosine(), "noise": paths.Noise(0.01, 80.0)}
RANGES |= {"flow": paths.Flow(0.01, 80.0), "angle": paths.Angle(0.01, 80.0)}

#: (truth, declared) of which nothing is said: on the path, with the right numbers, one is nearly the other
ALIKE = {("noise", "flow")}
ALIKE_ON = {
    ("fashion", "noise"): ALIKE | {("noise", "velocity"), ("flow", "velocity")},
    **{("tight", path): ALIKE | {("data", "velocity")} for path in RANGES},
}


def recast(model: Denoiser, path: paths.Path, predicts: str) -> Denoiser:
    """The same knowledge, trained on another path to predict something else."""

    def net(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        a, b = path.coefficients(t.double())
        p, q = PREDICTS[predicts](a, b)
        column = (-1, *[1] * (x.ndim - 1))
        found = model((x.double() / a.reshape(column)).to(x.dtype), b / a, labels)
        return (p.reshape(column) * found.data + q.reshape(column) * found.noise).to(x.dtype)

    return Denoiser(net, path, predicts, model.shape, model.num_classes)


def truth(name: str, path: str, predicts: str) -> Denoiser:
    if name == "fashion":
        return recast(network(), RANGES[path], predicts)
    return MIXTURES[name].denoiser(RANGES[path], predicts)


@pytest.mark.skipif("fashion" not in ddim_ode.checkpoints.bundled(), reason="no trained network")
@pytest.mark.parametrize(
    ("name", "path", "predicts"),
    [("tight", path, predicts) for path in RANGES for predicts in PREDICTS]
    + [("fashion", "cosine", predicts) for predicts in PREDICTS]
    + [("fashion", "noise", "noise"), ("fashion", "noise", "flow"), ("fashion", "flow", "flow")],
)
def test_images_tell_what_is_predicted(name, path, predicts):
    model = truth(name, path, predicts)
    silent = ALIKE_ON.get((name, path), ALIKE)
    for declared in PREDICTS:
        found = ddim_ode.probe(replace(model, predicts=declared))
        assert predicts in found.plausible
        expected = None if declared == predicts or (predicts, declared) in silent else predicts
        assert found.likely == expected, declared
        assert (found.likely is None) == (declared in found.plausible)


@pytest.mark.parametrize("predicts", PREDICTS)
@pytest.mark.parametrize("path", RANGES)
@pytest.mark.parametrize("name", ["labelled", "two modes"])
def test_of_few_dimensions_nothing_wrong_is_said(name, path, predicts):
    """Smooth densities of one or six dimensions hold too little to tell kinds apart."""
    model = truth(name, path, predicts)
    for declared in PREDICTS:
        found = ddim_ode.probe(replace(model, predicts=declared))
        assert predicts in found.plausible
        assert found.likely in (None, predicts)
        assert declared != predicts or found.likely is None


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_untrained_networks_are_left_alone(seed, scale):
    net = randomise(tiny_unet(shape=(3, 16, 16), num_classes=0), seed)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(scale)
    for declared in PREDICTS:
        found = ddim_ode.probe(Denoiser(net, PATHS["linear"], declared, net.config.shape))
        assert found.likely is None


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_constant_is_no_likely_image(value):
    for declared in PREDICTS:
        model = Denoiser(lambda x, t: torch.full_like(x, value), PATHS["linear"], declared, (1, 8, 8))
        assert ddim_ode.probe(model).likely is None


def test_it_is_a_function_of_its_seed_and_leaves_the_global_one_alone():
    model = replace(random_network(), predicts="data")
    before = torch.get_rng_state()
    assert ddim_ode.probe(model).faults == ddim_ode.probe(model).faults
    assert ddim_ode.probe(model, seed=1).faults != ddim_ode.probe(model).faults
    assert torch.equal(torch.get_rng_state(), before)


def test_what_it_costs():
    model = truth("fashion", "linear", "noise") if "fashion" in ddim_ode.checkpoints.bundled() else random_network()
    counting = Counting(model.net)
    ddim_ode.probe(replace(model, net=counting))
    count = max(2, math.ceil(2048 / math.prod(model.shape)))
    assert counting.rows <= 8 * count


def test_a_network_without_a_null_class_gets_labels():
    net = randomise(tiny_unet(null_class=False), seed=0)
    shape, classes = net.config.shape, net.config.num_classes
    assert ddim_ode.probe(Denoiser(net, PATHS["linear"], "noise", shape, classes, null_class=False)).likely is None


def test_only_a_denoiser_says_what_its_network_does():
    text = one_line(DDIMError, ddim_ode.probe, ddim_ode.Guided(random_network(), 2.0))
    assert text == "only a Denoiser can be probed, and this is a Guided; give the one inside"


# --- on loading: the network that ships, as diffusers would hold it. Its patches are pixels of four channels.


@pytest.fixture
def folder(tmp_path):
    model = ddim_ode.load("fashion")
    values = model.provenance.config.network.model_dump() | {"shape": (4, 14, 14), "patch": 1}
    config = model.provenance.config.model_copy(update={"network": UNetConfig(**values)})
    assert isinstance(model.net, UNet)
    save_diffusers(tmp_path, config, model.net.state_dict())
    return tmp_path


def declare(folder, prediction: str) -> None:
    file = folder / "scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": prediction}))


def test_a_wrong_prediction_type_is_named_on_loading(folder, recwarn):
    ddim_ode.load(folder)
    assert not recwarn.list
    for prediction, kind in (("epsilon", "noise"), ("sample", "data")):
        declare(folder, prediction)
        with pytest.warns(PredictionWarning) as caught:
            assert ddim_ode.load(folder).predicts == kind
        (warning,) = caught
        assert warning.filename == __file__
        text = str(warning.message)
        assert "\n" not in text
        assert f"safetensors: it predicts {kind}: implausible (the " in text
        assert text.endswith("; velocity is likely")
        recwarn.clear()
        ddim_ode.load(folder, check=False)
        assert not recwarn.list


@pytest.mark.filterwarnings("default::ddim_ode.checkpoints.PredictionWarning")
def test_the_command_line_shows_it_as_one_line(folder, run):
    declare(folder, "epsilon")
    code, out, err = run("info", folder, "--json")
    assert code == 0
    assert json.loads(out)["predicts"] == "noise"
    assert err.startswith("warning: ")
    assert err.count("\n") == 1


def test_untrained_foreign_models_load_in_silence(tmp_path, recwarn):
    for layout in ("class-conditional", "attention in the middle", "learned variance"):
        pipeline(tmp_path, unet2d(LAYOUTS[layout]))
        ddim_ode.load(tmp_path)
    assert not [w for w in recwarn.list if issubclass(w.category, PredictionWarning)]
