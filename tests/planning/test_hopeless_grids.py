"""Named grids that spend nearly every step on noise are warned of, and only those."""

import warnings

import pytest

from ddim_ode import METHODS, paths, sample
from ddim_ode.grids import GRIDS, GridWarning
from tests.helpers.mixtures import labelled

EDM, COSINE = paths.Noise(0.002, 80.0), paths.DiscreteVP.cosine()


def warned(path: paths.Path, grid: str | None, nfe: int = 10, method: str = "ddim") -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        sample(labelled(shape=(4, 4)).denoiser(path), method, nfe, range(2), grid=grid)
    return [str(each.message) for each in found if issubclass(each.category, GridWarning)]


@pytest.mark.parametrize("grid", ["uniform", "trailing"])
def test_even_steps_of_sigma(grid):
    lost = 9 if grid == "uniform" else 10  # of 80 down: the last of `uniform` is sigma_min
    (line,) = warned(EDM, grid)
    assert line.startswith(f"grid='{grid}' spends {lost} of 10 steps above sigma=3, where there is little but noise; ")
    assert line.endswith("grid='logistic' spends 3 there")
    assert len(warned(EDM, grid, nfe=5)) == 1
    assert warned(EDM, grid, nfe=3) == []  # too few to tell


def test_karras_from_twenty_thousand():
    (line,) = warned(COSINE, "karras")
    assert line.startswith("grid='karras' spends 8 of 10 steps above sigma=3")
    assert warned(EDM, "karras") == []  # which it was made for


@pytest.mark.parametrize("path", [paths.DiscreteVP.linear(), paths.Flow(0.005, 500.0), COSINE])
def test_even_steps_of_time_are_not(path):
    assert warned(path, "uniform") == warned(path, "trailing") == []


@pytest.mark.parametrize("path", [EDM, COSINE, paths.DiscreteVP.linear(), paths.Flow(0.005, 500.0)])
def test_no_method_is_warned_of_its_own(path):
    for name, method in METHODS.items():
        if method.grid.startswith("logistic"):
            assert warned(path, None, 20, name) == []
    assert warned(path, "logistic") == []
    assert "logistic" in GRIDS
