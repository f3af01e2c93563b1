"""Augmentation: edits of every image, with its label, and mistakes in one line."""

import pytest
import torch

from ddim_ode import paths
from ddim_ode.editing import augment, sdedit
from ddim_ode.errors import DDIMError
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
