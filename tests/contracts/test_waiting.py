"""No method on a grid waits for its device between the first evaluation and the last, on a GPU that is not there."""

import math
from dataclasses import replace

import pytest
import torch

from ddim_ode import METHODS, DDIMError, Denoiser, encode, sample
from ddim_ode.models.guidance import Guided
from ddim_ode.paths import DiscreteVP
from ddim_ode.support.waiting import PATIENCE
from tests.helpers.assertions import one_line
from tests.helpers.pretending import pretended

ON_GRIDS = [name for name, row in METHODS.items() if not row.adaptive and not row.own_grids]
REVERSIBLE = [name for name in ON_GRIDS if METHODS[name].invertible]
LABELS = torch.tensor([0, 1, 2])


class Network:
    """A function of the state and the label, with what was waited for until each call; `spoil` changes an answer."""

    def __init__(self, spoil=lambda call, out: out):
        self.calls, self.spoil, self.waits = [], spoil, []

    def __call__(self, x, t, labels):
        self.calls.append(len(self.waits))
        out = torch.tanh(x) * 0.5 + 0.1 * labels.reshape(-1, 1, 1, 1)
        return self.spoil(len(self.calls), out)

    def model(self, device="lazy", **options):
        return Denoiser(self, DiscreteVP.linear(), "noise", (1, 4, 4), num_classes=3, device=device, **options)

    def between(self):
        """What was waited for between the first call and the last."""
        return self.waits[self.calls[0] : self.calls[-1]]


def run(net, method, *, device="lazy", around=lambda model: model, nfe=8, eta=None, **options):
    """A run on that device; what it waited for is in the network."""
    model = net.model(device, **options)
    with pretended() as mode:
        net.waits = mode.waits
        found = sample(around(model), method, nfe=nfe, seeds=[0, 1, 2], labels=LABELS, eta=eta)
    return found


@pytest.mark.parametrize("method", ON_GRIDS)
def test_sampling_waits_for_nothing(method):
    net = Network()
    found = run(net, method)
    assert len(net.calls) == int(found.nfe[0]) >= 4
    assert net.between() == []
    assert len(net.waits) <= 4  # at the end: for the answers, and to bring the images


@pytest.mark.parametrize("eta", [1.0, "ddpm_large"])
@pytest.mark.parametrize("method", ["ddim", "heun", "dpmpp_2s"])
def test_noise_on_the_way_waits_for_nothing(method, eta):
    net = Network()
    run(net, method, eta=eta)
    assert net.between() == []


@pytest.mark.parametrize("method", REVERSIBLE)
def test_encoding_waits_for_nothing(method):
    net = Network()
    with pretended() as mode:
        net.waits = mode.waits
        encode(net.model(), torch.zeros(3, 1, 4, 4), method, nfe=8, labels=LABELS)
    assert net.between() == []


def guided(model):
    return Guided(model, 2.0, (0.1, 5.0))


@pytest.mark.parametrize(
    ("options", "around"),
    [
        ({"null_class": False}, lambda model: model),
        ({"quantize": True}, lambda model: model),
        ({"quantize": "int"}, lambda model: model),
        ({"dtype": torch.bfloat16}, lambda model: model),
        ({}, guided),
        ({}, lambda model: replace(guided(model), rescale=0.7)),
    ],
    ids=["no null class", "whole times", "int times", "bfloat16", "guided", "rescaled"],
)
@pytest.mark.parametrize("method", ["ddim", "adams4", "heun", "sde_dpmpp_2m", "exact_heun"])
def test_other_models_wait_for_nothing(method, options, around):
    net = Network()
    run(net, method, around=around, **options)
    assert net.between() == []


def test_a_long_run_looks_now_and_then():
    net = Network()
    run(net, "ddim", nfe=100)
    assert net.between() == ["_to_copy to the CPU"] * (99 // PATIENCE)


def test_it_does_wait_for_a_method_that_asks():
    """The test can fail: a network that looks at its own answer waits at every call."""

    def look(call, out):
        assert torch.isfinite(out).all()
        return out

    net = Network(look)
    run(net, "ddim")
    assert len(net.between()) == 7


@pytest.mark.parametrize("method", ON_GRIDS)
def test_the_numbers_are_those_of_the_cpu(method):
    there, here = (run(Network(), method, device=device) for device in ("lazy", "cpu"))
    # A device draws its noise itself: of the same integers, by a logarithm and a cosine with last places of their own.
    last_places = 0.0 if METHODS[method].deterministic else 1e-5
    with pretended():
        torch.testing.assert_close(there.x.to("cpu"), here.x, rtol=last_places, atol=last_places)
    assert torch.equal(there.nfe, here.nfe)


# --- what did not hold


class Spoiled(Network):
    """The answer to the fifth question of a run is spoiled, whenever it is asked."""

    def __init__(self, value):
        super().__init__()
        self.value, self.fifth = value, None

    def __call__(self, x, t, labels):
        out = super().__call__(x, t, labels)
        here = x.to("cpu")
        if len(self.calls) == 5:
            self.fifth = here
        if self.fifth is not None and torch.equal(here, self.fifth):
            out = out.clone()
            out[1] = self.value
        return out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["ddim", "heun", "adams4", "exact_heun", "sde_dpmpp_2m"])
def test_the_error_names_sigma_step_and_sample(method, value):
    lines = {device: one_line(DDIMError, run, Spoiled(value), method, device=device) for device in ("lazy", "cpu")}
    assert lines["lazy"] == lines["cpu"]
    assert "sample 1" in lines["cpu"]
    assert "step" in lines["cpu"]


def test_what_follows_from_it_is_not_the_error():
    """A network that refuses NaN: the error is of where it came from."""

    class Refusing(Spoiled):
        def __call__(self, x, t, labels):
            if not torch.isfinite(x).all():
                raise ValueError("x is not finite")
            return super().__call__(x, t, labels)

    line = one_line(DDIMError, run, Refusing(float("nan")), "ddim")
    assert "sample 1" in line
    assert "x is not finite" not in line


def test_a_network_that_answers_in_two_ways_is_told_of():
    """Not finite once, and finite when the run is made again."""

    def spoil(call, out):
        return torch.full_like(out, math.nan) if call == 3 else out

    assert "in two ways" in one_line(DDIMError, run, Network(spoil), "ddim")
    assert "in step 3" in one_line(DDIMError, run, Network(spoil), "ddim", device="cpu")


def test_on_a_cpu_nobody_goes_on_in_vain():
    net = Network(lambda call, out: torch.full_like(out, math.nan))
    one_line(DDIMError, run, net, "ddim", device="cpu")
    assert len(net.calls) == 1


def test_a_callback_is_answered_at_once():
    """It may ask a model of its own, and has to know whether that is broken."""
    broken, heard = Network(lambda call, out: torch.full_like(out, math.nan)), []

    def callback(progress):
        heard.append(one_line(DDIMError, broken.model(), progress.xbar, 1.0, LABELS.to("lazy")))

    net = Network()
    with pretended():
        sample(net.model(), "ddim", nfe=3, seeds=[0, 1, 2], labels=LABELS, callback=callback)
    assert len(heard) == 3
    assert len(net.calls) == 3


def test_an_error_of_the_network_stays_its_own():
    def spoil(call, out):
        raise KeyError("of the network")

    with pytest.raises(KeyError, match="of the network"):
        run(Network(spoil), "ddim")


def test_a_label_that_says_nothing_is_told_after_all():
    net = Network()
    with pretended():
        model = net.model(null_class=False)
        assert "no null class" in one_line(
            DDIMError, model, torch.zeros(1, 1, 4, 4).to("lazy"), 1.0, torch.tensor([3]).to("lazy")
        )
