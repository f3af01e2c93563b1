"""Operators of deepinv's kind."""

import pytest
import torch
from torch import nn

import ddim_ode
from ddim_ode.inverse import (
    Blur,
    BoxDownsampling,
    Differentiable,
    Mask,
    MeasurementError,
    Physics,
    Projected,
    as_operator,
)
from ddim_ode.models.identity import fingerprint
from ddim_ode.support.checks import ArgumentError
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import normal

MODEL = labelled(shape=(1, 4, 4)).denoiser(ddim_ode.paths.DiscreteVP.linear())


class Stub:
    """What deepinv.physics.LinearPhysics has, around one of ours."""

    def __init__(self, operator):
        self.A, self.A_adjoint, self.operator, self.asked = operator.apply, operator.adjoint, operator, 0

    def A_dagger(self, y):
        self.asked += 1
        return self.operator.pseudo_inverse(y)


@pytest.mark.parametrize("operator", [Mask.random((8, 8), 0.6), BoxDownsampling(4), Blur.gaussian(0.6)])
def test_it_answers_as_ours_does(operator):
    stub = Stub(operator)
    theirs = as_operator(stub)
    assert isinstance(theirs, Physics)
    assert theirs.measured((1, 8, 8)) == operator.measured((1, 8, 8))
    x = normal(3, 1, 8, 8, seed=0)
    y = operator.apply(x)
    assert torch.equal(theirs.apply(x), y)
    assert torch.equal(theirs.adjoint(y), operator.adjoint(y))
    torch.testing.assert_close(theirs.pseudo_inverse(y, 0.3), operator.pseudo_inverse(y, 0.3), rtol=0, atol=1e-9)
    assert not stub.asked
    assert torch.equal(theirs.pseudo_inverse(y), operator.pseudo_inverse(y))
    assert stub.asked


def test_without_a_pseudo_inverse_of_its_own():
    stub = Stub(BoxDownsampling(2))
    Stub.A_dagger, kept = property(lambda self: self.missing), Stub.A_dagger  # an attribute that is not there
    try:
        y = normal(2, 1, 4, 4, seed=0)
        torch.testing.assert_close(as_operator(stub).pseudo_inverse(y), BoxDownsampling(2).pseudo_inverse(y))
    finally:
        Stub.A_dagger = kept


def test_ours_stay_what_they_are():
    for operator in (BoxDownsampling(2), Differentiable(torch.tanh)):
        assert as_operator(operator) is operator


def test_one_is_told_from_another_by_what_it_holds():
    """Whatever process it lives in: no address is among its facts."""

    class Held(Stub):
        def __init__(self, mask, factor=1):
            super().__init__(Mask(mask))
            self.mask, self.factor = mask, factor

    def digest(operator):
        return fingerprint(Projected(MODEL, as_operator(operator)))

    mask = Mask.half((4, 4)).known
    assert digest(Held(mask)) == digest(Held(mask.clone()))
    assert len({digest(Held(mask)), digest(Held(~mask)), digest(Held(mask, 2)), digest(Stub(Mask(mask)))}) == 4
    assert "0x" not in str(as_operator(Held(mask)).facts)
    layers = [nn.Conv2d(1, 1, 1, bias=False) for _ in range(2)]
    for value, layer in enumerate(layers):
        nn.init.constant_(layer.weight, value)
        layer.A = layer.A_adjoint = layer.forward
    assert digest(layers[0]) == digest(layers[0]) != digest(layers[1])


def test_what_is_no_operator():
    for wrong in (None, "mask", torch.ones(4, 4), Stub, torch.tanh):
        with pytest.raises(ArgumentError, match="operator is"):
            as_operator(wrong)
    with pytest.raises(MeasurementError, match="Stub cannot measure images of shape"):
        as_operator(Stub(BoxDownsampling(2))).measured((64,))
