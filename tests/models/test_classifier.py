"""Classifiers of noisy images: asked on their path, saved, loaded, and the one that ships."""

import pytest
import torch

from ddim_ode import data
from ddim_ode.errors import DDIMError
from ddim_ode.models.classifier import (
    SETTINGS,
    WEIGHTS,
    Classifier,
    ClassifierConfig,
    ClassifierError,
    NoisyClassifier,
    bundled_classifiers,
    load_classifier,
    save_classifier,
)
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import GuidanceError, GuidedByClassifier
from ddim_ode.paths import DiscreteVP, Flow
from ddim_ode.support.validation import ConfigError
from tests.helpers.assertions import one_line
from tests.helpers.tensors import f64, normal

CONFIG = ClassifierConfig.model_validate(
    {"network": {"shape": (1, 8, 8), "num_classes": 3, "channels": (8, 16)}, "schedule": {"name": "cosine"}}
)


def network(config=CONFIG, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NoisyClassifier(config.network).eval().requires_grad_(False)


def test_the_network_is_asked_on_the_path_in_its_own_precision():
    seen = []

    def net(x, t):
        seen.append((x, t))
        return x.flatten(1)[:, :3]

    path, xbar, sigma = Flow(0.01, 100.0), normal(4, 2, 3, seed=0), f64([0.1, 1.0, 4.0, 1000.0])
    logits = Classifier(net, path, 3)(xbar, sigma)
    x, t = seen[0]
    a, b = 1 / (1 + sigma), sigma / (1 + sigma)
    torch.testing.assert_close(x, a.reshape(4, 1, 1) * xbar, rtol=1e-14, atol=0)
    torch.testing.assert_close(
        t, torch.minimum(b, f64(100 / 101)), rtol=1e-14, atol=0
    )  # beyond the range it is clamped
    torch.testing.assert_close(logits, x.flatten(1)[:, :3])
    known = Classifier(network(), DiscreteVP.cosine(), 3)
    assert known(normal(2, 1, 8, 8, seed=1), f64(1.0)).dtype == torch.float64
    assert known(normal(2, 1, 8, 8, seed=1).float(), f64(1.0)).dtype == torch.float32


def test_samples_do_not_know_of_each_other():
    known, x, sigma = Classifier(network(), DiscreteVP.cosine(), 3), normal(5, 1, 8, 8, seed=0).float(), f64([1.0] * 5)
    whole = known(x, sigma)
    for i in range(5):
        torch.testing.assert_close(whole[i : i + 1], known(x[i : i + 1], sigma[i : i + 1]), rtol=1e-4, atol=1e-5)
    assert (whole - known(x, f64([0.1] * 5))).abs().max() > 1e-3  # it looks at the time


def test_it_is_loaded_as_it_was_saved(tmp_path):
    net = network()
    save_classifier(tmp_path / "c", CONFIG, net.state_dict())
    state = torch.random.get_rng_state()
    found = load_classifier(tmp_path / "c")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (found.path, found.num_classes) == (CONFIG.schedule.path(), 3)
    x = normal(2, 1, 8, 8, seed=0).float()
    expected = Classifier(net.half().float(), found.path, 3)(x, f64(1.0))
    assert torch.equal(found(x, f64(1.0)), expected)


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    line = one_line(ClassifierError, load_classifier, "fashoin")
    assert line.startswith(f"there is no classifier 'fashoin'; give a folder that holds {SETTINGS}, or one of: fashion")
    save_classifier(tmp_path / "c", CONFIG, network().state_dict())
    assert "classifier.safetensors" in _broken(tmp_path / "c", WEIGHTS, lambda text: text[:-7])
    assert "is not as it was written" in _broken(tmp_path / "c", SETTINGS, lambda text: text + b"\n", ConfigError)
    other = CONFIG.model_copy(update={"network": CONFIG.network.model_copy(update={"channels": (8, 24)})})
    save_classifier(tmp_path / "d", other, network().state_dict())
    assert "does not fit" in one_line(ClassifierError, load_classifier, tmp_path / "d")


def _broken(folder, name, change, error=DDIMError):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(change(whole))
    line = one_line(error, load_classifier, folder)
    (folder / name).write_bytes(whole)
    return line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (8, 16, 32, 64)}, "not divisible by 16"),
        ({"channels": (8, 20)}, "20 is not a multiple of groups=8"),
        ({"num_classes": 1}, "greater than or equal to 2"),
        ({"width": 3}, "Extra inputs"),
    ],
)
def test_a_network_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ClassifierConfig.model_validate({"network": CONFIG.network.model_dump() | changes})


def test_the_one_that_ships_knows_images_without_noise_and_with_some():
    assert bundled_classifiers() == ["fashion"]
    assert sum(file.stat().st_size for file in (data.ASSETS / "fashion-classifier").iterdir()) < 1_000_000
    known, (images, labels) = load_classifier("fashion"), data.bundled_images()
    x, eps = data.to_float(images), normal(300, 1, 28, 28, seed=0).float()
    for sigma, least in ((0.01, 0.85), (0.5, 0.8), (2.0, 0.65), (1000.0, 0.03)):
        logits = known(x + sigma * eps, f64(sigma))
        right = float((logits.argmax(1) == labels).double().mean())
        assert right > least
        if sigma == 1000.0:  # of nothing it says nothing: the classes are as likely as each other
            assert right < 0.2
            assert float(logits.softmax(1).max()) < 0.4


def test_it_has_a_device_that_must_be_the_models():
    known = load_classifier("fashion")
    assert known.device == torch.device("cpu")
    assert known.to("cpu").net is not known.net
    elsewhere = Denoiser(lambda x, t: x, known.path, "noise", (1, 28, 28), device=torch.device("cuda:0"))
    found = one_line(GuidanceError, GuidedByClassifier, elsewhere, known)
    assert found == "the classifier is on cpu, and the model on cuda:0; give classifier.to('cuda:0')"
    assert "'nowhere' is no device" in one_line(DDIMError, known.to, "nowhere")
    plain = Classifier(lambda x, t: torch.zeros(len(x), 3), known.path, 3)
    assert "nobody can move" in one_line(DDIMError, plain.to, "cpu")
