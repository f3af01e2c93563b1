"""Between latents: along the great circle, both ends included."""

import math

import pytest
import torch

from ddim_ode import paths
from ddim_ode.interpolation import between, interpolate, slerp
from ddim_ode.inversion import encode
from ddim_ode.planning.inputs import SampleError, seeded_noise
from ddim_ode.sampling import sample
from tests.helpers.assertions import one_line
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal

MODEL = labelled().denoiser(paths.Flow(0.02, 60.0))


def test_the_ends_and_the_middle_of_a_quarter_circle():
    x, y = f64([1.0, 0.0]), f64([0.0, 1.0])
    found = slerp(x, y, [0.0, 1 / 3, 0.5, 1.0])
    half = math.sqrt(0.5)
    expected = f64([[1, 0], [math.cos(math.pi / 6), 0.5], [half, half], [0, 1]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    assert slerp(x, y, 0.5).shape == (2,)


def test_between_normals_is_a_normal():
    z0, z1 = normal(3, 40, 40, seed=0), normal(3, 40, 40, seed=1)
    assert slerp(z0, z1, torch.linspace(0, 1, 9)).flatten(1).std(1).sub(1).abs().max() < 0.05
    assert torch.lerp(z0, z1, 0.5).std() < 0.75


def test_what_points_the_same_way_is_joined_by_a_line():
    z = normal(2, 3, seed=0)
    torch.testing.assert_close(slerp(z, 3 * z, 0.5), 2 * z)
    torch.testing.assert_close(slerp(z, z, [0.2, 0.9]), torch.stack([z, z]))


def test_a_row_of_frames_and_a_square():
    ends = normal(4, 2, 3, seed=0)
    row = between(ends[:2], 5)
    assert row.shape == (5, 2, 3)
    torch.testing.assert_close(row[[0, 4]], ends[:2])
    square = between(ends, 5)
    assert square.shape == (25, 2, 3)
    torch.testing.assert_close(square[[0, 4, 20, 24]], ends)
    torch.testing.assert_close(square[:5], slerp(ends[0], ends[1], torch.linspace(0, 1, 5, dtype=torch.float64)))
    torch.testing.assert_close(square[::5], slerp(ends[0], ends[2], torch.linspace(0, 1, 5, dtype=torch.float64)))


def test_frames_are_samples_whose_ends_are_the_seeds_own():
    ends = seeded_noise([3, 8], MODEL.shape)
    found = interpolate(MODEL, ends, 6, method="adams3", nfe=8, labels=1)
    assert found.x.shape == (6, 2, 3)
    own = sample(MODEL, "adams3", nfe=8, seeds=[3, 8], labels=1)
    torch.testing.assert_close(found.x[[0, 5]], own.x)


def test_a_latent_is_as_good_as_its_noise():
    latent = encode(MODEL, normal(2, 2, 3, seed=0), nfe=6)
    found, own = (interpolate(MODEL, ends, 3, nfe=6).x for ends in (latent, latent.noise))
    assert torch.equal(found, own)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda z: slerp(z[0], z[0, :1], 0.5), "latents of shapes (2, 3) and (1, 3) have nothing in between"),
        (lambda z: slerp(z[0], z[0] * math.nan, 0.5), "the latents are not finite floats"),
        (lambda z: slerp(z[0].long(), z[0].long(), 0.5), "the latents are not finite floats"),
        (lambda z: slerp(z[0], -z[0], 0.5), "the latents point in opposite directions"),
        (lambda z: between(z[:3]), "3 latents have no in-between; give 2 for a row of frames, or 4 for a square"),
        (lambda z: between(z[:2], 1), "frames=1 leaves one end out; use frames >= 2"),
        (lambda z: between(z[:2], 2.5), "frames=2.5 must be a whole number >= 1"),
    ],
)
def test_what_cannot_be_is_one_line(call, line):
    assert line in one_line(SampleError, call, normal(4, 2, 3, seed=0))


Z = torch.ones(4, 3)


@pytest.mark.parametrize(
    "call",
    [
        *(
            lambda ends=ends: between(ends)
            for ends in ("x", None, 3, [Z, Z], torch.tensor(1.0), Z[:2].long(), Z[:2] + 0j)
        ),
        lambda: between(Z[:2].to("meta")),
        *(lambda n=n: between(Z[:2], n) for n in (2.5, "x", True, None, 2**32, 10**30, -1)),
        lambda: between(Z[:2], 10**400),
        lambda: between(Z, 2**20),
        lambda: between(Z[:1].expand(2, 3)[..., None].expand(2, 3, 10**12)),
        *(
            lambda w=w: slerp(Z[0], Z[1], w)
            for w in ("x", None, math.nan, [0.5, math.inf], 1j, [True], object(), ["a"])
        ),
        lambda: slerp(Z[0], Z[1].to("meta"), 0.5),
        lambda: slerp([1.0], [2.0], 0.5),
        lambda: slerp(Z[0], Z[1], range(10**12)),
    ],
)
def test_what_has_no_in_between_is_refused_at_once(call):
    with pytest.raises(SampleError) as caught:
        call()
    assert "\n" not in str(caught.value)
