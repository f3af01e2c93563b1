"""`adaptive` waits for its device once a round, wherever each of its samples is, on a GPU that is not there."""

import pytest
import torch

from ddim_ode import DDIMError, Denoiser, sample
from ddim_ode.models.guidance import Guided
from ddim_ode.paths import DiscreteVP
from tests.helpers.assertions import one_line
from tests.helpers.pretending import pretended

LABELS = torch.arange(6) % 3
COUNTS = ("nfe", "steps", "rejected", "converged", "sigmas")


class Network:
    """A network that is the steeper the larger the label, with what was waited for until each call.

    broken: (label, time, value) of what it says from some time on.
    """

    def __init__(self, broken=(-1, 0.0, 0.0)):
        self.broken, self.calls, self.sizes, self.waits = broken, [], [], []

    def __call__(self, x, t, labels):
        self.calls.append(len(self.waits))
        self.sizes.append(len(x))
        label, time, value = self.broken
        bad = ((labels == label) & (t < time)).reshape(-1, 1, 1, 1)
        out = torch.tanh((1.0 + 2.0 * labels).reshape(-1, 1, 1, 1) * x) * 0.5
        return torch.where(bad, torch.full_like(out, value), out)

    def since(self):
        """What was waited for since the first call."""
        return self.waits[self.calls[0] :]


def plain(model):
    return model


def guided(model):
    return Guided(model, 2.0, sigma_range=(0.1, 5.0))


def run(net, device="lazy", around=plain, method="adaptive", **options):
    model = Denoiser(net, DiscreteVP.linear(), "noise", (1, 4, 4), num_classes=3, device=device)
    with pretended() as mode:
        net.waits = mode.waits
        return sample(around(model), method, seeds=range(6), labels=LABELS, **options)


@pytest.mark.parametrize("tol", [0.1, 0.01, 0.001])
def test_a_round_waits_once(tol):
    net = Network()
    found = run(net, tol=tol)
    assert len(set(found.nfe.tolist())) > 1  # they end at different rounds
    assert len(net.calls) == found.nfe.max()
    assert sum(net.sizes) == found.nfe.sum()
    rounds = len(net.calls) - 1  # the first evaluation begins them
    assert [before - net.calls[0] for before in net.calls] == [0, *range(rounds)]
    assert net.since() == ["_to_copy to the CPU"] * rounds


def test_a_round_under_guidance_waits_once():
    """Though some samples are in its range and others are not, and the network is called twice."""
    net = Network()
    found = run(net, around=guided, tol=0.01)
    assert sum(net.sizes) == found.nfe.sum()
    assert len(net.since()) == int((found.steps + found.rejected).max()) - 1  # the last step is no round


def test_a_rejected_step_waits_once_too():
    net = Network()
    found = run(net, tol=0.003, first_step=0.3)
    assert found.rejected.sum() > 0
    assert len(net.since()) == len(net.calls) - 1


def test_samples_that_are_given_up_wait_for_nothing_more():
    net = Network()
    found = run(net, tol=1e-4, max_nfe=9)
    assert not found.converged.any()
    assert len(net.since()) == len(net.calls) - 1 == 8


@pytest.mark.parametrize("around", [plain, guided])
@pytest.mark.parametrize("options", [{"tol": 0.01}, {"tol": 1e-4, "max_nfe": 20}, {"tol": 0.1, "dtype": torch.float64}])
def test_samples_and_counts_are_those_of_the_cpu(around, options):
    there, here = (run(Network(), device, around, **options) for device in ("lazy", "cpu"))
    with pretended():
        assert torch.equal(there.x.to("cpu"), here.x)
    for name in COUNTS:
        torch.testing.assert_close(getattr(there, name), getattr(here, name), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("around", [plain, guided])
def test_the_error_names_sigma_step_and_sample(around, value):
    lines = [one_line(DDIMError, run, Network((2, 300.0, value)), device, around) for device in ("lazy", "cpu")]
    assert lines[0] == lines[1]
    assert "for sample 2 in step" in lines[0]


def test_it_is_told_as_soon_as_it_was_waited_for():
    """A run is made again up to the same answer, and no further."""
    broken, whole = Network((2, 300.0, float("nan"))), Network()
    one_line(DDIMError, run, broken)
    run(whole)
    before = len(broken.calls) // 2
    assert len(broken.calls) == 2 * before
    assert before < len(whole.calls)
    assert broken.sizes[:before] == broken.sizes[before:] == whole.sizes[:before]


def test_what_is_watched_is_what_is_there():
    seen = []
    found = run(Network(), "cpu", callback=seen.append)
    assert [now.step for now in seen] == list(range(1, len(seen) + 1))
    assert len(seen) == int((found.steps + found.rejected).max()) - 1
