"""Conditions besides labels: handed over as keywords, cut with the batch, known to guidance, latents and studies."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from ddim_ode import METHODS, Denoiser, compare, decode, encode, interpolate, log_likelihood, paths, reconstruct, sample
from ddim_ode.errors import DDIMError
from ddim_ode.latents import Latent, LatentError
from ddim_ode.models.conditions import Conditions, digest, joined
from ddim_ode.models.guidance import Guided
from ddim_ode.models.networks import precision_of
from tests.helpers.assertions import one_line
from tests.helpers.conditional import SHAPE, WIDTH, means, model, towards


def test_samples_go_where_their_own_condition_says():
    mean = means(5)
    x = sample(model(), "adams3", 30, range(5), conditions={"mean": mean}, dtype=torch.float64).x
    noise = torch.stack([torch.randn(SHAPE, generator=torch.Generator().manual_seed(n)) for n in range(5)]).double()
    # The flow of N(m, s^2) is affine: xbar - m shrinks as sqrt(s^2 + sigma^2).
    exact = mean + (50.0 * noise - mean) * WIDTH / (WIDTH**2 + 50.0**2) ** 0.5
    assert (x - exact).abs().max() < 5e-3


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.per_sample])
def test_a_sample_is_the_same_in_any_batch(name):
    count, method = 9, METHODS[name]
    steering = {"tol": 0.02} if method.adaptive else {"nfe": 12}
    mean = means(count).float()
    everywhere = {"labels": torch.arange(count) % 3, "conditions": {"mean": mean}}
    together = sample(model(3), name, seeds=range(count), **everywhere, **steering)
    cut = sample(model(3), name, seeds=range(count), batch_size=2, **everywhere, **steering)
    alone = sample(model(3), name, seeds=[7], labels=[1], conditions={"mean": mean[7:8]}, **steering)
    assert torch.allclose(together.x, cut.x, atol=1e-6)
    assert torch.allclose(together.x[7:8], alone.x, atol=1e-6)
    assert torch.equal(together.nfe[7:8], alone.nfe)


def digests(count, batch_size):
    """Of each sample of the model."""
    mean = means(64)[:count].float()
    found = sample(model(), "ddim", 10, range(count), conditions={"mean": mean}, batch_size=batch_size)
    return [digest(x) for x in found.x]


def test_batches_of_1_7_and_64_and_another_process_give_the_same_bits():
    of_64 = digests(64, 64)
    assert digests(64, 7) == of_64
    assert digests(3, 1) == of_64[:3]
    code = "from tests.models.test_conditions import digests; print(*digests(64, 16))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == of_64


def test_finished_samples_take_their_conditions_along():
    # Widths that differ a hundredfold end at different times, so that the batch is compacted on the way.
    mean, width = means(6).float(), torch.tensor([0.005, 5.0, 0.05, 0.5, 0.005, 5.0])
    found = sample(model(), "adaptive", tol=0.01, seeds=range(6), conditions={"mean": mean, "width": width})
    assert len(set(found.nfe.tolist())) > 1
    for n in range(6):
        own = {"mean": mean[n : n + 1], "width": width[n : n + 1]}
        alone = sample(model(), "adaptive", tol=0.01, seeds=[n], conditions=own)
        assert torch.allclose(found.x[n], alone.x[0], atol=1e-6)


@pytest.mark.parametrize("null", [torch.zeros(SHAPE), torch.zeros(20, *SHAPE)], ids=["one for all", "one a sample"])
@pytest.mark.parametrize("count", [4, 20], ids=["one pass", "two passes"])
def test_guidance_pushes_away_from_the_null_value(null, count):
    null = null if null.ndim == 1 else null[:count]
    mean, xbar = means(count).float(), means(count, 1).float()
    told = Conditions(None, {"mean": mean}, {"mean": null})
    one, other = model()(xbar, 2.0, told), model()(xbar, 2.0, Conditions(None, {"mean": torch.zeros_like(mean)}))
    found = Guided(model(), 3.0)(xbar, 2.0, told)
    assert torch.allclose(found.data, other.data + 3 * (one.data - other.data), atol=1e-6)
    assert found.evaluations == 2


@pytest.mark.parametrize("labelled", [True, False])
def test_guidance_around_guidance_is_the_same_in_any_batch(labelled):
    mean, xbar = means(17).float(), means(17, 1).float()
    labels = torch.arange(17) % 3 if labelled else None
    around = Guided(Guided(model(3), 2.0), 3.0)
    told = Conditions(labels, {"mean": mean}, {"mean": torch.zeros(SHAPE)})
    assert torch.allclose(around(xbar, 2.0, told).data[:16], around(xbar[:16], 2.0, told[:16]).data, atol=1e-6)


def test_a_null_value_for_all_is_one_a_sample():
    told = Conditions(None, {"mean": means(4)}, {"mean": torch.zeros(SHAPE)})
    each = Conditions(None, {"mean": means(4)}, {"mean": torch.zeros(4, *SHAPE)})
    assert told.null["mean"].shape == (4, *SHAPE)
    assert told.digests() == each.digests()


def test_a_condition_without_a_null_value_is_told_to_both_passes():
    mean, xbar, labels = means(4).float(), means(4, 1).float(), torch.tensor([0, 1, 2, 0])
    found = Guided(model(3), 2.0)(xbar, 2.0, Conditions(labels, {"mean": mean}))
    one = model(3)(xbar, 2.0, Conditions(labels, {"mean": mean}))
    other = model(3)(xbar, 2.0, Conditions(torch.full((4,), 3), {"mean": mean}))
    assert torch.allclose(found.data, other.data + 2 * (one.data - other.data), atol=1e-6)


def test_guidance_by_options_is_guidance_by_hand():
    mean = means(3).float()
    conditions, null = {"mean": mean}, {"mean": torch.zeros(SHAPE)}
    by_options = sample(model(), "ddim", 12, range(3), conditions=conditions, null=null, guidance=2.0)
    by_hand = sample(Guided(model(), 2.0), "ddim", 12, range(3), conditions=conditions, null=null)
    assert torch.equal(by_options.x, by_hand.x)
    assert by_options.nfe.tolist() == [12] * 3


def test_encode_and_decode_are_told_the_same():
    mean, x = means(5).float().clamp(-1, 1), means(5, 1).float().clamp(-1, 1)
    found = reconstruct(model(), x, nfe=20, conditions={"mean": mean}, batch_size=2)
    assert found.bit_exact.all()
    assert torch.equal(found.latent.conditions.tensors["mean"], mean)
    assert not torch.equal(encode(model(), x, nfe=20, conditions={"mean": -mean}).noise, found.latent.noise)


def test_a_latent_of_a_file_wants_its_conditions_again(tmp_path):
    mean, x, file = means(4).float(), means(4, 1).float().clamp(-1, 1), tmp_path / "z.safetensors"
    latent = encode(model(), x, nfe=20, conditions={"mean": mean})
    latent.save(file)
    stored = Latent.load(file)
    assert stored.conditions is None
    assert stored.digests.keys() == {"mean"}
    assert "give them again" in one_line(LatentError, decode, model(), stored)
    assert "give them again" in one_line(LatentError, lambda: stored[:2])
    other = one_line(LatentError, lambda: decode(model(), stored, conditions={"mean": mean + 1}))
    assert "had another conditions['mean']" in other
    assert "needs conditions['mean']" in one_line(LatentError, lambda: decode(model(), stored, conditions={"w": mean}))
    with_null = encode(model(), x, nfe=20, conditions={"mean": mean}, null={"mean": torch.zeros(SHAPE)})
    assert "needs null['mean']" in one_line(LatentError, lambda: with_null.under({"mean": mean}))
    assert "there are none" in one_line(DDIMError, lambda: decode(model(), latent, null={"mean": mean}))
    assert torch.equal(decode(model(), stored, conditions={"mean": mean}).x, x)
    assert torch.equal(decode(model(), latent[1:3]).x, decode(model(), stored.under({"mean": mean})[1:3]).x)


def test_a_latent_without_conditions_is_stored_as_it_was(tmp_path):
    net = Denoiser(lambda x, t: towards(x, t, mean=0), paths.Noise(0.01, 50.0), "data", SHAPE)
    encode(net, means(2).float(), nfe=20).save(tmp_path / "z.safetensors")
    assert b"conditions" not in (tmp_path / "z.safetensors").read_bytes()


def test_another_condition_edits_a_latent():
    mean, x = means(4).float(), means(4, 1).float().clamp(-1, 1)
    latent = encode(model(), x, "exact_heun", 60, conditions={"mean": mean})
    edited = decode(model(), replace(latent, conditions=Conditions(None, {"mean": mean + 0.5})))
    assert torch.allclose(edited.x, x + 0.5, atol=0.02)  # the flow of N(m, s^2) is that of N(0, s^2) about m


def test_likelihood_is_that_of_the_condition():
    mean, x = means(6), means(6, 1) * WIDTH
    wide = model(sigma_max=5000.0)  # where the prior's mean, 0, is that of every condition
    found = log_likelihood(wide, x + mean, conditions={"mean": mean}, trace="exact", tol=1e-6, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, (WIDTH**2 + 0.01**2) ** 0.5)
    assert torch.allclose(found.nats, normal.log_prob(x).sum(1), atol=2e-3)


def test_interpolation_takes_a_condition_a_frame():
    ends = means(2).float()
    mean = torch.linspace(-1, 1, 5)[:, None].expand(5, *SHAPE)
    found = interpolate(model(), ends, 5, method="adams3", nfe=30, conditions={"mean": mean})
    assert (found.x.mean(1).diff() > 0).all()
    assert "are 4, for 5 samples" in one_line(
        DDIMError, lambda: interpolate(model(), ends, 5, conditions={"mean": mean[:4]})
    )


def test_a_study_remembers_its_conditions(tmp_path):
    asked = {"methods": ["ddim"], "nfe": [5], "seeds": range(4), "out": tmp_path}
    found = compare(model(), **asked, conditions={"mean": means(4)})
    assert found.settings.conditions.keys() == {"mean"}
    assert found.rows[0].status == "done"
    compare(model(), **asked, conditions={"mean": means(4)})
    text = one_line(DDIMError, lambda: compare(model(), **asked, conditions={"mean": means(4) + 1}))
    assert "belongs to another study: its conditions is" in text


class Doubling(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3, dtype=torch.bfloat16)
        self.seen = None

    def forward(self, x, t, *, image, token):
        self.seen = image.dtype, token.dtype
        return self.layer(x) + image


def test_floats_come_in_the_networks_precision_and_whole_numbers_as_they_are():
    net = Doubling()
    found = Denoiser(net, paths.Noise(0.01, 50.0), "data", SHAPE)
    found(means(2).float(), 1.0, Conditions(None, {"image": means(2), "token": torch.tensor([1, 2])}))
    assert net.seen == (precision_of(net), torch.int64)


@pytest.mark.parametrize("make", ["from_edm", "from_k_diffusion", "from_v", "from_flow"])
def test_networks_of_other_conventions_are_told_too(make):
    seen = []

    def net(x, u, *args, **told):
        seen.append(told)
        return 0 * x

    ends = {"sigma_min": 0.01, "sigma_max": 50.0} if make in ("from_edm", "from_k_diffusion") else {}
    wrapped = getattr(Denoiser, make)(net, shape=SHAPE, **ends)
    sample(wrapped, "ddim", 3, range(2), conditions={"mean": means(2).float()})
    assert all(told.keys() == {"mean"} for told in seen)


def test_joined_batches_are_told_each_their_own():
    one = Conditions(torch.tensor([0]), {"mean": means(1)})
    two = joined([one, Conditions(torch.tensor([1, 2]), {"mean": means(2, 1)})])
    assert two.labels.tolist() == [0, 1, 2]
    assert torch.equal(two.tensors["mean"], torch.cat([means(1), means(2, 1)]))
    assert joined([None, None]) is None
