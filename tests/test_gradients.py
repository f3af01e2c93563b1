import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ddim_ode import Denoiser, sample
from ddim_ode.gradients import MODES
from ddim_ode.models.denoiser import NonFiniteError
from ddim_ode.ode.adjoint import GradientError
from ddim_ode.ode.flow import ProbabilityFlow
from ddim_ode.paths import flow
from ddim_ode.planning.plan import Progress
from ddim_ode.solvers import METHODS, DivergedError
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.networks import randomise, tiny_unet
from tests.helpers.tables import PATHS
from tests.helpers.tensors import f64, normal

MIXTURE = labelled().denoiser(PATHS["linear"], "velocity")
LABELS = torch.tensor([0, 2, 1])
ACCURATE = {"dopri5": 1e-10, "dopri8": 1e-10, "bosh3": 1e-7}  # tolerances below which a solver's error is out of sight
GRIDS = {"direct": 12, "reversible": 12, "adjoint": 400}  # nfe; of rk4 that is a hundred steps, whose error is 1e-6


class Small(nn.Sequential):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x)


def small() -> Denoiser:
    """A network that is smooth and quick."""
    net = Small(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Unflatten(1, (2, 3)))
    return Denoiser(randomise(net, 0).double().requires_grad_(), PATHS["linear"], "velocity", (2, 3))


def unet() -> Denoiser:
    return Denoiser(tiny_unet().double().requires_grad_(), PATHS["linear"], "velocity", (1, 8, 8), 3)


def of(model: Denoiser) -> list[Tensor]:
    return list(model.net.parameters()) if isinstance(model.net, nn.Module) else []


def settings(method: str, mode: str) -> dict:
    rule = {"tol": ACCURATE[method], "max_nfe": 10**6} if METHODS[method].adaptive else {"nfe": GRIDS[mode]}
    return {"method": method, **rule, "dtype": torch.float64}


def gradients(model: Denoiser, mode: str | None, scale: float = 1.0, **choices) -> list[Tensor]:
    """Of a sum of the samples with random weights, in the noise and in the parameters."""
    x = normal(3, *model.shape, seed=5).requires_grad_()
    sol = sample(model, noise=x, differentiable=mode, **choices)
    return list(torch.autograd.grad(scale * (normal(*sol.x.shape, seed=6) * sol.x).sum(), [x, *of(model)]))


def check(model: Denoiser, mode: str, **choices) -> None:
    """Two derivatives, along a direction of the noise and one of the parameters, against central differences."""
    found, x, h = gradients(model, mode, **choices), normal(3, *model.shape, seed=5), 1e-5
    at = [x, *of(model)]
    along = [normal(*p.shape, seed=k) * (p.detach() if k else 1) for k, p in enumerate(at)]

    @torch.no_grad()
    def moved(chosen: slice, by: float) -> float:
        for p, d in zip(at[chosen], along[chosen], strict=True):
            p += by * d
        loss = float((normal(*x.shape, seed=6) * sample(model, noise=x, **choices).x).sum())
        for p, d in zip(at[chosen], along[chosen], strict=True):
            p -= by * d
        return loss

    for chosen in [slice(0, 1), slice(1, None)][: len(at)]:
        slope = sum(float((g * d).sum()) for g, d in zip(found[chosen], along[chosen], strict=True))
        assert slope == pytest.approx((moved(chosen, h) - moved(chosen, -h)) / (2 * h), rel=1e-5)


def same(found: list[Tensor], truth: list[Tensor], rel: float) -> bool:
    return all((g - t).norm() <= rel * t.norm() for g, t in zip(found, truth, strict=True))


FEW = [("direct", "ddim"), ("adjoint", "dopri5"), ("adjoint", "rk4"), ("reversible", "leapfrog")]
INVERSE = [("reversible", name) for name, row in METHODS.items() if MODES["reversible"].takes(row)]
CASES = [
    *(
        ("direct", name)
        for name, row in METHODS.items()
        if MODES["direct"].takes(row) and row.deterministic and not row.adaptive
    ),
    *INVERSE,
    ("adjoint", "rk4"),
    *((mode, name) for mode in ("direct", "adjoint") for name in ("dopri5", "dopri8")),
]


@pytest.mark.parametrize(("mode", "method"), CASES)
def test_gradient_in_the_start_is_that_of_central_differences(mode, method):
    check(MIXTURE, mode, **settings(method, mode))


@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize(("mode", "method"), [("direct", "edict"), ("adjoint", "rk4"), *INVERSE])
def test_gradient_in_the_parameters_of_a_network(mode, method, final):
    check(unet() if mode != "adjoint" else small(), mode, final=final, **settings(method, mode))


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_gradient_in_the_parameters_through_adaptive_steps(method):
    # Differences are of no use: the steps of the two runs differ, and so do their errors.
    net = small()
    expected = gradients(net, "direct", method="rk4", nfe=2000, dtype=torch.float64, final="sigma_min")
    for mode in ("direct", "adjoint"):
        assert same(gradients(net, mode, final="sigma_min", **settings(method, mode)), expected, 1e-5)


def test_direct_goes_through_the_steps_that_each_sample_has_chosen():
    expected = gradients(MIXTURE, "direct", method="rk4", nfe=2000, dtype=torch.float64, final="sigma_min")
    found = gradients(MIXTURE, "direct", method="adaptive", tol=1e-9, dtype=torch.float64, final="sigma_min")
    assert same(found, expected, 1e-5)


@pytest.mark.parametrize(("mode", "method"), [("reversible", "belm"), *FEW])
def test_labels_guidance_and_any_batch_size(mode, method):
    check(MIXTURE, mode, labels=LABELS, guidance=2.0, **settings(method, mode))
    if METHODS[method].adaptive:
        return  # a batch shares its steps
    net, choices = (unet() if mode != "adjoint" else small()), settings(method, mode)
    choices |= {"labels": LABELS} if net.num_classes else {}
    assert same(gradients(net, mode, batch_size=2, **choices), gradients(net, mode, **choices), 1e-9)


@pytest.mark.parametrize("method", ["reversible_heun", "bdia", "belm"])
def test_reversible_is_direct(method):
    net, choices = unet(), settings(method, "direct")
    assert same(gradients(net, "reversible", **choices), gradients(net, "direct", **choices), 1e-10)


def test_reversible_leapfrog_is_autograd_through_a_loop_over_floats():
    net, sigmas = unet(), f64([150, 40, 9, 3, 1, 0.4, 0.1, 0.02])
    start, weights = (150 * normal(3, *net.shape, seed=5)).requires_grad_(), normal(3, *net.shape, seed=6)
    ode, u = ProbabilityFlow(net, flow, (0.02, 150), differentiable=True), flow.u(sigmas)
    states = [ode.enter(start, sigmas[0])]
    states.append(states[0] + (u[1] - u[0]) * ode(u[0], states[0]))
    for n in range(1, len(u) - 1):
        states.append(states[n - 1] + (u[n + 1] - u[n - 1]) * ode(u[n], states[n]))
    sol = sample(net, "leapfrog", grid=sigmas, start=start, dtype=torch.float64, differentiable="reversible")
    losses = [(weights * x).sum() for x in (sol.x, ode.leave(states[-1], sigmas[-1]))]
    assert same(*(list(torch.autograd.grad(loss, [start, *of(net)])) for loss in losses), 1e-10)


def peak(mode: str, method: str, nfe: int) -> int:
    """The most bytes that are saved for backward at once, on the way there and on the way back."""
    sizes = [0]

    class Kept:
        def __init__(self, x: Tensor):
            self.x, self.size = x, x.numel() * x.element_size()
            sizes.append(sizes[-1] + self.size)

        def __del__(self) -> None:
            sizes.append(sizes[-1] - self.size)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.x):
        gradients(unet(), mode, method=method, nfe=nfe, final="sigma_min", dtype=torch.float64)
    return max(sizes)


def test_memory_does_not_grow_with_the_steps_but_that_of_direct_does():
    for mode, method in [("reversible", "leapfrog"), ("reversible", "exact_heun"), ("adjoint", "euler")]:
        assert peak(mode, method, 100) <= 1.01 * peak(mode, method, 10)
    assert peak("direct", "reversible_heun", 100) > 8 * peak("direct", "reversible_heun", 10)


@pytest.mark.parametrize("final", ["denoise", "sigma_min"])
@pytest.mark.parametrize(("mode", "method"), [("direct", "dopri5"), *FEW])
def test_samples_counts_and_progress_are_those_of_a_run_without_a_graph(mode, method, final):
    rule = {"tol": 0.01} if METHODS[method].adaptive else {"nfe": 12}
    x = normal(5, *MIXTURE.shape, seed=5, dtype=torch.float32).requires_grad_()

    def told(graph: str | None) -> str:
        seen: list[Progress] = []
        choices = {**rule, "noise": x, "final": final, "batch_size": 3, "callback": seen.append}
        sol = sample(MIXTURE, method, differentiable=graph, **choices)
        assert sol.x.requires_grad == (graph is not None)
        assert not any(progress.xbar.requires_grad for progress in seen)
        facts = [sol.x, sol.nfe, sol.steps, sol.rejected, sol.sigmas, sol.converged]
        return repr([*((*p[:5], p.xbar.tolist()) for p in seen), *(fact.tolist() for fact in facts)])

    assert told(mode) == told(None)


def test_without_it_there_is_no_graph():
    sol = sample(unet(), "euler", nfe=3, noise=normal(2, 1, 8, 8, seed=5).requires_grad_(), dtype=torch.float64)
    assert not sol.x.requires_grad


def test_the_adjoint_is_as_accurate_for_a_loss_in_small_units():
    ones, small_units = (gradients(MIXTURE, "adjoint", scale, method="dopri5", tol=1e-3) for scale in (1.0, 2.0**-30))
    assert same(small_units, [2.0**-30 * g for g in ones], 0.0)


@pytest.mark.parametrize(("mode", "method"), FEW)
def test_a_network_that_fails_is_named_with_its_step(mode, method):
    def net(x: Tensor, t: Tensor) -> Tensor:
        return x * torch.nan if len(x) == 1 and t[0] < 300 else x

    found = []
    for graph in (mode, None):
        with pytest.raises(NonFiniteError, match="for sample 2 in step") as error:
            gradients(Denoiser(net, PATHS["linear"], "velocity", (2, 3)), graph, method=method, batch_size=2)
        found.append(str(error.value))
    assert found[0] == found[1]


REFUSALS = [
    ("forward", "ddim", "differentiable='forward' is unknown; choose one of direct, adjoint, reversible, or None"),
    ("direct", "leapfrog", "takes methods whose operations torch records, and leapfrog is none; use differentiable="),
    ("direct", "exact_heun", "and exact_heun is none; use differentiable='reversible' or method='dopri5'"),
    ("adjoint", "adaptive", "takes methods that ask for slopes alone, and adaptive is none; use differentiable="),
    ("direct", "scipy_solver", "and scipy_solver is none; use method='dopri5'"),
    ("adjoint", "ddim", "takes methods that ask for slopes alone, and ddim is none; use differentiable='direct' or"),
    ("adjoint", "scipy_solver", "and scipy_solver is none; use method='dopri5'"),
    ("reversible", "edict", "takes methods that are their own inverse, and edict is none; use differentiable='direct'"),
    ("reversible", "rk4", "use differentiable='direct' or differentiable='adjoint' or method='leapfrog'"),
]


@pytest.mark.parametrize(("mode", "method", "line"), REFUSALS)
def test_what_cannot_be_differentiated_is_refused_with_a_remedy(mode, method, line):
    assert line in one_line(GradientError, gradients, MIXTURE, mode, method=method)


def test_no_gradient_is_lost_without_a_word():
    net = unet()
    hidden = replace(net, net=lambda x, t, labels: net.net(x, t, labels))
    for model, mode, choices, line in [
        (hidden, "adjoint", {"method": "rk4", "nfe": 8}, "is no parameter of the network; make it one of an nn.Module"),
        (hidden, "reversible", {"method": "leapfrog", "nfe": 8}, "or use differentiable='direct'"),
        (MIXTURE, "adjoint", {"method": "dopri5", "tol": 1e-5, "max_nfe": 30}, "max_nfe=30 ended the run"),
    ]:
        assert line in one_line(GradientError, gradients, model, mode, **choices)
    line = one_line(GradientError, sample, MIXTURE, "ddim", nfe=3, differentiable="direct")
    assert line == "nothing here requires a gradient; give noise, start or a network that does"
    with torch.no_grad():
        assert "under torch.no_grad" in one_line(GradientError, gradients, MIXTURE, "direct")
    line = one_line(DivergedError, gradients, MIXTURE, "reversible", method="belm", nfe=20, grid="near_image")
    assert re.match(r"the way back missed the start by [\d.e+]+ of it, so that the gradient would be wrong; use", line)
    sol = sample(net, "leapfrog", nfe=4, differentiable="reversible")
    with torch.no_grad():
        of(net)[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sol.x.sum().backward()
