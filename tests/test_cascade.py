"""Cascades: what each stage is told, what it costs, that a sample is a function of its seed, and the folder of one."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddim_ode import checkpoints
from ddim_ode.cascade import FILE, Cascade, CascadeError, is_cascade
from ddim_ode.checkpoints import CheckpointError
from ddim_ode.data import bundled_images, to_float, to_uint8
from ddim_ode.metrics.fashion import load_fashion_features
from ddim_ode.models.conditional import multiply_adds
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import Guided
from ddim_ode.models.image_condition import ConditionConfig, resized, shrunk
from ddim_ode.paths import DiscreteVP
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import SolveOptions
from ddim_ode.sampling import sample
from ddim_ode.support.checks import ArgumentError
from ddim_ode.support.validation import ConfigError
from tests.helpers.assertions import one_line
from tests.helpers.networks import tiny_unet

PATH = DiscreteVP.linear()
SMALL, LARGE = (1, 4, 4), (1, 8, 8)
FEW = [SolveOptions(nfe=3), SolveOptions(method="adams3", nfe=5)]


def denoiser(**choices: object) -> Denoiser:
    net = tiny_unet(**choices)
    return Denoiser(net, PATH, "velocity", net.config.shape, net.config.num_classes)


def cascade(augmentation: float = 0.0, noise: bool = True) -> Cascade:
    small = denoiser(shape=SMALL)
    return Cascade([small, denoiser(condition={"image": SMALL, "noise": noise})], augmentation)


class Enlarging(nn.Module):
    """Says that the image is the one that it is told, each pixel four times; remembers what it was told."""

    condition = ConditionConfig(image=SMALL, noise=True)

    def __init__(self) -> None:
        super().__init__()
        self.told: list[dict[str, torch.Tensor]] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, **told: torch.Tensor) -> torch.Tensor:
        self.told.append(told)
        return F.interpolate(told["image"], x.shape[-2:])


class Bright(nn.Module):
    """Says that the image is 1.5 everywhere, brighter than any."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 1.5)


def test_each_stage_is_told_the_image_of_the_one_before():
    """In closed form: a stage that enlarges what it is told makes the first stage's image, four times as large."""
    first, second = denoiser(shape=SMALL, num_classes=0), Denoiser(Enlarging(), PATH, "data", LARGE)
    found = Cascade([first, second]).sample([FEW[0], SolveOptions(nfe=5)], seeds=range(3))
    low = sample(first, nfe=3, seeds=range(3)).x
    assert torch.equal(found.stages[0].x, low)
    assert torch.allclose(found.x, F.interpolate(low.clamp(-1, 1), (8, 8)), atol=1e-5)
    assert found.nfe.tolist() == [[3, 5]] * 3


def test_what_is_told_lies_where_images_lie():
    net = Enlarging()
    Cascade([Denoiser(Bright(), PATH, "data", SMALL), Denoiser(net, PATH, "data", LARGE)]).sample(FEW)
    assert all(torch.equal(told["image"], torch.ones(1, *SMALL)) for told in net.told[:5])


def test_noise_of_the_level_that_is_told_comes_from_the_seed():
    net = Enlarging()
    chain = Cascade([Denoiser(net, PATH, "data", LARGE)], augmentation=0.6)
    image = torch.zeros(400, *SMALL)
    once = SolveOptions(nfe=1, batch_size=400)
    chain.sample(once, image=image)
    noise = net.told[0]["image"] / 0.6
    assert torch.equal(net.told[0]["image_noise"], torch.full((400,), 0.6))
    assert abs(noise.mean().item()) < 5 / 80
    assert noise.std().item() == pytest.approx(1, abs=5 / 80)
    net.told.clear()
    chain.sample(once, seeds=[7, 399], image=image[:2])
    assert torch.equal(net.told[0]["image"], 0.6 * noise[[7, 399]])


def test_a_sample_is_a_function_of_its_seed_alone():
    chain, labels = cascade(0.3), torch.arange(7) % 3
    whole = chain.sample(FEW, seeds=range(7), labels=labels)
    for chosen in ([0], [6, 2], [3, 1, 5, 0]):
        part = chain.sample([replace(one, batch_size=2) for one in FEW], seeds=chosen, labels=labels[chosen])
        assert torch.allclose(part.x, whole.x[chosen], atol=1e-4)
        assert torch.allclose(part.stages[0].x, whole.stages[0].x[chosen], atol=1e-4)
    assert torch.equal(chain.sample(FEW, seeds=range(7), labels=labels).x, whole.x)
    assert not torch.allclose(cascade(0.0).sample(FEW, seeds=range(7), labels=labels).x, whole.x, atol=1e-2)


def test_labels_reach_every_stage():
    chain = cascade()
    found = [chain.sample(FEW, labels=label) for label in (0, 1, None)]
    for a, b in ((0, 1), (1, 2)):
        assert not torch.allclose(found[a].stages[0].x, found[b].stages[0].x, atol=1e-3)
    low = torch.zeros(1, *SMALL)
    one, other = (chain.after(1).sample(FEW[1], image=low, labels=label).x for label in (0, 1))
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_cascade_goes_on_from_images():
    """The stages after the first make of its images what the whole makes, given the noise of theirs."""
    chain = cascade()
    whole = chain.sample(FEW, seeds=range(2))
    low = whole.stages[0].x.clamp(-1, 1)
    tail = chain.after(1)
    x = tail.sample(FEW[1], seeds=range(2), image=low).x
    again = sample(chain.stages[1], "adams3", 5, seeds=range(2), conditions={"image": low})
    assert torch.equal(x, again.x)
    pixels = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, *SMALL)
    floats = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1).expand(2, *SMALL)
    assert torch.equal(tail.sample(FEW[1], image=pixels).x, tail.sample(FEW[1], image=floats).x)


def test_what_it_costs_is_told_in_passes_of_the_largest_network():
    chain = cascade()
    counts = [multiply_adds(stage) for stage in chain.stages]
    found = chain.sample(FEW, seeds=range(2))
    assert counts[0] < counts[1]
    assert found.weights == (counts[0] / counts[1], 1.0)
    assert found.equivalents.tolist() == pytest.approx([3 * counts[0] / counts[1] + 5] * 2)
    guided = chain.sample([FEW[0], SolveOptions(nfe=6, guidance=2.0)], labels=1)
    assert guided.nfe.tolist() == [[3, 6]]
    assert multiply_adds(Guided(chain.stages[1], 2.0)) == counts[1]


def test_three_stages():
    middle = denoiser(shape=LARGE, condition={"image": SMALL})
    last = denoiser(shape=(1, 16, 16), condition={"image": LARGE, "noise": True})
    chain = Cascade([denoiser(shape=SMALL), middle, last], [0.0, 0.2])
    found = chain.sample(SolveOptions(nfe=2), labels=[1, 2], seeds=[4, 5])
    assert [tuple(stage.x.shape) for stage in found.stages] == [(2, *SMALL), (2, *LARGE), (2, 1, 16, 16)]
    assert chain.after(2).levels == (0.2,)
    assert chain.shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SolveOptions(method="adaptive", tol=0.1), "adaptive"),
        (SolveOptions(method="ddim", nfe=4, eta=1.0), "ddim"),
    ],
    ids=["adaptive", "with noise on the way"],
)
def test_any_method_solves_a_stage(options, expected):
    chain = cascade(0.2)
    whole = chain.sample(options, seeds=range(3), labels=1)
    alone = chain.sample(options, seeds=[2], labels=1)
    assert torch.allclose(alone.x, whole.x[2:], atol=1e-3)
    assert (whole.nfe > 1).all()


def test_stages_that_do_not_follow_each_other_are_refused():
    small, large = denoiser(shape=SMALL), denoiser(condition={"image": SMALL})
    assert "stages[1] is told no image" in one_line(CascadeError, Cascade, [small, denoiser()])
    assert "told an image of shape (1, 4, 4), and stages[0] makes (1, 8, 8)" in one_line(
        CascadeError, Cascade, [denoiser(), large]
    )
    other = denoiser(condition={"image": SMALL}, num_classes=2)
    assert "stages[1] has 2 classes, and stages[0] has 3" in one_line(CascadeError, Cascade, [small, other])
    assert "stages=0 are no cascade" in one_line(CascadeError, Cascade, [])
    assert "stages is a Denoiser" in one_line(ArgumentError, Cascade, small)
    assert "model is the str 'fashion'" in one_line(ArgumentError, Cascade, ["fashion"])


def test_noise_that_cannot_be_is_refused():
    small, plain = denoiser(shape=SMALL), denoiser(condition={"image": SMALL})
    assert "stage 1 is not told how noisy" in one_line(CascadeError, Cascade, [small, plain], 0.1)
    assert "augmentation=1.5 must be a number from 0 to 1" in one_line(CascadeError, Cascade, [small, plain], 1.5)
    assert "are 2; 1 stages are told" in one_line(CascadeError, Cascade, [small, plain], [0.0, 0.0])


def test_wrong_arguments_of_a_run_are_refused():
    chain, tail, low = cascade(), cascade().after(1), torch.zeros(2, *SMALL)
    assert "options are 1, for 2 stages" in one_line(CascadeError, chain.sample, [SolveOptions()])
    assert "give a SolveOptions" in one_line(ArgumentError, chain.sample, "ddim")
    assert "leave image out, or take cascade.after(1)" in one_line(CascadeError, chain.sample, image=low)
    assert "give image=images" in one_line(CascadeError, tail.sample)
    assert "image is None" not in one_line(SampleError, tail.sample, image=torch.zeros(2, *LARGE))
    assert "holds NaN" in one_line(SampleError, tail.sample, image=low * float("nan"))
    assert "seeds are 3, for 2 images" in one_line(CascadeError, tail.sample, seeds=range(3), image=low)
    assert "label 3 does not exist" in one_line(SampleError, chain.sample, labels=3)
    assert "give tol" in one_line(SampleError, tail.sample, SolveOptions(method="adaptive", nfe=9), image=low)
    assert "first=2 is no stage" in one_line(CascadeError, chain.after, 2)


def test_what_a_later_stage_cannot_do_is_refused_before_the_first_is_drawn():
    budget = SolveOptions(method="adaptive", nfe=20)
    drawn = []
    assert "give tol" in one_line(SampleError, cascade().sample, [FEW[0], budget], callback=drawn.append)
    middle = denoiser(shape=LARGE, condition={"image": SMALL}, num_classes=0)
    last = denoiser(shape=(1, 16, 16), condition={"image": LARGE}, num_classes=2)
    chain = Cascade([denoiser(shape=SMALL), middle, last])
    line = one_line(SampleError, chain.sample, FEW[0], labels=2, callback=drawn.append)
    assert line == "label 2 does not exist; this model has labels 0..1"
    assert drawn == []


def test_labels_that_no_stage_has_are_refused():
    chain = Cascade([denoiser(shape=SMALL, num_classes=0), denoiser(condition={"image": SMALL}, num_classes=0)])
    for stages in (chain, chain.after(1)):
        image = None if stages is chain else torch.zeros(2, *SMALL)
        line = one_line(SampleError, stages.sample, FEW[0], range(2), labels=[7, 8, 9, 10], image=image)
        assert line == "this model has no classes; leave labels out"


def saved(folder, **choices: object) -> Denoiser:
    net = tiny_unet(**choices)
    checkpoints.save(folder, ModelConfig(network=net.config), net.state_dict(), torch.float32)
    return checkpoints.load(folder)


def test_a_saved_cascade_is_the_same_one(tmp_path):
    stages = [saved(tmp_path / "a", shape=SMALL), saved(tmp_path / "b", condition={"image": SMALL, "noise": True})]
    chain = Cascade(stages, 0.25)
    chain.save(tmp_path / "both")
    found = Cascade.load(tmp_path / "both")
    assert found.levels == (0.25,)
    assert torch.equal(found.sample(FEW, labels=1).x, chain.sample(FEW, labels=1).x)
    assert is_cascade(tmp_path / "both")
    assert not is_cascade(tmp_path / "a")
    assert "no network of ours from files" in one_line(CascadeError, cascade().save, tmp_path / "other")


def test_a_cascade_may_name_models_that_are_elsewhere(tmp_path):
    saved(tmp_path / "b", condition={"image": [1, 28, 28]}, shape=(1, 56, 56), num_classes=0)
    (tmp_path / FILE).write_text("stages: [fashion, b]\n")
    assert [stage.shape for stage in Cascade.load(tmp_path).stages] == [(1, 28, 28), (1, 56, 56)]


def test_folders_that_are_no_cascades_are_refused(tmp_path):
    assert "give the folder of a cascade" in one_line(CascadeError, Cascade.load, tmp_path)
    (tmp_path / FILE).write_text("stages: [nowhere]\n")
    assert "nowhere" in one_line(CheckpointError, Cascade.load, tmp_path)
    (tmp_path / FILE).write_text("stages: [fashion]\nmodels: 3\n")
    assert "unknown key 'models'; valid keys are stages, augmentation" in one_line(ConfigError, Cascade.load, tmp_path)


def test_the_cascade_that_ships_makes_what_it_is_asked_for():
    chain, labels = Cascade.load("fashion-cascade"), torch.arange(40) % 10
    found = chain.sample([SolveOptions(nfe=10), SolveOptions(nfe=8)], seeds=range(40), labels=labels)
    classifier = load_fashion_features()
    seen = classifier(to_float(to_uint8(found.x))).argmax(1)
    assert (seen == labels).float().mean() > 0.7
    assert found.x.shape == (40, 1, 28, 28)


def test_the_upscaler_that_ships_keeps_the_image_that_it_is_told():
    """Shrunk again its images are what it was told: nearer than bilinear interpolation's, and than the noise in it."""
    chain, low = Cascade.load("fashion-cascade").after(1), shrunk(to_float(bundled_images()[0][:20]), (14, 14))

    def off(x: torch.Tensor) -> float:
        return float((shrunk(x, (14, 14)) - low).square().mean().sqrt())

    plain, noisy = (Cascade(chain.stages, level).sample(SolveOptions(nfe=10), image=low).x for level in (0.0, 0.2))
    assert off(plain) < off(resized(low, (28, 28)))
    assert off(plain) < off(noisy) < 0.2
