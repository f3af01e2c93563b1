"""Options are values: equal, hashed, copied and replaced; and what follows from them."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddim_ode import METHODS, adams
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import Control
from ddim_ode.solvers.eta import Eta, EtaError
from tests.helpers.assertions import one_line

ADAPTIVE = {"method": "adaptive"}


def churning(sigma: float) -> float:
    """A scale of noise that pickle finds by its name."""
    return 0.5 if sigma < 1 else 0.0


VALUES = {
    "defaults": {},
    "budget": {"method": "adams4", "nfe": 9, "grid": "karras", "final": "sigma_min", "dtype": torch.float64},
    "explicit grid": {"grid": [3.0, 1.0, 0.0], "batch_size": 7},
    "adaptive": {"method": "adaptive", "tol": 0.1, "max_nfe": 50, "first_step": 0.1, "grid": [3.0, 0.1]},
    "guided": {"guidance": 2.0, "guidance_range": [0.1, None]},
    "noise": {"eta": 1, "eta_range": [0.1, 1.0]},
    "noise by a word": {"eta": "ddpm_large"},
    "noise by a function": {"eta": churning, "eta_range": (0.1, None)},
    "a method": {"method": METHODS["exact_heun"], "nfe": 9},
    "a method on a lattice": {"method": METHODS["leapfrog"]},
    "an adaptive method": {"method": METHODS["dopri5"], "tol": 0.1},
    "a method of ours": {"method": adams(3, path="data", basis="log_snr")},
    "a method with noise": {"method": METHODS["ddim"], "eta": 0.5},
}


@pytest.mark.parametrize("case", VALUES)
def test_a_copy_is_equal_and_has_the_same_hash(case):
    options = SolveOptions(**VALUES[case])
    for row_first in (False, True):  # the row is kept once it has been made
        if row_first:
            assert options.row is options.row
        for other in (
            SolveOptions(**VALUES[case]),
            replace(options),
            copy.copy(options),
            copy.deepcopy(options),
            pickle.loads(pickle.dumps(options)),  # noqa: S301  # bytes of our own
        ):
            assert other == options
            assert hash(other) == hash(options)
            assert other.row == options.row
            assert other.control == options.control


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_copied_as_itself(name):
    options = SolveOptions(method=METHODS[name])
    assert copy.deepcopy(options) == options
    assert pickle.loads(pickle.dumps(options)) == options  # noqa: S301  # bytes of our own


def test_values_that_differ_are_not_equal():
    distinct = [SolveOptions(**values) for case, values in VALUES.items()]
    distinct += [SolveOptions(nfe=8), SolveOptions(nfe=9), SolveOptions(eta=1), SolveOptions(eta=1, eta_range=(0.1, 2))]
    assert len(set(distinct)) == len(distinct)
    assert all(a != b for n, a in enumerate(distinct) for b in distinct[:n])


def test_it_can_be_a_key():
    assert hash(SolveOptions(eta=1, eta_range=[0.1, 1.0])) == hash(SolveOptions(eta=1.0, eta_range=(0.1, 1.0)))
    assert {SolveOptions(grid=[3.0, 0.0]): "found"}[SolveOptions(grid=(3, 0))] == "found"


def test_replacing_a_value_checks_it_and_makes_the_row_anew():
    options = SolveOptions(eta=0.5)
    assert not options.row.deterministic
    assert replace(options, eta=None).row == METHODS["ddim"]
    assert replace(options, method="heun_angle").row.path == METHODS["heun_angle"].path
    assert one_line(EtaError, replace, options, method="adams4").startswith("adams4 cannot have noise")
    assert "nfe=0 must be a whole number" in one_line(SampleError, replace, options, nfe=0)


# --- what follows from it


def test_its_row_has_the_noise():
    plain = SolveOptions(method="heun_angle")
    assert plain.row is METHODS["heun_angle"]
    assert SolveOptions(eta=0).row == METHODS["ddim"]
    noisy = SolveOptions(method="heun_angle", eta=0.5, eta_range=(0.1, 2.0))
    assert noisy.row.solver.eta == Eta(0.5, 0.1, 2.0)
    assert (noisy.row.deterministic, noisy.row.path, noisy.row.order) == (False, plain.row.path, 1)
    assert [noisy.row.solver.eta(sigma) for sigma in (0.05, 0.1, 2.0, 2.1)] == [0.0, 0.5, 0.5, 0.0]
    assert SolveOptions(method="sde_euler", eta=0.3).row.solver.eta == Eta(0.3)
    assert SolveOptions(method="sde_euler").row.solver.eta == Eta(1.0)
    assert SolveOptions(eta=churning).row.solver.eta(0.9) == 0.5


def test_its_control_is_what_an_adaptive_solver_is_told():
    assert SolveOptions(**ADAPTIVE).control == Control(tol=0.01, max_nfe=1000, first_step=None)
    given = SolveOptions(**ADAPTIVE, tol=np.float64(0.5), max_nfe=np.int64(7), first_step=torch.tensor(0.25)).control
    assert given == Control(tol=0.5, max_nfe=7, first_step=0.25)
    assert [type(value) for value in given] == [float, int, float]
