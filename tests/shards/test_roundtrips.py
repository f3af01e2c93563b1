"""Images to latents and back, by shards: the numbers of one call over all images, of several methods in turn."""

import pytest
import torch

from ddim_ode.inversion import reconstruct
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.planning.inputs import SampleError
from ddim_ode.shards import roundtrips
from ddim_ode.shards.measuring import Watched
from ddim_ode.shards.roundtrips import EACH, reconstruct_shards, round_trips
from ddim_ode.solvers import MethodError
from ddim_ode.support.files import OutputError
from ddim_ode.support.process import computing
from ddim_ode.support.processes import ProcessError
from ddim_ode.support.resources import check_memory
from tests.helpers.assertions import one_line
from tests.helpers.networks import random_network

TOTAL, BATCH = 40, 32  # two shards, the last of eight images
IMAGES = torch.randint(256, (TOTAL, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
LABELS = torch.arange(TOTAL) % 3


METHODS = {"exact_heun": {"nfe": 4}, "ddim": {"nfe": 4}, "adaptive": {"tol": 5.0}}


def test_the_numbers_are_those_of_one_call(tmp_path):
    model, tried = random_network(), {"methods": list(METHODS), "guidances": [1, 2.0], "nfe": 4, "tol": 5.0}
    kept = (None, tmp_path, tmp_path)
    runs = [reconstruct_shards(model, IMAGES, keep, labels=LABELS, batch_size=BATCH, **tried) for keep in kept]
    names = [f"{method}{end}" for method in METHODS for end in ("", "_guidance_2")]
    assert [[each.name for each in found] for found in runs] == [names] * 3
    for trips in zip(*runs, strict=True):
        how = {"guidance": trips[0].guidance, "labels": LABELS, "batch_size": BATCH, **METHODS[trips[0].method]}
        with computing(1):
            expected = reconstruct(model, IMAGES, trips[0].method, **how)
        for each in trips:
            assert each.error is None
            for name in EACH:
                assert each.each[name].numpy().tobytes() == getattr(expected, name).numpy().tobytes()
            assert torch.equal(each.each["nfe_up"], expected.latent.nfe)
            assert torch.equal(each.each["nfe_down"], expected.solution.nfe)


def test_a_summary_is_over_all_values():
    model = random_network()
    found = reconstruct_shards(model, IMAGES, methods=["ddim"], nfe=4, batch_size=BATCH)[0].summary()
    with computing(1):
        whole = reconstruct(model, IMAGES, "ddim", 4, batch_size=BATCH)
    z, error = whole.latent.noise.double(), whole.solution.x.double() - whole.x.double()
    assert (found["count"], found["bit_exact"]) == (TOTAL, 0)
    assert found["latent_mean"] == pytest.approx(float(z.mean()), rel=1e-9)
    assert found["latent_std"] == pytest.approx(float(z.std(correction=0)), rel=1e-9)
    assert found["max_error"] == float(error.abs().max())
    assert found["rms"] == pytest.approx(float(error.square().mean().sqrt()))
    assert found["psnr"] == pytest.approx(-10 * float((error / 2).square().mean().log10()))


def test_one_sample_at_a_time():
    model = random_network()
    found = reconstruct_shards(model, IMAGES[:3], methods=["leapfrog"], nfe=3, deterministic=True)[0]
    with computing(1):
        expected = reconstruct(model, IMAGES[:3], "leapfrog", 3, deterministic=True)
    assert torch.equal(found.each["latent_std"], expected.latent_std)
    assert found.each["bit_exact"].all()


def test_a_method_that_fails_does_not_end_the_others(tmp_path):
    model = random_network()
    found = reconstruct_shards(model, IMAGES, tmp_path, methods=["rk4", "ddim"], nfe=3, batch_size=BATCH)
    assert "nfe=3 is too small" in found[0].error
    assert found[0].summary() == found[0].details()
    assert found[1].summary()["count"] == TOTAL
    line = one_line(SampleError, reconstruct_shards, model, IMAGES, tmp_path / "new", methods=["rk4"], nfe=3)
    assert "nfe=3 is too small" in line


def test_an_image_at_which_a_method_fails_has_its_number_in_the_set():
    broken = Denoiser(lambda x, t: torch.where(x > 0, torch.nan, 0.0), random_network().path, "noise", (4,))
    x = -torch.ones(40, 4)
    x[35] = 1
    trips, failure = round_trips(broken, x[32:], "ddim", nfe=3, first=32)
    assert trips.error == str(failure)
    assert "for sample 35 in step 1" in trips.error


def test_a_process_that_has_lost_the_others_is_no_failure_of_a_method():
    def lost(done):
        if done > 0:
            raise ProcessError("the launcher is gone")

    with pytest.raises(ProcessError, match="the launcher is gone"):
        reconstruct_shards(random_network(), IMAGES, methods=["ddim", "heun"], nfe=4, watched=Watched(done=lost))


def test_a_failure_that_passes_is_not_kept(tmp_path, monkeypatch):
    model, how = random_network(), {"methods": ["ddim", "exact_heun"], "nfe": 4, "batch_size": BATCH}

    def scarce(*args, **options):
        check_memory(10**15, "x", "use a smaller batch_size", SampleError)

    with monkeypatch.context() as patched:
        patched.setattr(roundtrips, "reconstruct", scarce)
        assert "x would take" in one_line(SampleError, reconstruct_shards, model, IMAGES, tmp_path, **how)
    found = reconstruct_shards(model, IMAGES, tmp_path, **how)
    assert [each.error for each in found] == [None, None]


def test_what_cannot_be_is_one_line(tmp_path):
    model, how = random_network(), {"nfe": 3, "batch_size": BATCH}
    reconstruct_shards(model, IMAGES, tmp_path, methods=["ddim"], **how)
    line = one_line(OutputError, reconstruct_shards, model, IMAGES, tmp_path, methods=["leapfrog"], **how)
    assert 'its methods is ["ddim"], not ["leapfrog"]' in line
    line = one_line(OutputError, reconstruct_shards, model, IMAGES, tmp_path, methods=["ddim"], guidances=[3], **how)
    assert "its guidances is [1.0], not [3.0]" in line
    assert "unknown method 'dim'" in one_line(MethodError, reconstruct_shards, model, IMAGES, methods=["dim"])
    assert "give at least one" in one_line(SampleError, reconstruct_shards, model, IMAGES, methods=[])
    assert "twice" in one_line(SampleError, reconstruct_shards, model, IMAGES, methods=["ddim", "ddim"])
    assert "unknown option 'steps'" in one_line(SampleError, reconstruct_shards, model, IMAGES, steps=3)
