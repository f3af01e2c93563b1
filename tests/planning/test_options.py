"""`SolveOptions`: what it refuses and how, what it makes of what it is given, and that it is a value."""

import math
import re

import numpy as np
import pytest
import torch

from ddim_ode import adams
from ddim_ode.grids import GRIDS, GridError
from ddim_ode.models.guidance import GuidanceError
from ddim_ode.planning.inputs import SampleError
from ddim_ode.planning.options import SolveOptions
from ddim_ode.solvers import MethodError
from ddim_ode.solvers.eta import Eta, EtaError
from ddim_ode.support.checks import shown
from tests.helpers.assertions import one_line

ADAPTIVE = {"method": "adaptive"}
GUIDED = {"guidance": 2.0}

# --- what it refuses

REFUSED = {
    "method unknown": ({"method": "dimm"}, MethodError, "unknown method 'dimm'; did you mean 'ddim'?"),
    "method of a number": ({"method": 3}, MethodError, "method is the int 3; give a name in METHODS"),
    "method of None": ({"method": None}, MethodError, "method is None; give a name in METHODS"),
    "nfe and tol": (ADAPTIVE | {"nfe": 9, "tol": 0.1}, SampleError, "nfe=9 and tol=0.1 contradict each other"),
    "grid unknown": ({"grid": "karas"}, GridError, "unknown grid 'karas'; did you mean 'karras'?"),
    "grid up": ({"grid": [1.0, 2.0]}, GridError, "sigma=2 at place 1 of the grid breaks the rule"),
    "grid level": ({"grid": [3.0, 2.0, 2.0]}, GridError, "sigma=2 at place 2 of the grid breaks the rule"),
    "grid negative": ({"grid": [1.0, -1.0]}, GridError, "sigma=-1 at place 1 of the grid breaks the rule"),
    "grid nan": ({"grid": [math.nan, 1.0]}, GridError, "sigma=nan at place 0 of the grid breaks the rule"),
    "grid inf": ({"grid": [math.inf, 1.0]}, GridError, "sigma=inf at place 0 of the grid breaks the rule"),
    "grid of one": ({"grid": [1.0]}, GridError, "a grid of shape (1,) is not a sequence of at least 2 sigmas"),
    "grid of none": ({"grid": []}, GridError, "a grid of shape (0,) is not a sequence of at least 2 sigmas"),
    "grid number": ({"grid": 3.0}, GridError, "is not a sequence"),
    "grid of letters": ({"grid": ["b", "a"]}, GridError, "grid=['b', 'a'] is not a sequence of sigmas"),
    "grid square": ({"grid": torch.ones(2, 2)}, GridError, "a grid of shape (2, 2) is not a sequence"),
    "grid named, adaptive": (ADAPTIVE | {"grid": "karras"}, SampleError, "adaptive chooses its steps; leave grid="),
    "final": ({"final": "zero"}, SampleError, "final='zero' is unknown; choose 'denoise' or 'sigma_min'"),
    "dtype half": ({"dtype": torch.float16}, SampleError, "use torch.float32 or torch.float64"),
    "dtype list": ({"dtype": [1]}, SampleError, "use torch.float32 or torch.float64"),
    "dtype word": ({"dtype": "float32"}, SampleError, "use torch.float32 or torch.float64"),
    "guidance nan": ({"guidance": math.nan}, GuidanceError, "guidance=nan must be a finite number"),
    "guidance inf": ({"guidance": math.inf}, GuidanceError, "guidance=inf must be a finite number"),
    "guidance word": ({"guidance": "x"}, GuidanceError, "guidance='x' must be a finite number"),
    "guidance True": ({"guidance": True}, GuidanceError, "guidance=True must be a finite number"),
    "guidance None": ({"guidance": None}, GuidanceError, "guidance=None must be a finite number"),
    "range unguided": ({"guidance_range": (0.1, 1.0)}, GuidanceError, "does nothing with guidance=1; give another"),
    "range empty": (GUIDED | {"guidance_range": (2.0, 1.0)}, GuidanceError, "2:1 is empty; give 0 <= low < high"),
    "range of a point": (GUIDED | {"guidance_range": (1.0, 1.0)}, GuidanceError, "1:1 is empty"),
    "range negative": (GUIDED | {"guidance_range": (-1.0, 1.0)}, GuidanceError, "-1:1 is empty"),
    "range nan": (GUIDED | {"guidance_range": (math.nan, 1.0)}, GuidanceError, "(nan, 1.0)"),
    "range number": (GUIDED | {"guidance_range": 3.0}, GuidanceError, "3.0 is no range; give (low, high) in sigma"),
    "range of three": (GUIDED | {"guidance_range": (1, 2, 3)}, GuidanceError, "(1, 2, 3) is no range; give (low"),
    "range word": (GUIDED | {"guidance_range": "ab"}, GuidanceError, "'ab'"),
    "eta negative": ({"eta": -0.5}, EtaError, "eta=-0.5 must be a number >= 0, a function of sigma, or 'ddpm_large'"),
    "eta nan": ({"eta": math.nan}, EtaError, "eta=nan must be a number >= 0"),
    "eta True": ({"eta": True}, EtaError, "eta=True must be a number >= 0"),
    "eta word": ({"eta": "ddpm"}, EtaError, "eta='ddpm' must be a number >= 0"),
    "eta of an array": ({"eta": np.array([0.1, 0.2])}, EtaError, "must be a number >= 0"),
    "eta of a tensor": ({"eta": torch.tensor([0.1, 0.2])}, EtaError, "must be a number >= 0"),
    "eta of a list": ({"eta": [0.1, 0.2]}, EtaError, "eta=[0.1, 0.2] must be a number >= 0"),
    "eta, multistep": ({"method": "adams4", "eta": 1}, EtaError, "adams4 cannot have noise with eta=1"),
    "eta, adaptive": (ADAPTIVE | {"eta": 1}, EtaError, "adaptive cannot have noise with eta=1"),
    "eta_range alone": ({"eta_range": (0.1, 1.0)}, EtaError, "does nothing without eta; give eta"),
    "eta_range empty": ({"eta": 1, "eta_range": (2.0, 1.0)}, EtaError, "2:1 is empty; give 0 <= low < high"),
    "eta_range number": ({"eta": 1, "eta_range": 3}, EtaError, "eta_range=3 is no range; give (low, high) in sigma"),
}

WRONG_COUNTS = [
    0,
    -5,
    True,
    1.5,
    math.nan,
    math.inf,
    "ten",
    [1],
    torch.tensor(1.5),
    torch.tensor([20]),
    torch.tensor([1, 2]),
]
REFUSED |= {
    f"{name}={value!r}": (
        {"method": method, name: value},
        SampleError,
        f"{name}={shown(value)} must be a whole number >= 1",
    )
    for method, name in [("ddim", "nfe"), ("adaptive", "nfe"), ("ddim", "batch_size"), ("adaptive", "max_nfe")]
    for value in WRONG_COUNTS
}
REFUSED |= {
    f"tol={value!r}": (ADAPTIVE | {"tol": value}, SampleError, f"tol={value!r} must be a finite number of at least")
    for value in (0, -1.0, 9e-7, math.nan, math.inf, True, "x", [0.1])
}
REFUSED |= {
    f"first_step={value!r}": (ADAPTIVE | {"first_step": value}, SampleError, f"first_step={value!r} must be a number")
    for value in (0, -1.0, math.nan, math.inf, True, "x", [0.1])
}
REFUSED |= {
    f"{name} with a grid method": ({name: value}, SampleError, f"{name}={value} is for adaptive methods (adaptive,")
    for name, value in {"tol": 0.1, "max_nfe": 9, "first_step": 0.1}.items()
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_value_that_cannot_be_is_refused_on_one_line(case):
    arguments, error, message = REFUSED[case]
    with pytest.raises(error, match=re.escape(message)) as caught:
        SolveOptions(**arguments)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["grid", "guidance", "guidance_range", "eta", "eta_range", "tol", "nfe", "dtype"])
def test_a_table_is_refused_on_one_line_too(name):
    others = {"guidance_range": GUIDED, "eta_range": {"eta": 1}, "tol": ADAPTIVE}.get(name, {})
    kinds = {"grid": GridError, "guidance": GuidanceError, "guidance_range": GuidanceError}
    error = kinds.get(name, EtaError if name.startswith("eta") else SampleError)
    for table in (np.eye(3), torch.eye(3), np.array([["a", "b"], ["c", "d"], ["e", "f"]])):
        assert one_line(error, SolveOptions, **others | {name: table})


def test_the_smallest_tolerance_is_what_the_state_can_hold():
    assert SolveOptions(**ADAPTIVE, tol=1e-6).control.tol == 1e-6
    assert SolveOptions(**ADAPTIVE, tol=1e-12, dtype=torch.float64).control.tol == 1e-12
    line = one_line(SampleError, SolveOptions, **ADAPTIVE, tol=9e-13, dtype=torch.float64)
    assert "tol=9e-13 must be a finite number of at least 1e-12 with a float64 state" in line


def test_a_method_without_a_name_is_called_this_method():
    assert one_line(EtaError, SolveOptions, method=adams(4), eta=1).startswith("this method cannot have noise")
    assert one_line(SampleError, SolveOptions, method=adams(4), tol=0.1).endswith("this method takes nfe")
    assert SolveOptions(method="adams4").name == "adams4"


# --- what it makes of what it is given

SCALARS = {
    "numpy float32": np.float32,
    "numpy float64": np.float64,
    "torch float32": lambda value: torch.tensor(value, dtype=torch.float32),
    "torch float64": lambda value: torch.tensor(value, dtype=torch.float64),
    "numpy array of no dimensions": np.array,
}
INTEGERS = {
    "numpy int64": np.int64,
    "numpy uint8": np.uint8,
    "torch int64": torch.tensor,
    "torch int32": lambda value: torch.tensor(value, dtype=torch.int32),
}


@pytest.mark.parametrize("kind", SCALARS)
def test_real_numbers_become_floats_of_python(kind):
    make = SCALARS[kind]
    grid = SolveOptions(guidance=make(2.0), eta=make(0.5))
    assert (type(grid.guidance), grid.guidance) == (float, 2.0)
    assert (type(grid.eta), grid.eta) == (float, 0.5)
    adaptive = SolveOptions(**ADAPTIVE, tol=make(0.25), first_step=make(0.125))
    assert (type(adaptive.tol), adaptive.tol) == (float, 0.25)
    assert (type(adaptive.first_step), adaptive.first_step) == (float, 0.125)
    assert grid == SolveOptions(guidance=2.0, eta=0.5)
    assert adaptive == SolveOptions(**ADAPTIVE, tol=0.25, first_step=0.125)


@pytest.mark.parametrize("kind", INTEGERS)
def test_whole_numbers_become_ints_of_python(kind):
    make = INTEGERS[kind]
    options = SolveOptions(nfe=make(8), batch_size=make(4))
    adaptive = SolveOptions(**ADAPTIVE, max_nfe=make(100))
    found = [options.nfe, options.batch_size, adaptive.max_nfe]
    assert found == [8, 4, 100]
    assert {type(value) for value in found} == {int}


RANGES = {
    "list": [0.125, 2.0],
    "tuple": (0.125, 2.0),
    "ints": (0, 2),
    "numpy": np.array([0.125, 2.0]),
    "numpy float32": np.array([0.125, 2.0], dtype=np.float32),
    "numpy scalars": (np.float32(0.125), np.float64(2.0)),
    "tensor": torch.tensor([0.125, 2.0]),
}


@pytest.mark.parametrize("kind", RANGES)
def test_a_range_becomes_a_tuple_of_floats(kind):
    options = SolveOptions(guidance=2.0, guidance_range=RANGES[kind], eta=1, eta_range=RANGES[kind])
    expected = (0.0 if kind == "ints" else 0.125, 2.0)
    for found in (options.guidance_range, options.eta_range):
        assert found == expected
        assert [type(end) for end in (found, *found)] == [tuple, float, float]


def test_an_end_of_a_range_that_is_none_is_open():
    for given, expected in [
        ((None, 5.0), (0.0, 5.0)),
        ((0.5, None), (0.5, math.inf)),
        ([None, None], (0.0, math.inf)),
        ((0.5, math.inf), (0.5, math.inf)),
    ]:
        assert SolveOptions(guidance=2.0, guidance_range=given).guidance_range == expected
        assert SolveOptions(eta=1, eta_range=given).row.solver.eta == Eta(1.0, *expected)


GIVEN = {
    "list": [4.0, 2.5, 1.0, 0.0],
    "tuple": (4.0, 2.5, 1.0, 0.0),
    "ints and floats": [4, 2.5, 1, 0],
    "numpy": np.array([4.0, 2.5, 1.0, 0.0]),
    "numpy float32": np.array([4.0, 2.5, 1.0, 0.0], dtype=np.float32),
    "numpy, reversed": np.array([0.0, 1.0, 2.5, 4.0])[::-1],
    "numpy, every other": np.array([4.0, 3.0, 2.5, 2.0, 1.0, 0.5, 0.0])[::2],
    "tensor": torch.tensor([4.0, 2.5, 1.0, 0.0]),
    "tensor float64": torch.tensor([4.0, 2.5, 1.0, 0.0], dtype=torch.float64),
    "tensor with a gradient": torch.tensor([4.0, 2.5, 1.0, 0.0], requires_grad=True),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_a_grid_becomes_a_tuple_of_floats(kind):
    options = SolveOptions(grid=GIVEN[kind])
    assert options.grid == (4.0, 2.5, 1.0, 0.0)
    assert type(options.grid) is tuple
    assert {type(sigma) for sigma in options.grid} == {float}
    assert options == SolveOptions(grid=[4.0, 2.5, 1.0, 0.0])
    assert hash(options) == hash(SolveOptions(grid=[4.0, 2.5, 1.0, 0.0]))


def test_a_reversed_view_is_the_grid_it_shows():
    assert SolveOptions(grid=np.linspace(0, 10, 11)[::-1]).grid == tuple(float(n) for n in range(10, -1, -1))


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_with_a_name_keeps_it(name):
    assert SolveOptions(grid=name).grid == name


def test_the_callers_grid_can_change_afterwards():
    given = np.array([4.0, 2.0, 1.0])
    options = SolveOptions(grid=given)
    given[:] = 0
    assert options.grid == (4.0, 2.0, 1.0)
