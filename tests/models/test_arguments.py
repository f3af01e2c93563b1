"""What strangers give a model: of another kind, of another shape, out of range. One line names the argument."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddim_ode import paths
from ddim_ode.errors import DDIMError
from ddim_ode.models import arguments
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import Guided
from tests.helpers.assertions import one_line
from tests.helpers.tensors import f64, normal

PATH = paths.DiscreteVP.linear()
X = normal(2, 3, 4, seed=0, dtype=torch.float32)


def zeros(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    return 0 * x


GOOD = {"net": zeros, "path": PATH, "predicts": "noise", "shape": (3, 4), "num_classes": 0}


@pytest.mark.parametrize(
    "shape", [[3, 4], torch.Size([3, 4]), (np.int64(3), np.int32(4)), np.array([3, 4]), torch.tensor([3, 4])]
)
def test_shapes_are_tuples_of_ints(shape):
    found = Denoiser(**GOOD | {"shape": shape}).shape
    assert found == (3, 4)
    assert [type(size) for size in found] == [int, int]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": 28}, "shape is the int 28; give the shape of one sample"),
        ({"shape": "x"}, "shape is the str 'x'; give"),
        ({"shape": None}, "shape is None; give"),
        ({"shape": torch.tensor(3)}, "shape is "),
        ({"shape": torch.ones(1).expand(2**40)}, "shape is a Tensor of shape (1099511627776,); give"),
        ({"shape": range(2**62)}, "shape is a range"),
        ({"shape": (1 for _ in itertools.count())}, "shape is a generator; give"),
        ({"shape": {3, 4}}, "shape is a set of 2; give"),
        ({"shape": (0, 3)}, "shape=(0, 3): axis 0=0 must be a whole number >= 1"),
        ({"shape": (-1,)}, "axis 0=-1 must be a whole number >= 1"),
        ({"shape": (3, 3.0)}, "axis 1=3.0 must be a whole number >= 1"),
        ({"shape": (True, 3)}, "axis 0=True must be a whole number >= 1"),
        ({"shape": ("3", 3)}, "axis 0='3' must be a whole number >= 1"),
        ({"num_classes": -1}, "num_classes=-1 must be a whole number >= 0"),
        ({"num_classes": 1.5}, "num_classes=1.5 must be"),
        ({"num_classes": True}, "num_classes=True must be"),
        ({"num_classes": "3"}, "num_classes='3' must be"),
        ({"num_classes": None}, "num_classes=None must be"),
        ({"path": torch.zeros(3)}, "path is a Tensor of shape (3,); give one such as"),
        ({"path": "linear"}, "path is the str 'linear'; give"),
        ({"path": paths.DiscreteVP}, "path is the class DiscreteVP; give"),
        ({"net": "net"}, "net is the str 'net'; give a module or a function"),
        ({"net": None}, "net is None; give a module or a function"),
        ({"net": nn.Identity}, "net is the class Identity; give an instance of it"),
        ({"predicts": 3}, "predicts is the int 3; give one of noise"),
        ({"predicts": "x0"}, "predicts='x0' is unknown; choose one of noise"),
        ({"dtype": "float32"}, "dtype is the str 'float32'; give one such as torch.float32"),
        ({"dtype": int}, "dtype is the class int; give"),
        ({"dtype": torch.int64}, "dtype=torch.int64 is no precision of a network"),
        ({"dtype": torch.complex64}, "dtype=torch.complex64 is no precision"),
        ({"device": "nope"}, "device='nope' is no device"),
        ({"device": 10**30}, "is no device; give"),
        ({"device": True}, "device is the bool True; give"),
        ({"device": None}, "device is None; give"),
        ({"quantize": "yes"}, "quantize is the str 'yes'; give True, False or 'int'"),
        ({"quantize": 1}, "quantize is the int 1; give True, False or 'int'"),
        ({"null_class": 1}, "null_class is the int 1; give"),
        ({"null_class": np.float64(1.0)}, "null_class is the float64 1.0; give"),
        ({"latent": None}, "latent is None; give"),
        ({"provenance": "here"}, "provenance is the str 'here'; give"),
    ],
)
def test_what_a_denoiser_cannot_be_made_of(changes, words):
    assert words in one_line(DDIMError, lambda: Denoiser(**GOOD | changes))


LABELLED = Denoiser(**GOOD | {"num_classes": 3})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (("x", 1.0), "xbar is the str 'x'; give a tensor (B, 3, 4)"),
        (([[1.0]], 1.0), "xbar is a list of 1; give"),
        ((X[0], 1.0), "xbar has shape (3, 4); this model needs (B, 3, 4)"),
        ((torch.tensor(1.0), 1.0), "xbar has shape ()"),
        ((X[..., :2], 1.0), "xbar has shape (2, 3, 2)"),
        ((X.to_sparse(), 1.0), "xbar is a tensor whose numbers cannot be read; give a dense one (B, 3, 4)"),
        ((X.to("meta"), 1.0), "xbar is a tensor whose numbers cannot be read"),
        ((X.long(), 1.0), "xbar is torch.int64; give floats"),
        ((X.to(torch.float8_e4m3fn), 1.0), "xbar is torch.float8_e4m3fn; give floats"),
        ((X.to(torch.complex64), 1.0), "xbar is torch.complex64; give floats"),
        ((X, "1"), "sigma is the str '1'; give a number > 0"),
        ((X, None), "sigma is None; give"),
        ((X, True), "sigma is the bool True; give"),
        ((X, 1j), "sigma is the complex 1j; give"),
        ((X, torch.tensor([1j, 2j])), "sigma is a Tensor of shape (2,); give"),
        ((X, -0.1), "sigma=-0.1 is no noise level; give finite numbers > 0"),
        ((X, -1.0), "sigma=-1 is no noise level"),
        ((X, math.nan), "sigma=nan is no noise level"),
        ((X, math.inf), "sigma=inf is no noise level"),
        ((X, f64([1.0, math.nan])), "sigma=nan is no noise level"),
        ((X, [1.0, -2.0]), "sigma=-2 is no noise level"),
        ((X, [1.0, 2.0, 3.0]), "sigma has shape (3,); give one number, or one for each sample (2)"),
        ((X, f64([[1.0, 2.0]])), "sigma has shape (1, 2)"),
        ((X, 1.0, [0, 1]), "labels are a list of 2; give a tensor (2,)"),
        ((X, 1.0, 1), "labels are the int 1; give"),
        ((X, 1.0, "01"), "labels are the str '01'; give"),
        ((X, 1.0, torch.tensor([0])), "labels have shape (1,); give one for each sample (2)"),
        ((X, 1.0, torch.tensor([0.0, 1.0])), "labels are torch.float32; they must be whole numbers in 0..3"),
        ((X, 1.0, torch.tensor([True, False])), "labels are torch.bool"),
        ((X, 1.0, torch.tensor([0, 4])), "label 4 does not exist"),
        ((X, 1.0, torch.tensor([-1, 0])), "label -1 does not exist"),
    ],
)
@pytest.mark.parametrize("guided", [False, True])
def test_what_a_denoiser_cannot_be_asked(inputs, words, guided):
    model = Guided(LABELLED, 2.0) if guided else LABELLED
    if guided:
        inputs = (*inputs, torch.tensor([0, 1]))[:3]
    found = one_line(DDIMError, model, *inputs)
    assert words in found or (guided and found.startswith(words.split()[0]))


@pytest.mark.parametrize("labels", [torch.tensor([0, 1]), torch.tensor([7]), [0, 1], 3])
def test_labels_of_a_model_without_any_are_not_looked_at(labels):
    model = Denoiser(**GOOD)
    assert torch.equal(model(X, 1.0, labels).data, model(X, 1.0).data)


@pytest.mark.parametrize("name", ["quantize", "null_class", "latent"])
@pytest.mark.parametrize("value", [True, False])
def test_flags_of_numpy(name, value):
    given, plain = (Denoiser(**GOOD | {name: kind(value)}) for kind in (np.bool_, bool))
    assert getattr(given, name) is value
    assert given == plain


@pytest.mark.parametrize("number", [0, 1, np.int64(1)])
def test_a_device_may_be_the_number_of_an_accelerator(number, monkeypatch):
    real = torch.device
    monkeypatch.setattr(torch, "device", lambda given: real("cuda", given))  # as torch reads it where there is one
    assert arguments.place(number, DDIMError) == real("cuda", int(number))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
def test_labels_reach_the_network_as_int64(kind):
    seen = []
    model = Denoiser(lambda x, t, y: (seen.append(y), 0 * x)[1], PATH, "noise", (3, 4), 3)
    model(X, 1.0, torch.tensor([0, 3], dtype=kind))
    assert seen[0].dtype == torch.int64
    assert seen[0].tolist() == [0, 3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": 3.0}, "device is the float 3.0; give"),
        ({"device": "nope"}, "device='nope' is no device"),
        ({"dtype": "x"}, "dtype is the str 'x'; give"),
        ({"dtype": torch.int32}, "dtype=torch.int32 is no precision"),
        *([] if torch.cuda.is_available() else [({"device": "cuda"}, "device='cuda' cannot be used here")]),
    ],
)
def test_where_a_model_cannot_be_moved(changes, words):
    model = Denoiser(nn.Linear(4, 4), PATH, "noise", (4,))
    assert words in one_line(DDIMError, lambda: model.to(**changes))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("x", 2.0), "model is the str 'x'; give a Denoiser"),
        ((None, 2.0), "model is None; give a Denoiser"),
        ((Denoiser, 2.0), "model is the class Denoiser; give a Denoiser"),
        ((LABELLED, "2"), "guidance='2' is not finite"),
        ((LABELLED, math.nan), "guidance=nan is not finite"),
        ((LABELLED, None), "guidance=None is not finite"),
        ((LABELLED, 2.0, 3.0), "is no range; give (low, high)"),
        ((LABELLED, 2.0, "ab"), "is no range; give (low, high)"),
        ((LABELLED, 2.0, (1.0, 2.0, 3.0)), "is no range; give (low, high)"),
        ((LABELLED, 2.0, (3.0, 2.0)), "is empty"),
    ],
)
def test_what_cannot_be_guided(given, words):
    assert words in one_line(DDIMError, Guided, *given)


@pytest.mark.parametrize("scale", [2, np.float64(2.0), torch.tensor(2.0)])
def test_a_scale_of_any_library(scale):
    labels = torch.tensor([0, 1])
    assert torch.equal(Guided(LABELLED, scale)(X, 1.0, labels).data, Guided(LABELLED, 2.0)(X, 1.0, labels).data)


EDM, K, FLOW = Denoiser.from_edm, Denoiser.from_k_diffusion, Denoiser.from_flow
RANGE = {"sigma_min": 0.01, "sigma_max": 80.0}


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (EDM, {"sigma_min": math.nan}, "sigma_min=nan must be a number"),
        (EDM, {"sigma_min": "0.1"}, "sigma_min='0.1' must be a number"),
        (EDM, {"sigma_max": -1}, "sigma_max=-1 must be a number"),
        (EDM, {"sigma_min": 2.0, "sigma_max": 1.0}, "sigma_min=2 and sigma_max=1 are no range"),
        (EDM, {"sigma_max": math.inf}, "sigma_max=inf are no range"),
        (EDM, {"num_classes": "3"}, "num_classes='3' must be a whole number >= 0"),
        (K, RANGE | {"sigma_min": 0.0}, "sigma_min=0 and sigma_max=80 are no range"),
        (K, RANGE | {"sigma_max": "80"}, "sigma_max='80' must be a number"),
        (K, RANGE | {"label_arg": 3}, "label_arg is the int 3; give the name"),
        (K, RANGE | {"label_arg": "a b"}, "'a b' is no name of an argument"),
        (K, RANGE | {"extra_args": [1]}, "extra_args is a list of 1; give a dict"),
        (K, RANGE | {"extra_args": {1: 2}}, "a name in extra_args is the int 1; give"),
        (K, RANGE | {"extra_args": {"class_cond": 1}, "num_classes": 3}, "extra_args has 'class_cond'"),
        (FLOW, {"data_at": "0"}, "data_at='0' is no end of a flow"),
        (FLOW, {"data_at": None}, "data_at=None is no end of a flow"),
        (FLOW, {"time_scale": 0}, "time_scale=0 is none"),
        (FLOW, {"time_scale": "1000"}, "time_scale='1000' must be a number"),
        (FLOW, {"time_scale": math.nan}, "time_scale=nan must be a number"),
        (FLOW, {"noise_range": 0.5}, "noise_range=0.5 is none"),
        (FLOW, {"noise_range": ("a", "b")}, "noise_range=('a', 'b') is none"),
        (Denoiser.from_v, {"path": "cosine"}, "not str; use from_flow"),
        (Denoiser.from_score, {"path": "vp"}, "path is the str 'vp'; give"),
    ],
)
def test_what_a_convention_does_not_take(make, options, words):
    assert words in one_line(DDIMError, lambda: make(zeros, (3, 4), **options))


@pytest.mark.parametrize("make", [EDM, K, FLOW, Denoiser.from_v, Denoiser.from_score])
@pytest.mark.parametrize("net", ["net", None, nn.Identity])
def test_a_convention_needs_a_network(make, net):
    assert "net is " in one_line(DDIMError, lambda: make(net, (3, 4)))
