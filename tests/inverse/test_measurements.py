"""Measurements of any kind: functions that are only differentiable, and what is refused."""

import math

import pytest
import torch

from ddim_ode.inverse import BoxDownsampling, Differentiable, Mask, MeasurementError
from ddim_ode.inverse.measurements import check_measurement, home
from ddim_ode.support.checks import ArgumentError
from tests.helpers.tensors import normal


def test_the_derivative_of_a_function_is_along_the_vector():
    operator = Differentiable(lambda x: torch.tanh(x).cumsum(-1).flatten(1) ** 2)
    x, v = normal(3, 1, 4, 4, seed=0), normal(3, 1, 4, 4, seed=1)
    step = 1e-6
    expected = (operator.apply(x + step * v) - operator.apply(x - step * v)) / (2 * step)
    with torch.no_grad():
        torch.testing.assert_close(operator.derivative(x, v), expected, rtol=1e-6, atol=1e-8)


def test_the_derivative_of_a_linear_one_is_itself():
    x, v = normal(3, 1, 4, 4, seed=0), normal(3, 1, 4, 4, seed=1)
    down = BoxDownsampling(2)
    torch.testing.assert_close(Differentiable(down.apply).derivative(x, v), down.derivative(x, v))


def test_a_function_that_is_nowhere_steep():
    x = normal(2, 1, 4, 4, seed=0)
    with pytest.raises(MeasurementError, match="derivative is 0"):
        Differentiable(torch.round).derivative(x, x)


def test_a_function_says_what_it_measures():
    assert Differentiable(lambda x: x.flatten(1)[:, :5]).measured((1, 4, 4)) == (5,)
    assert Differentiable(lambda x: x.flatten(1)[:, :5]).count((1, 4, 4)) == 5


def test_pixels_that_were_not_measured_may_be_anything():
    operator = Mask.half((4, 4))
    y = torch.full((1, 1, 4, 4), math.nan)
    y[..., :2] = 1
    assert check_measurement(operator, y, (1, 4, 4)).sum() == 8


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (
            torch.zeros(2, 1, 3, 2),
            "y has shape (2, 1, 3, 2); of images (1, 4, 4) this operator measures a tensor (B, 1",
        ),
        (torch.zeros(0, 1, 2, 2), "y has shape (0,"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), "torch.uint8; give floats"),
        (torch.tensor([0.0, math.nan]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2), "y[1] holds NaN"),
    ],
)
def test_another_measurement_is_one_line(y, words):
    with pytest.raises(MeasurementError) as caught:
        check_measurement(BoxDownsampling(2), y, (1, 4, 4))
    assert words in str(caught.value)


def test_functions_that_measure_nothing():
    for function in (lambda x: x[:1].expand(7, 1, 4, 4), lambda x: "x", lambda x: x.long()):
        with pytest.raises(MeasurementError, match="return floats"):
            Differentiable(function).measured((1, 4, 4))
    with pytest.raises(MeasurementError, match="cannot measure images of shape"):
        Differentiable(lambda x: x.reshape(-1, 3)).measured((1, 4, 4))
    with pytest.raises(ArgumentError):
        Differentiable(3)
    with pytest.raises(ArgumentError):
        check_measurement(BoxDownsampling(2), [1.0], (1, 4, 4))


def test_a_module_is_asked_where_it_lives():
    assert home(torch.nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert home(torch.nn.ReLU()) == home(torch.tanh) == torch.device("cpu")
    assert Differentiable(torch.nn.Linear(4, 3, device="meta")).measured((1, 4, 4)) == (1, 4, 3)
