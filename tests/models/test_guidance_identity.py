"""What tells guidance from other guidance: digests; and guidance that options ask for around a guided model."""

from dataclasses import replace

import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.classifier import Classifier
from ddim_ode.models.conditions import Conditions
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import (
    Guided,
    GuidedByClassifier,
    GuidedByLoss,
    GuidedByProjection,
    GuidedByWeaker,
    Unconditional,
)
from ddim_ode.models.identity import fingerprint
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.origins import guidance_of
from ddim_ode.sampling import sample
from ddim_ode.solvers import MethodError
from tests.helpers.conditional import SHAPE, means, towards
from tests.helpers.networks import tiny_unet
from tests.helpers.tables import PATHS

PATH = PATHS["cosine"]
MODEL = Denoiser(tiny_unet(), PATH, "velocity", (1, 8, 8), 3)


class Logits(torch.nn.Module):
    def __init__(self, weight: float):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((64, 3), weight), requires_grad=False)

    def forward(self, x, t):
        return x.flatten(1) @ self.weight


class Loss:
    def __init__(self, facts: str):
        self.facts = facts

    def __call__(self, data):
        return data.square().flatten(1).sum(1)


KNOWN = Classifier(Logits(0.1), PATH, 3)
#: no two of them predict the same
DIFFERENT = {
    "plain": MODEL,
    "unconditional": Unconditional(MODEL),
    "guided": Guided(MODEL, 2.0),
    "in a range": Guided(MODEL, 2.0, (0.0, 1.0)),
    "more": Guided(MODEL, 3.0),
    "rescaled": Guided(MODEL, 2.0, rescale=0.5),
    "by a function": Guided(MODEL, lambda sigma: 1 + sigma),
    "by another": Guided(MODEL, lambda sigma: 1 + sigma**2),
    "plus plus": Guided.plus_plus(MODEL, 0.6, [10.0, 1.0, 0.1, 0.0]),
    "on another grid": Guided.plus_plus(MODEL, 0.6, [10.0, 1.0, 0.2, 0.0]),
    "projected": GuidedByProjection(MODEL, 2.0),
    "of another norm": GuidedByProjection(MODEL, 2.0, norm=1.0),
    "of another eta": GuidedByProjection(MODEL, 2.0, eta=0.5),
    "by a weaker": GuidedByWeaker(MODEL, Unconditional(MODEL), 2.0),
    "by another weaker": GuidedByWeaker(MODEL, replace(MODEL, net=tiny_unet(dropout=0.0).half().float()), 2.0),
    "by a classifier": GuidedByClassifier(MODEL, KNOWN, 2.0),
    "the model told no labels": GuidedByClassifier(Unconditional(MODEL), KNOWN, 2.0),
    "by another classifier": GuidedByClassifier(MODEL, replace(KNOWN, net=Logits(0.2)), 2.0),
    "on another path": GuidedByClassifier(MODEL, replace(KNOWN, path=PATHS["linear"]), 2.0),
    "by a loss": GuidedByLoss(MODEL, Loss("one"), 2.0),
    "by another loss": GuidedByLoss(MODEL, Loss("two"), 2.0),
    "by less of it": GuidedByLoss(MODEL, Loss("one"), 1.0),
    "both": GuidedByLoss(Guided(MODEL, 2.0), Loss("one"), 1.0),
    "both, the other way round": Guided(GuidedByLoss(MODEL, Loss("one"), 1.0), 2.0),
}


def test_two_guidances_have_two_digests():
    digests = {name: fingerprint(model) for name, model in DIFFERENT.items()}
    assert len(set(digests.values())) == len(DIFFERENT)
    assert digests == {name: fingerprint(replace(model)) for name, model in DIFFERENT.items()}


def test_the_same_guidance_has_the_same_digest_whatever_its_numbers_are_made_of():
    assert fingerprint(Guided(MODEL, torch.tensor(2.0))) == fingerprint(Guided(MODEL, 2.0))
    assert fingerprint(replace(DIFFERENT["by a function"], scale=lambda s: s + 1)) == fingerprint(
        DIFFERENT["by a function"]
    )


@pytest.mark.parametrize("name", ["guided", "projected", "plus plus", "both", "both, the other way round"])
def test_guided_by_its_condition_twice_is_refused(name):
    with pytest.raises(SampleError, match=r"the model is guided already, at scale .*; leave guidance=3 out"):
        sample(DIFFERENT[name], labels=1, guidance=3.0, nfe=8)


def test_a_scale_that_is_no_number_is_told_in_words():
    with pytest.raises(SampleError, match="guided already, at scale a function of sigma; leave"):
        sample(DIFFERENT["by a function"], labels=1, guidance=3.0, nfe=8)


def test_guidance_of_labels_that_only_a_classifier_is_told_is_refused():
    with pytest.raises(SampleError, match="told no labels, and guidance=3 would scale its classifier; scale that"):
        sample(DIFFERENT["the model told no labels"], labels=1, guidance=3.0, nfe=8)


@pytest.mark.parametrize("name", ["by a loss", "by a classifier", "by a weaker"])
def test_guidance_may_be_asked_for_around_other_guidance(name):
    found = sample(DIFFERENT[name], labels=1, guidance=3.0, nfe=12)
    assert torch.equal(found.x, sample(Guided(DIFFERENT[name], 3.0), labels=1, nfe=12).x)
    assert int(found.nfe) == 12


def test_a_tuned_method_knows_one_scale_of_guidance_alone():
    assert guidance_of(DIFFERENT["in a range"]) == (2.0, (0.0, 1.0))
    for name in ("by a function", "rescaled", "projected", "by a classifier", "both", "unconditional"):
        with pytest.raises(MethodError, match="tuned methods are for one scale of guidance; use another method"):
            guidance_of(DIFFERENT[name])


def test_a_scale_of_a_model_without_ends():
    open_ended = Denoiser(towards, paths.Flow(), "data", SHAPE)
    guided = Guided(open_ended, lambda sigma: 1 + 1 / (1 + sigma))
    found = guided(means(2).float(), 1.0, Conditions(None, {"mean": means(2)}, {"mean": torch.zeros(SHAPE)}))
    assert found.evaluations == 2
    assert len(fingerprint(guided)) == 64
