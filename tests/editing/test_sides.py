"""What the models of a translation cost: as those inside them, passes and gradients apart."""

import torch

from ddim_ode import paths
from ddim_ode.editing.sides import Mixed, Numbered
from ddim_ode.models.guidance import Cost, GuidedByClassifier, cost
from tests.helpers.mixtures import labelled


def test_gradients_inside_are_not_reported_as_passes():
    plain = labelled().denoiser(paths.Flow(0.02, 60.0))
    led = GuidedByClassifier(plain, lambda x, t: x.flatten(1)[:, :3], 2.0)
    assert cost(led, 1.0) == Cost(1, 1)
    one, other = Numbered(plain, None), Numbered(led, None)
    assert (cost(one, 1.0), cost(other, 1.0)) == (Cost(1), Cost(1, 1))
    both = Mixed(one, other, torch.tensor([0.5], dtype=torch.float64))
    assert cost(both, 1.0) == Cost(2, 1)
    assert both.evaluations(1.0) == 3
