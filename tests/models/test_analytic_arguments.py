"""What no mixture can be made of, or asked: by name, in one line."""

import math

import pytest
import torch

from ddim_ode import paths
from ddim_ode.errors import DDIMError
from ddim_ode.models.analytic import GaussianMixture
from ddim_ode.models.plausibility import probe
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import normal


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("x", 0.1), "means is the str 'x'; give"),
        ((None, 0.1), "means is None; give"),
        (([], 0.1), "means has shape (0,)"),
        ((torch.tensor(1.0), 0.1), "means has shape ()"),
        (([1.0, 2.0], 0.1), "means has shape (2,); give K means of one shape"),
        ((torch.zeros(0, 2), 0.1), "means has shape (0, 2)"),
        (([[math.nan]], 0.1), "means holds NaN"),
        (([[1j]], 0.1), "means is torch.complex64; give"),
        (([[0], [1]], "x"), "stds is the str 'x'; give"),
        (([[0], [1]], [0.1, 0.2, 0.3]), "stds has 3 entries for 2 means"),
        (([[0], [1]], [[0.1, 0.2]]), "stds has shape (1, 2)"),
        (([[0], [1]], 0.0), "stds and weights must be positive"),
        (([[0], [1]], math.inf), "stds and weights must be positive, and finite"),
        (([[0], [1]], 0.1, [1.0]), "weights has 1 entries for 2 means"),
        (([[0], [1]], 0.1, [1.0, math.nan]), "stds and weights must be positive"),
        (([[0], [1]], 0.1, None, [0, 2]), "leave a class without a component"),
        (([[0], [1]], 0.1, None, [0.5, 1]), "labels="),
        (([[0], [1]], 0.1, None, "ab"), "labels is the str 'ab'; give"),
    ],
)
def test_what_no_mixture_can_be_made_of(given, words):
    assert words in one_line(DDIMError, GaussianMixture, *given)


PATH, MIXTURE = paths.DiscreteVP.linear(), labelled()
XBAR = normal(2, 2, 3, seed=0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MIXTURE.sample(-1, 0), "n=-1 must be a whole number >= 1"),
        (lambda: MIXTURE.sample(1.5, 0), "n=1.5 must be"),
        (lambda: MIXTURE.sample(2, "x"), "seed='x' must be a whole number"),
        (lambda: MIXTURE.sample(2, 0, "x"), "sigma is the str 'x'; give"),
        (lambda: MIXTURE.sample(2, 0, -1.0), "sigma must be a finite number >= 0"),
        (lambda: MIXTURE.sample(2, 0, math.nan), "sigma must be a finite number >= 0"),
        (lambda: MIXTURE.denoise("x", 1.0), "xbar is the str 'x'; give"),
        (lambda: MIXTURE.denoise(XBAR[..., :2], 1.0), "xbar has shape (2, 2, 2); this mixture needs floats (B, 2, 3)"),
        (lambda: MIXTURE.denoise(XBAR[0, 0], 1.0), "xbar has shape (3,)"),
        (lambda: MIXTURE.denoise(XBAR, [1.0, 2.0, 3.0]), "sigma is 3 numbers; give one"),
        (lambda: MIXTURE.denoise(XBAR, 1.0, [0, 1]), "labels are a list of 2; give"),
        (lambda: MIXTURE.denoise(XBAR, 1.0, torch.tensor([0, 9])), "label 9 does not exist"),
        (lambda: MIXTURE.log_density(XBAR, math.inf), "sigma must be a finite number >= 0"),
        (lambda: MIXTURE.denoiser("linear"), "path is the str 'linear'; give"),
        (lambda: MIXTURE.denoiser(PATH, 3), "predicts is the int 3; give"),
        (lambda: MIXTURE.denoiser(PATH, "x0"), "predicts='x0' is unknown"),
        (lambda: probe("x"), "only a Denoiser can be probed"),
        (lambda: probe(MIXTURE.denoiser(PATH), seed="y"), "seed='y' must be a whole number"),
    ],
)
def test_what_a_mixture_cannot_be_asked(call, words):
    assert words in one_line(DDIMError, call)
