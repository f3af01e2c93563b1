"""Conditions that cannot be: each is one line, which names the condition and the remedy."""

import pytest
import torch

from ddim_ode import compare, sample
from ddim_ode.errors import DDIMError
from ddim_ode.models.conditions import ConditionError, Conditions
from ddim_ode.models.guidance import GuidanceError
from tests.helpers.assertions import one_line
from tests.helpers.conditional import SHAPE, means, model

WRONG = {
    "first dimension": ({"mean": means(3)}, "conditions['mean'] are 3, for 2 samples; give one a sample"),
    "two that differ": ({"mean": means(2), "width": means(3)}, "conditions['width'] are 3, for 2 samples"),
    "NaN": ({"mean": torch.tensor([[1.0] * 3, [float("nan")] * 3])}, "conditions['mean'][1] holds NaN or infinity"),
    "no tensor": ({"mean": [1.0, 2.0]}, "conditions['mean'] is"),
    "no name": ({"the mean": means(2)}, "conditions['the mean']: a condition is handed over as a keyword"),
    "no rows": ({"mean": torch.tensor(1.0)}, "give a dense tensor (B, ...), one row a sample"),
    "unknown": ({"mean": means(2), "men": means(2)}, "takes no condition 'men'; leave conditions['men'] out"),
    "missing": ({"width": torch.ones(2)}, "the network needs 'mean'; give it as conditions={'mean': ...}"),
    "the network's own": (
        {"mean": means(2), "x": means(2)},
        "the network takes 'x' by position, as x, t or the labels",
    ),
    "no mapping": (means(2), "conditions are"),
    "none": ({}, "conditions are empty; leave them out"),
}


@pytest.mark.parametrize(("given", "words"), WRONG.values(), ids=WRONG)
def test_conditions_that_cannot_be_are_one_line(given, words):
    assert words in one_line(DDIMError, lambda: sample(model(), nfe=4, seeds=range(2), conditions=given))


@pytest.mark.parametrize(
    ("null", "words"),
    [
        ({"men": means(2)}, "null has 'men', which is no condition here"),
        ({"mean": torch.zeros(4)}, "null['mean'] has shape (4,); give (3,), or one a sample"),
        ({"mean": torch.full(SHAPE, torch.inf)}, "null['mean'] holds NaN or infinity"),
        ({"mean": torch.zeros(3, dtype=torch.int64)}, "null['mean'] is torch.int64, and the condition torch.float64"),
    ],
)
def test_null_values_that_cannot_be_are_one_line(null, words):
    conditions = {"mean": means(2)}
    found = one_line(DDIMError, lambda: sample(model(), nfe=4, seeds=range(2), conditions=conditions, null=null))
    assert words in found
    for call in (sample, compare):
        assert "there are none" in one_line(DDIMError, lambda call=call: call(model(), null={"mean": torch.zeros(3)}))


@pytest.mark.parametrize(
    ("steering", "words"),
    [
        ({"method": "adaptive", "nfe": 20}, "for which there are no conditions; give tol"),
        ({"method": "adams3", "nfe": 20, "grid": "auto"}, "for which there are no conditions; give a named grid"),
    ],
)
def test_what_is_measured_on_other_samples_first_is_refused(steering, words):
    assert words in one_line(DDIMError, lambda: sample(model(), **steering, conditions={"mean": means(1)}))


def test_guidance_with_nothing_to_guide_to_says_so():
    with pytest.raises(GuidanceError, match="neither labels nor a null value of mean; give null="):
        sample(model(), nfe=10, seeds=range(2), conditions={"mean": means(2)}, guidance=2.0)


def test_a_condition_error_is_a_value_error():
    assert issubclass(ConditionError, ValueError)


def test_what_is_no_condition_is_one_line():
    assert "labels are" in one_line(TypeError, Conditions, [1, 2], {"mean": means(2)})
    assert "model is the str 'fashion'" in one_line(TypeError, sample, "fashion", conditions={"mean": means(1)})
