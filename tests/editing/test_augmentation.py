"""Augmentation: edits of every image, with its label, and mistakes in one line."""

import pytest
import torch

from ddim_ode import paths
from ddim_ode.editing import augment, sdedit
from ddim_ode.errors import DDIMError
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.inputs import SampleError
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import normal

MODEL = labelled().denoiser(paths.Flow(0.02, 60.0))


def test_augmentation_keeps_labels_and_the_order():
    x, labels = normal(3, 2, 3, seed=0).float(), [2, 0, 1]
    found = augment(MODEL, x, labels, 0.4, per_image=2, nfe=6)
    assert found.labels.tolist() == [2, 2, 0, 0, 1, 1]
    assert found.of.tolist() == [0, 0, 1, 1, 2, 2]
    one = sdedit(MODEL, x[1:2], 0.4, nfe=6, labels=0, seeds=[3])
    torch.testing.assert_close(found.x[3:4], one.x, rtol=0, atol=1e-5)
    assert (found.x[0] - found.x[1]).abs().max() > 0.05
    assert augment(MODEL, x, strength=None, sigma=0.5, per_image=1, nfe=2).labels is None


def test_conditions_are_of_the_images_as_labels_are():
    def net(x, t, shift):
        return shift.expand_as(x)  # the predicted image

    model = Denoiser(net, paths.Flow(0.01, 50.0), "data", (2,))
    shift, nothing = torch.tensor([[0.1], [0.7]]), {"shift": torch.tensor([0.0])}
    found = augment(model, torch.zeros(2, 2), None, 0.5, 2, method="ddim", nfe=3, conditions={"shift": shift})
    torch.testing.assert_close(found.x, shift.repeat_interleave(2, 0).expand(4, 2))
    told = {"conditions": {"shift": shift}, "null": nothing, "guidance": 2.0}
    guided = augment(model, torch.zeros(2, 2), None, 0.5, 2, method="ddim", nfe=4, **told)
    torch.testing.assert_close(guided.x, 2 * shift.repeat_interleave(2, 0).expand(4, 2))
    four = {"shift": torch.zeros(4, 1)}
    line = one_line(SampleError, augment, model, torch.zeros(2, 2), per_image=2, conditions=four)
    assert line == "conditions['shift'] are 4, for 2 samples; give one a sample"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"per_image": 0}, "per_image=0 must be a whole number >= 1"),
        ({"per_image": 2, "seeds": range(5)}, "5 seeds for 3 images with 2 each; give 6"),
        ({"strength": 1.5}, "strength=1.5 is no share"),
        ({"labels": [0, 1, 7]}, "label 7 does not exist"),
    ],
)
def test_what_cannot_be_augmented_is_one_line(options, line):
    assert line in one_line(DDIMError, augment, MODEL, normal(3, 2, 3, seed=0), **options)
