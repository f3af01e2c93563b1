"""Tables: DDIM written as one is DDIM, and what is asked, from where, at which price, is as they say."""

from dataclasses import replace

import pytest
import torch

from ddim_ode import paths, sample
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.guidance import Guided
from ddim_ode.planning.inputs import seeded_noise
from ddim_ode.solvers import TUNED, MethodError, get_method, name_of
from ddim_ode.solvers.tuned import Table, tabulated
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Counting, Recording, network
from tests.helpers.tuned import FIVE, THREE, ddim_table, grids_for, tables_for

MIXTURE = labelled()
SCHEDULES = {
    "noise": paths.Noise(0.01, 50.0),
    "flow": paths.Flow(0.005, 200.0),
    "linear": paths.DiscreteVP.linear(),
    "angle": paths.Angle(0.01, 100.0),
}


def start_of(path: paths.Path, sigma: float) -> float:
    """The scale with which a table begins where `sample` begins another method: its state there, on the angle path."""
    at = torch.tensor(sigma, dtype=torch.float64)
    return float(path.prior_std(at) * paths.angle.scale(at))


@pytest.mark.parametrize("path", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_ddim_as_a_table_is_ddim(path, dtype, bound):
    model = MIXTURE.denoiser(path)
    method = tables_for(model, FIVE, scale=start_of(path, FIVE[0]))
    found = sample(model, method, 5, range(4), labels=[0, 1, 2, 0], dtype=dtype)
    expected = sample(model, "ddim", grid=[*FIVE, 0.0], seeds=range(4), labels=[0, 1, 2, 0], dtype=dtype)
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=bound)
    assert torch.equal(found.sigmas, expected.sigmas)
    assert found.nfe.tolist() == expected.nfe.tolist() == [5] * 4
    assert found.steps.tolist() == [5] * 4


def test_and_on_the_network_that_ships():
    model = network()
    found = sample(model, tables_for(model), 5, range(3), labels=[3, 4, 5])
    expected = sample(model, "ddim", grid=[*FIVE, 0.0], seeds=range(3), labels=[3, 4, 5])
    torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-5)


def test_the_network_is_asked_for_what_the_table_says():
    """y_0 = s z and y_1 = a_0 z + c_00 D_0, at the table's own sigmas."""
    net, path = Recording(), paths.Noise(0.01, 50.0)
    model = Denoiser(net, path, "data", (2, 3))  # whose images are 0
    table = Table((10.0, 1.0), 0.5, (0.3, 0.7), ((5.0,), (6.0, 7.0)))
    z = seeded_noise([4], (2, 3))
    sol = sample(model, tabulated([table]), 2, [4], dtype=torch.float64)
    asked = [(x * float(paths.angle.scale(t.double()[0])), float(t[0])) for x, t in net.calls]
    torch.testing.assert_close(asked[0][0], 0.5 * z.double())
    torch.testing.assert_close(asked[1][0], 0.3 * z.double())
    assert [sigma for _, sigma in asked] == pytest.approx([10, 1])
    torch.testing.assert_close(sol.x, 0.7 * z.double())


def test_every_image_has_its_weight():
    model = replace(MIXTURE.denoiser(SCHEDULES["noise"]), path=paths.Noise(0.01, 50.0))
    table = Table((10.0, 2.0, 0.5), 0.9, (0.4, 0.2, 0.1), ((0.3,), (-0.2, 0.6), (0.1, -0.4, 1.2)))
    z = seeded_noise(range(2), MIXTURE.shape).double()
    y, images = 0.9 * z, []
    for n, sigma in enumerate(table.sigmas):
        images.append(model(y * (1 + sigma**2) ** 0.5, sigma, torch.tensor([0, 1])).data)
        y = table.noise[n] * z + sum(c * d for c, d in zip(table.data[n], images, strict=True))
    found = sample(model, tabulated([table]), 3, range(2), labels=[0, 1], dtype=torch.float64)
    torch.testing.assert_close(found.x, y)


@pytest.mark.parametrize(("guidance", "interval"), [(1.0, None), (2.0, None), (2.0, (0.5, 10.0))])
def test_what_is_counted_is_what_the_network_sees(guidance, interval):
    path = SCHEDULES["linear"]
    counting = Counting(MIXTURE.denoiser(path).net)
    model = Denoiser(counting, path, "noise", MIXTURE.shape, MIXTURE.num_classes)
    method = tables_for(model, guidance=guidance, guidance_range=interval)
    guided = Guided(model, guidance, interval or (0.0, torch.inf))
    for sigmas in (THREE, FIVE):
        cost, counting.rows = sum(guided.evaluations(sigma) for sigma in sigmas), 0
        sol = sample(model, method, cost, range(3), labels=1, guidance=guidance, guidance_range=interval)
        assert sol.nfe.tolist() == [cost] * 3
        assert counting.rows == 3 * cost
        assert sol.sigmas.tolist() == [*sigmas, 0.0]


def test_samples_do_not_know_their_companions():
    model = MIXTURE.denoiser(SCHEDULES["flow"])
    method = tables_for(model)
    together = sample(model, method, 3, range(5), dtype=torch.float64).x
    alone = sample(model, method, 3, [4], dtype=torch.float64).x
    torch.testing.assert_close(together[4:], alone, rtol=0, atol=1e-14)
    noise = seeded_noise(range(5), MIXTURE.shape)
    torch.testing.assert_close(sample(model, method, 3, noise=noise, dtype=torch.float64).x, together)


def test_gradients_lead_through_a_table():
    model = MIXTURE.denoiser(SCHEDULES["noise"])
    noise = seeded_noise([0], MIXTURE.shape).double().requires_grad_()
    found = sample(model, tables_for(model), 3, noise=noise, differentiable="direct", dtype=torch.float64).x
    (slope,) = torch.autograd.grad(found.sum(), noise)
    moved = sample(model, tables_for(model), 3, noise=noise.detach() + 1e-6, dtype=torch.float64).x
    assert float((moved - found.detach()).sum()) == pytest.approx(1e-6 * float(slope.sum()), rel=1e-4)


def test_tables_lie_in_the_order_of_what_they_cost():
    method = tabulated([ddim_table(FIVE), ddim_table(THREE)])
    assert [len(grid) for grid in method.grids] == [4, 6]
    assert "3, 5" in method.summary


def test_the_name_is_not_a_method_by_itself():
    assert "load_tuned" in one_line(MethodError, get_method, TUNED)


def test_names_of_methods():
    model = MIXTURE.denoiser(SCHEDULES["noise"])
    assert name_of(grids_for(model, "adams3")) == "adams3"
    assert name_of(tables_for(model)) is None
    assert tables_for(model).kind == grids_for(model).kind == "tuned"
