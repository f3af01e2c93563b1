"""Linear measurements: what their closed forms say, against dense algebra."""

import pytest
import torch

from ddim_ode.inverse import Blur, BoxDownsampling, Grey, LinearOperator, Mask, MeasurementError
from ddim_ode.inverse.conjugate import conjugate_gradients
from ddim_ode.support.checks import ArgumentError
from tests.helpers.gaussians import matrix_of
from tests.helpers.tensors import normal

SHAPE = (3, 8, 6)
LOPSIDED = torch.tensor([[0.5, 0.2, 0.1], [0.0, 0.3, -0.1]])
OPERATORS: dict[str, LinearOperator] = {
    "half": Mask.half((8, 6)),
    "box": Mask.box((8, 6), 3),
    "random": Mask.random((8, 6), 0.7),
    "channels": Mask(torch.arange(3 * 48).reshape(SHAPE) % 5 > 1),
    "down": BoxDownsampling(2),
    "blur": Blur.gaussian(0.7),
    "strong blur": Blur.gaussian(1.5),
    "lopsided blur": Blur(LOPSIDED),
    "grey": Grey(),
}


@pytest.fixture(params=list(OPERATORS))
def operator(request: pytest.FixtureRequest) -> LinearOperator:
    return OPERATORS[request.param]


def test_the_adjoint(operator):
    x, y = normal(4, *SHAPE, seed=0), normal(4, *operator.measured(SHAPE), seed=1)
    forward, backward = (operator.apply(x) * y).flatten(1).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1)
    torch.testing.assert_close(forward, backward, rtol=0, atol=1e-12)


def test_the_pseudo_inverse(operator):
    x = normal(4, *SHAPE, seed=0)
    y = operator.apply(x)
    torch.testing.assert_close(operator.apply(operator.pseudo_inverse(y)), y, rtol=0, atol=1e-9)
    dense = torch.linalg.pinv(matrix_of(operator, SHAPE), rtol=1e-4)
    torch.testing.assert_close(operator.pseudo_inverse(y).flatten(1), y.flatten(1) @ dense.T, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ridge", [0.3, 20.0])
def test_solve(operator, ridge):
    y = normal(4, *operator.measured(SHAPE), seed=1)
    matrix = matrix_of(operator, SHAPE)
    inside = matrix @ matrix.T + ridge * torch.eye(len(matrix), dtype=torch.float64)
    expected = operator.seen(y).flatten(1) @ torch.linalg.inv(inside)
    found = operator.seen(operator.solve(y, ridge)).flatten(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_ridge_for_each_sample(operator):
    y, ridges = normal(3, *operator.measured(SHAPE), seed=1), torch.tensor([0.0, 0.2, 3.0]).double()
    found = operator.solve(y, ridges.reshape(-1, 1, 1, 1))
    for i, ridge in enumerate(ridges.tolist()):
        torch.testing.assert_close(found[i : i + 1], operator.solve(y[i : i + 1], ridge), rtol=0, atol=1e-12)


def test_conjugate_gradients_solve_the_same(operator):
    y = operator.apply(normal(4, *SHAPE, seed=0))
    for ridge in (0.0, 0.5):
        general = LinearOperator.solve(operator, y, ridge)
        torch.testing.assert_close(
            operator.adjoint(general), operator.pseudo_inverse(y, ridge), rtol=0, atol=1e-5 if not ridge else 1e-10
        )


def test_conjugate_gradients_of_one_sample_do_not_depend_on_the_others():
    factor = normal(6, 6, seed=3)
    matrix = factor @ factor.T
    y = torch.cat([normal(2, 6, seed=4), torch.zeros(1, 6).double()])
    together = conjugate_gradients(lambda v: v @ matrix, y)
    torch.testing.assert_close(together @ matrix, y, rtol=0, atol=1e-9)
    assert torch.equal(together[2], y[2])
    for i in range(3):
        torch.testing.assert_close(conjugate_gradients(lambda v: v @ matrix, y[i : i + 1])[0], together[i])


def test_what_is_measured():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert BoxDownsampling(2).apply(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert Mask.half((4, 4)).apply(x)[0, 0, 0].tolist() == [0, 1, 0, 0]
    assert int(Mask.box((28, 28), 14).known.sum()) == 28 * 28 - 14 * 14
    assert int(Mask.random((28, 28), 0.75).known.sum()) == 196
    assert torch.equal(Mask.random((8, 8), 0.5, seed=3).known, Mask.random((8, 8), 0.5, seed=3).known)
    assert not torch.equal(Mask.random((8, 8), 0.5, seed=3).known, Mask.random((8, 8), 0.5, seed=4).known)
    torch.testing.assert_close(Grey().apply(torch.tensor([1.0, 2, 6]).reshape(1, 3, 1, 1)).item(), 3.0)
    shifted = Blur(torch.tensor([[0.0, 0, 1]])).apply(x)  # to the right, around the border
    torch.testing.assert_close(shifted[0, 0, 0], torch.tensor([3.0, 0, 1, 2]))
    torch.testing.assert_close(Blur.gaussian(2.0).apply(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 8, 8))


def test_the_residual_is_over_what_was_measured():
    operator = Mask(torch.tensor([[True, False], [False, False]]))
    x, y = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    assert operator.residual(x, y).tolist() == [0.5]
    assert torch.equal(operator.agree(x, y), torch.tensor([[[[0.5, 0], [0, 0]]]]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Mask.half((8, 7)).measured((1, 8, 8)), "a mask of 1 x 8 x 7 does not fit images of 1 x 8 x 8"),
        (lambda: OPERATORS["channels"].measured((1, 8, 6)), "a mask of 3 x 8 x 6 does not fit"),
        (lambda: Mask.half((8, 8)).measured((8,)), "use Differentiable"),
        (lambda: Mask(torch.zeros(4, 4, dtype=torch.bool)), "knows no pixel"),
        (lambda: Mask(torch.ones(4, dtype=torch.bool)), "no image's"),
        (lambda: Mask.box((8, 8), 8), "leaves nothing"),
        (lambda: Mask.random((8, 8), 1.5), "missing=1.5"),
        (lambda: Mask.random((8, 8), 1.0), "knows no pixel"),
        (lambda: BoxDownsampling(0), "factor=0"),
        (lambda: BoxDownsampling(3).measured((1, 8, 8)), "factor=3; give a divisor"),
        (lambda: Blur(torch.zeros(3, 3)), "not all of them 0"),
        (lambda: Blur(torch.ones(3)), "finite floats"),
        (lambda: Blur.gaussian(0.0), "std=0.0"),
        (lambda: Grey().measured((1, 8, 8)), "1 channels have no grey"),
        (lambda: Grey(1), "channels=1"),
    ],
)
def test_what_does_not_fit_is_one_line(make, words):
    with pytest.raises(MeasurementError) as caught:
        make()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mask(torch.ones(4, 4)),
        lambda: Mask([[True]]),
        lambda: Mask.half(8),
        lambda: Blur([[1.0]]),
    ],
)
def test_what_is_of_another_kind(make):
    with pytest.raises(ArgumentError):
        make()
