"""`tune`: what it returns, keeps, counts and refuses."""

import json
from pathlib import Path

import pytest
import torch

import ddim_ode
from ddim_ode import METHODS, Denoiser, Guided, load_tuned, sample, tune
from ddim_ode.paths import Noise
from ddim_ode.solvers.origin import Errors
from ddim_ode.support.files import OutputError
from ddim_ode.tuning import TuneError, TuneProgress
from tests.helpers.mixtures import labelled
from tests.helpers.networks import Counting, tiny_unet

PATH = Noise(0.01, 50.0)
MIXTURE = labelled(shape=(1, 4, 4), components=12)
FEW = {"seeds": range(1000, 1016), "held_out": range(16)}


@pytest.fixture(scope="module")
def model() -> Denoiser:
    return MIXTURE.denoiser(PATH)


@pytest.fixture(scope="module")
def tuned(model):
    return tune(model, (4, 6), **FEW)


def missed(model, x, **options) -> torch.Tensor:
    exact = sample(model, "adaptive", tol=1e-5, dtype=torch.float64, **options).x
    return (x - exact).flatten(1).square().mean(1).sqrt()


def test_on_seeds_that_it_has_not_seen_it_misses_less_than_others(model, tuned):
    fresh = {"seeds": range(300, 332), "labels": torch.arange(32) % 3}
    for nfe in (4, 6):
        found = sample(model, tuned, nfe=nfe, **fresh)
        assert found.nfe.eq(nfe).all()
        others = [sample(model, name, nfe=nfe, **fresh).x for name in ("unipc_2", "dpmpp_2m", "adams3")]
        ours, least = missed(model, found.x, **fresh).median(), min(missed(model, x, **fresh).median() for x in others)
        assert ours < 0.6 * least


def test_its_results_are_what_it_misses(model, tuned):
    held = {"seeds": range(16), "labels": torch.arange(16) % 3}
    for result in tuned.origin.results:
        own = missed(model, sample(model, tuned, nfe=result.predictions, dtype=torch.float64, **held).x, **held)
        assert result.errors.median == pytest.approx(float(own.median()), rel=0.02)
        assert result.errors.rms == pytest.approx(float(own.square().mean().sqrt()), rel=0.02)
        for name, errors in result.others:
            x = sample(model, name, nfe=result.predictions, dtype=torch.float64, **held).x
            assert errors.median == pytest.approx(float(missed(model, x, **held).median()), rel=0.02)


def test_evaluations_are_those_that_the_network_has_made(model):
    net = Counting(model.net)
    counted = Denoiser(net, PATH, "noise", model.shape, model.num_classes, dtype=torch.float64)
    told: list[TuneProgress] = []
    method = tune(counted, 4, callback=told.append, **FEW)
    assert method.origin is not None
    done = [progress for progress in told if progress.doing == "done"]
    assert [progress.nfe for progress in done] == [0, 4]
    assert done[1].evaluations == method.origin.results[0].evaluations
    judged = net.rows - done[0].evaluations - done[1].evaluations
    others = 16 * (4 + 4) + 8 * 4 * 20  # unipc_2, adaptive, and its search for a tolerance on eight samples
    assert 2 * 4 * 16 < judged < 2 * 4 * 16 + others


def test_the_same_is_found_again_to_the_last_bit(model, tuned):
    again = tune(model, (4, 6), **FEW)
    assert again == tuned


def test_what_a_file_holds_is_not_tuned_again(model, tmp_path, monkeypatch):
    file = tmp_path / "new" / "tuned.json"
    first = tune(model, 4, out=file, refine=False, **FEW)
    assert load_tuned(file) == first
    told: list[TuneProgress] = []
    both = tune(model, (4, 5), out=file, refine=False, callback=told.append, **FEW)
    assert {progress.nfe for progress in told} == {0, 5}
    assert load_tuned(file) == both
    assert both.solver.tables[0] == first.solver.tables[0]
    told.clear()
    assert tune(model, (5, 4), out=file, refine=False, callback=told.append, **FEW) == both
    assert told == []


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": range(2000, 2016)},
        {"guidance": 2.0},
        {"grid_only": "adams3"},
        {"labels": None},
        {"labels": 1},
        {"refine": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_file_of_another_tuning_is_left_alone(model, tmp_path, changes):
    file = tmp_path / "tuned.json"
    asked = FEW | {"refine": False}
    tune(model, 6, out=file, **asked)
    before = file.read_bytes()
    with pytest.raises(TuneError, match="choose another file"):
        tune(model, 6, out=file, **(asked | changes))
    assert file.read_bytes() == before


def test_guidance_is_counted_and_held_to(model):
    method = tune(model, 8, guidance=2.0, refine=False, **FEW)
    assert method.origin.results[0].predictions == 4
    found = sample(model, method, nfe=8, guidance=2.0, labels=1)
    assert found.nfe.tolist() == [8]
    with pytest.raises(ddim_ode.DDIMError, match="guidance=2"):
        sample(model, method, nfe=8, labels=1)
    around = tune(Guided(model, 2.0), 8, refine=False, **FEW)
    assert around.solver == method.solver
    assert around.origin == method.origin


def test_a_grid_alone_also_encodes(model):
    method = tune(model, (6, 8), grid_only="adams3", **FEW)
    assert (method.solver, method.path) == (METHODS["adams3"].solver, METHODS["adams3"].path)
    for result in method.origin.results:
        assert result.errors.median < dict(result.others)["unipc_2"].median
    x = sample(model, method, nfe=6, seeds=range(2), labels=0)
    assert x.nfe.tolist() == [6, 6]
    latent = ddim_ode.encode(model, x.x, method, nfe=8, labels=0)
    assert latent.nfe.le(8).all()


def test_a_method_of_several_evaluations_a_step_has_its_grid_tuned(model):
    method = tune(model, 9, grid_only="rk4", refine=False, **FEW)
    assert len(method.grids[0]) == 4
    assert method.origin.results[0].predictions == 9


def test_what_refining_does_not_better_on_both_stays_as_it_was(model, monkeypatch):
    monkeypatch.setattr(
        "ddim_ode.tuning.task.refine",
        lambda asked, begin, *rest: begin.moved(begin.vector() * 1.05, asked.low, asked.high),
    )
    kept, plain = tune(model, 4, **FEW), tune(model, 4, refine=False, **FEW)
    assert kept.solver == plain.solver
    assert not kept.origin.results[0].refined


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nfe": ()}, "budgets"),
        ({"nfe": 1}, "2 or more"),
        ({"nfe": "many"}, "nfe="),
        ({"nfe": 101}, "101"),
        ({"seeds": [5] * 20}, "1 different"),
        ({"held_out": range(1015, 1020)}, "held_out has 1015"),
        ({"labels": "all"}, "'each'"),
        ({"labels": 3.5}, "labels="),
        ({"labels": [0, 3.5]}, "whole numbers"),
        ({"labels": []}, "labels="),
        ({"labels": ["a"]}, "whole numbers"),
        ({"labels": 7}, "label 7"),
        ({"grid_only": METHODS["adams3"]}, "grid_only"),
        ({"grid_only": "adaptive"}, "adams3"),
        ({"grid_only": "leapfrog"}, "adams3"),
        ({"grid_only": "nonsense"}, "nonsense"),
        ({"budget": 0}, "budget=0"),
        ({"guidance": float("nan")}, "guidance=nan"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"callback": 3}, "callback"),
    ],
)
def test_what_cannot_be_is_one_line_before_any_work(model, options, words):
    net = Counting(model.net)
    counted = Denoiser(net, PATH, "noise", model.shape, model.num_classes, dtype=torch.float64)
    with pytest.raises(ddim_ode.DDIMError, match=words) as error:
        tune(counted, **(FEW | options))
    assert "\n" not in str(error.value)
    assert net.rows == 0


def test_a_place_that_cannot_be_written_is_found_out_at_once(model, tmp_path):
    (tmp_path / "file").touch()
    net = Counting(model.net)
    counted = Denoiser(net, PATH, "noise", model.shape, model.num_classes, dtype=torch.float64)
    with pytest.raises(OutputError, match="cannot be written"):
        tune(counted, 4, out=tmp_path / "file" / "tuned.json", **FEW)
    assert net.rows == 0


def test_a_network_in_bfloat16_is_not_refined():
    net = tiny_unet().to(torch.bfloat16)
    model = Denoiser(net, PATH, "noise", (1, 8, 8), 3)
    with pytest.raises(TuneError, match="bfloat16"):
        tune(model, 4, **FEW)


def test_a_range_without_end_is_refused():
    with pytest.raises(TuneError, match="finite range"):
        tune(MIXTURE.denoiser(Noise()), 4, **FEW)


@pytest.mark.parametrize(("name", "rival"), [("fashion", "adaptive"), ("emoji", "unipc_2")])
def test_the_bundled_tables_are_what_the_card_says(name, rival):
    """At 5 evaluations at most half of what another method misses, on seeds that were not tuned on."""
    model = ddim_ode.load(name)
    fresh = {"seeds": range(7000, 7010), "labels": torch.arange(10)}
    exact = sample(model, "adaptive", tol=3e-3, dtype=torch.float64, **fresh).x
    ours, others = (
        (sample(model, method, nfe=5, **fresh).x - exact).flatten(1).square().mean(1).sqrt().median()
        for method in ("tuned", rival)
    )
    assert ours < others / 2


@pytest.mark.parametrize(("name", "budgets"), [("fashion", [4, 5, 6, 8, 10, 20]), ("emoji", [4, 5, 6, 8])])
def test_the_bundled_file_says_what_was_held_out(name, budgets):
    file = Path(ddim_ode.__file__).parent / "assets" / name / "tuned.json"
    told = json.loads(file.read_text())
    assert (told["seeds"], told["held_out"]) == ("1000-1047", "0-63")
    assert [table["predictions"] for table in told["tables"]] == budgets
    found = load_tuned(file).origin
    assert found is not None
    for result in found.results:
        assert isinstance(result.errors, Errors)
        assert all(result.errors.median < other.median and result.errors.rms < other.rms for _, other in result.others)


@pytest.mark.parametrize("size", [1e-2, 1.0, 30.0])
def test_it_serves_data_of_any_size(size):
    """The same mixture in other units, its model's range of sigma with it; errors are in those units."""
    mixture = ddim_ode.GaussianMixture(size * MIXTURE.means, size * MIXTURE.stds, MIXTURE.weights, MIXTURE.labels)
    model = mixture.denoiser(Noise(0.01 * size, 50.0 * size))
    method = tune(model, 5, **FEW)
    assert method.origin.results[0].errors.median < 0.012 * size


def test_guidance_in_an_interval_keeps_to_the_budget(model):
    for interval, nfe in [((0.5, 5.0), 5), ((0.5, 5.0), 8), ((0.0, 0.3), 10)]:
        method = tune(model, nfe, guidance=2.0, guidance_range=interval, refine=False, **FEW)
        found = sample(model, method, nfe=nfe, guidance=2.0, guidance_range=interval, labels=1)
        assert int(found.nfe) <= nfe


def test_samples_may_be_scalars():
    scalars = ddim_ode.GaussianMixture(torch.tensor([[-1.0], [0.6]]), [0.2, 0.3])
    inner = scalars.denoiser(PATH)
    model = Denoiser(lambda x, t: inner.net(x[:, None], t)[:, 0], PATH, "noise", (), dtype=torch.float64)
    method = tune(model, 4, seeds=range(1000, 1048), held_out=range(16))
    assert sample(model, method, nfe=4, seeds=range(3)).x.shape == (3,)


def test_a_network_in_training_weights_leaves_no_graph(recwarn):
    net = tiny_unet(num_classes=0).requires_grad_(True)
    tune(Denoiser(net, PATH, "noise", (1, 8, 8)), 3, refine=False, **FEW)
    assert not [str(w.message) for w in recwarn if "requires_grad" in str(w.message)]


def test_labels_of_a_model_without_classes_are_refused():
    model = ddim_ode.GaussianMixture(MIXTURE.means, 0.2).denoiser(PATH)
    with pytest.raises(ddim_ode.DDIMError, match="no classes"):
        tune(model, 4, labels=7, **FEW)
