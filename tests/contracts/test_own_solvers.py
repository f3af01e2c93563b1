"""A solver written by somebody else, who inherits nothing from us: what it says it can do, it can do everywhere."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import ddim_ode
from ddim_ode import paths
from ddim_ode.ode.adjoint import recorded
from ddim_ode.solvers import Method, Step
from ddim_ode.solvers.lattice import UNIT
from ddim_ode.support import remembering
from tests.helpers.mixtures import labelled


@dataclass(frozen=True)
class Bounce:
    """The leapfrog, its states integers: (now, before), and on the way back where it is known to go."""

    to_zero = False
    reversible = True
    exact = True

    def init(self, ode, sigmas, y):
        now = (y.double() / UNIT).round().long()
        return {"now": now, "before": now, "u": None, "after": None}

    def step(self, ode, u0, u1, y, state):
        now, before = state["now"], state["before"]
        if (after := state["after"]) is None:
            h = u1 - (u0 if state["u"] is None else state["u"])
            after = before + (h * ode(u0, now.double() * UNIT) / UNIT).round().long()
        return Step(after.double() * UNIT, {"now": after, "before": now, "u": u0, "after": None})

    def keep(self, state):
        return state["now"], state["before"]

    def resume(self, ode, sigmas, kept):
        now, after = kept
        return Step(now.double() * UNIT, {"now": now, "before": now, "u": None, "after": after})

    def pullback(self, ode, u, kept, of_end, products):
        after, now = kept
        of_after, of_now = of_end, torch.zeros_like(of_end)
        for n in reversed(range(len(u) - 1)):
            h = u[n + 1] - u[max(n - 1, 0)]
            leaf, dy = recorded(lambda y, h=h, n=n: h * ode(u[n], y), now.double() * UNIT)
            of_after, of_now = of_now + products(dy, leaf, of_after), of_after
            after, now = now, after - (dy.detach() / UNIT).round().long()
        return after.double() * UNIT, of_after + of_now


@dataclass(frozen=True)
class Ralston:
    """Runge-Kutta of order 2, in slopes alone."""

    to_zero = False
    slopes_only = True
    one_step = True

    def init(self, ode, sigmas, y):
        return None

    def step(self, ode, u0, u1, y, state):
        h = u1 - u0
        f0 = ode(u0, y)
        return Step(y + h * (f0 / 4 + 3 / 4 * ode(u0 + 2 / 3 * h, y + 2 / 3 * h * f0)), state)


def own(solver: Any, evaluations: int) -> Method:
    return Method(solver, paths.flow, "near_image", order=2, evaluations=evaluations, summary="")


BOUNCE, RALSTON = own(Bounce(), 1), own(Ralston(), 2)
FASHION = ddim_ode.load("fashion")
MIXTURE = labelled()
MODEL = MIXTURE.denoiser(paths.DiscreteVP.linear())


def test_what_it_says_it_can_do():
    assert (BOUNCE.invertible, BOUNCE.exact, BOUNCE.rebuilds) == (True, True, True)
    assert (BOUNCE.recorded, BOUNCE.slopes_only, BOUNCE.adaptive) == (False, False, False)
    assert (RALSTON.slopes_only, RALSTON.recorded, RALSTON.deterministic, RALSTON.per_sample) == (True,) * 4
    assert (RALSTON.invertible, RALSTON.exact, RALSTON.rebuilds, RALSTON.tells_steps) == (False,) * 4


@dataclass(frozen=True)
class Curious(Ralston):
    """It reads what only a whole model has, and cannot be hashed."""

    notes: list | tuple = ()

    def init(self, ode, sigmas, y):
        assert ode.model.predicts == "noise"
        return ode.model.time(sigmas[0])


def test_it_may_read_the_model_and_hold_a_list():
    method = own(Curious(notes=["mine"]), 2)
    found, expected = (ddim_ode.sample(MODEL, m, nfe=9, seeds=[0]) for m in (method, RALSTON))
    assert torch.equal(found.x, expected.x)
    assert found.nfe.tolist() == [9]


class Stretched(paths.Flow):
    """Somebody's path, no dataclass: its parameter is in no equality."""

    def __init__(self, k):
        super().__init__(0.001, 100.0)
        object.__setattr__(self, "k", k)

    def u(self, sigma):
        return super().u(sigma / self.k)

    def sigma(self, u):
        return self.k * super().sigma(u)


@dataclass(frozen=True)
class Knotted(paths.Flow):
    """One that cannot be hashed."""

    knots: list | tuple = ()


@pytest.mark.parametrize("method", ["ddim", "heun", "adams3", "adaptive", "sde_euler"])
@pytest.mark.parametrize("grid", [None, "uniform"])
def test_a_path_of_ones_own_is_not_taken_for_another(method, grid):
    options = {"tol": 0.05} if method == "adaptive" else {"nfe": 8, "grid": grid}

    def sampled(path):
        return ddim_ode.sample(MIXTURE.denoiser(path), method, seeds=[0], **options).x

    apart = [sampled(Stretched(k)) for k in (1.0, 3.0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remembering, "_has_own_equality", lambda kind: False)  # nothing is kept
        assert all(torch.equal(sampled(Stretched(k)), found) for k, found in zip((1.0, 3.0), apart, strict=True))
    plain, knotted = (sampled(kind(0.001, 100.0)) for kind in (paths.Flow, lambda *ends: Knotted(*ends, knots=[1.0])))
    assert torch.equal(plain, knotted)


def test_its_latents_are_exact():
    images, labels = (x[:3] for x in ddim_ode.data.bundled_images())
    found = ddim_ode.reconstruct(FASHION, images, method=BOUNCE, nfe=12, labels=labels)
    assert found.bit_exact.all()
    assert {state.dtype for state in found.latent.states} == {torch.int64}
    assert found.latent.nfe.tolist() == [12] * 3
    assert found.solution.nfe.tolist() == [11] * 3  # the first step back is known
    ours = ddim_ode.encode(FASHION, images, method="leapfrog", nfe=12, labels=labels)
    torch.testing.assert_close(found.latent.noise, ours.noise, rtol=0, atol=1e-4)


def test_its_gradient_at_constant_memory_is_that_of_the_leapfrog():
    noise = torch.randn(2, *FASHION.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grads = []
    for method in (BOUNCE, "leapfrog"):
        z = noise.clone().requires_grad_()
        options = {"nfe": 8, "labels": [3, 5], "dtype": torch.float64, "grid": BOUNCE.grid}
        ddim_ode.sample(FASHION, method, noise=z, differentiable="reversible", **options).x.square().sum().backward()
        grads.append(z.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4 * float(grads[1].abs().max()))
    with pytest.raises(ddim_ode.DDIMError, match="'direct' takes methods whose operations torch records"):
        ddim_ode.sample(FASHION, BOUNCE, noise=noise.requires_grad_(), differentiable="direct")


def test_one_of_slopes_alone_has_densities_and_adjoints():
    x = MIXTURE.sample(3, seed=0).clamp(-1, 1)
    options = {"nfe": 300, "labels": 1, "dtype": torch.float64}
    found, ours = (
        ddim_ode.log_likelihood(
            MODEL, x, method=method, trace="exact", grid="near_image", **options | {"nfe": 3000}
        ).nats
        for method in (RALSTON, "midpoint")
    )
    torch.testing.assert_close(found, ours, rtol=1e-3, atol=1e-2)
    z = torch.zeros(1, *MODEL.shape, dtype=torch.float64).requires_grad_()
    grads = []
    for mode in ("adjoint", "direct"):
        y = ddim_ode.sample(MODEL, RALSTON, noise=z, differentiable=mode, **options).x
        (grad,) = torch.autograd.grad(y.square().sum(), z)
        grads.append(grad)
    assert (grads[0] - grads[1]).norm() < 0.01 * grads[1].norm()


def test_one_of_steps_that_stand_alone_takes_noise():
    """As our own Runge-Kutta method of the same order does, from the same Brownian paths."""
    found, ours = (
        ddim_ode.sample(MODEL, method, 400, range(4), labels=1, eta=0.5, dtype=torch.float64).x
        for method in (RALSTON, dataclasses.replace(ddim_ode.METHODS["midpoint"], path=paths.flow, grid="near_image"))
    )
    torch.testing.assert_close(found, ours, rtol=0, atol=0.02)
    assert (found - ddim_ode.sample(MODEL, RALSTON, 400, range(4), labels=1, dtype=torch.float64).x).abs().max() > 0.1


def test_it_is_refused_what_it_cannot_do():
    with pytest.raises(ddim_ode.DDIMError, match="this method cannot carry a density"):
        ddim_ode.log_likelihood(FASHION, ddim_ode.data.bundled_images()[0][:1], method=BOUNCE)
    with pytest.raises(ddim_ode.DDIMError, match="cannot have noise"):
        ddim_ode.sample(FASHION, BOUNCE, eta=1.0)
