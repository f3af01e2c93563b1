"""A network that returns NaN or infinity is named: at which sigma, for which sample, in which step."""

import math

import pytest
import torch

from ddim_ode import paths
from ddim_ode.models.denoiser import Denoiser, NonFiniteError
from ddim_ode.models.guidance import Guided, classifier_free
from ddim_ode.sampling import sample

CHART = paths.Noise(0.01, 100.0)


def failing(bad: int, below: float, value: float = math.nan, labels: int | None = None) -> Denoiser:
    """On the chart of sigma; wrong for the samples whose first value is `bad` (and that label) below some sigma."""

    def net(x, t, classes):
        wrong = (x[:, 0].round() == bad) & (t < below)
        if labels is not None:
            wrong = wrong & (classes == labels)
        return torch.where(wrong[:, None], value, torch.zeros_like(x))

    return Denoiser(net, CHART, "noise", (2,), num_classes=3)


NUMBERED = torch.arange(7, dtype=torch.float64)[:, None].expand(7, 2)
ONES = torch.ones(7, dtype=torch.int64)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_network_that_is_not_finite_is_named_with_sigma_and_sample(value):
    model = failing(bad=4, below=1.0, value=value)
    with pytest.raises(NonFiniteError, match=r"not finite at sigma=0\.25 for sample 4; check") as error:
        model(NUMBERED, 0.25)
    assert (error.value.sigma, error.value.sample, error.value.step) == (0.25, 4, None)


def test_a_network_that_is_not_finite_is_named_with_its_own_sigma():
    with pytest.raises(NonFiniteError) as error:
        failing(bad=4, below=1.0)(NUMBERED, torch.linspace(0.1, 0.7, 7, dtype=torch.float64))
    assert error.value.sigma == pytest.approx(0.5)
    assert error.value.sample == 4


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_sampling_names_the_sample_of_the_whole_run_and_the_step(batch_size):
    with pytest.raises(NonFiniteError, match=r"sigma=0\.5 for sample 4 in step 3; check") as error:
        sample(failing(bad=4, below=1.0), start=NUMBERED, grid=[4.0, 2.0, 0.5, 0.25, 0.0], batch_size=batch_size)
    assert (error.value.sigma, error.value.sample, error.value.step) == (0.5, 4, 3)


@pytest.mark.parametrize("at", [1, 3], ids=["label", "null class"])
@pytest.mark.parametrize("together", [1, 16], ids=["two passes", "one pass"])
def test_guidance_names_the_right_sample(together, at, monkeypatch):
    monkeypatch.setattr(classifier_free, "TOGETHER", together)
    model = Guided(failing(bad=4, below=1.0, labels=at), 2.0)
    with pytest.raises(NonFiniteError) as error:
        model(NUMBERED, 0.25, ONES)
    assert error.value.sample == 4
