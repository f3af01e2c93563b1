"""Our methods as the scheduler of every pipeline of the zoo: its own image, and adaptive steps."""

from typing import Any, NamedTuple

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from ddim_ode.integrations.diffusers import ODEScheduler
from ddim_ode.integrations.handed import SpentWarning
from tests.helpers.assertions import one_line
from tests.helpers.pipelines import ZOO
from tests.helpers.pipelines.driving import Counted, counterpart, run
from tests.helpers.pipelines.refusals import ADAPTIVE, SCHEDULERS, STEPPED
from tests.helpers.pipelines.tiny import WARNINGS, Tiny

pytestmark = [pytest.mark.filterwarnings(f"ignore:{words}") for words in WARNINGS]

# It divides 1000: diffusers' DDIMScheduler steps from t to t - 1000 // n, which for other n is not the next of its
# timesteps where their spacing is "trailing".
STEPS = 5
MOST, TOL = 300, 0.02

#: whose own schedulers draw noise, or are none of our methods: there is no image to compare with
OTHERS = [
    "sd_euler_ancestral",
    "sd_lcm",
    "sd_pix2pix",
    "stable_audio",
    "kandinsky22",
    "kandinsky22_prior",
    "kandinsky3",
    "if_first",
    "if_second",
    "sdxl_turbo",
    "sd_kdpm2",
    "sd_single",
    "sd_sde",
    "sd_sa",
    "sd_tcd",
    "sdxl_lcm",
    "flux_stochastic",
    "ddpm",
    "ddpm_cosine",
    "hunyuan_dit",
    "stable_audio3_distilled",
    "cogvideox_dpm",
]

MIDDLE = ("sd_img2img",)  # it begins where no step of PLMS does, the own method of its scheduler

ROOM: dict[str, float] = {
    "sd_lms": 2e-3,  # diffusers integrates LMS's polynomials numerically, to a relative error of 1e-4
    # Two networks whose answers change by much more than their input: single precision itself leaves that.
    "kandinsky5": 1e-3,
    "kandinsky5_video": 1e-3,
}

#: random networks that change too fast for any tolerance: a fine run does not converge either
ROUGH = ["chroma", "chroma_img2img", "z_image", "z_image_img2img", "kandinsky5", "kandinsky5_video", "prx", "krea2"]


SLOW = ("kandinsky3", "kandinsky22", "if_second", "text_to_video")  # many calls, or large ones

#: guided otherwise from a certain number of the step on, which says nothing where steps are chosen on the way
BY_NUMBER = ("sd3_skip_layers",)


def relative(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def ours(tiny: Tiny, method: str, **options: Any) -> ODEScheduler:
    return ODEScheduler.from_scheduler(tiny.pipe.scheduler, method=method, **options)


class Calls(NamedTuple):
    """Of a pipeline's networks: made, and answered by the scheduler, which is one for every two under guidance, say."""

    made: int
    answered: int
    converged: bool | None


def counted_run(tiny: Tiny, method: str, most: int, **options: Any) -> tuple[Tensor, Calls]:
    scheduler = ours(tiny, method, **options)
    with Counted(tiny) as counted:
        x = run(tiny, scheduler, most)
    answered = scheduler.step_index - (scheduler.begin_index or 0)
    return x, Calls(counted.calls, answered, scheduler.converged)


# --- its own image


@pytest.mark.parametrize("name", [name for name in ZOO if name not in {*SCHEDULERS, *STEPPED, *OTHERS, *MIDDLE}])
def test_the_method_of_the_own_scheduler_makes_its_image(name):
    tiny = ZOO[name]()
    if name == "skyreels_forcing":
        # diffusers' UniPC remembers the last sample as a view of what this pipeline overwrites, and corrects that.
        tiny.pipe.scheduler = DPMSolverMultistepScheduler.from_config(tiny.pipe.scheduler.config)
    found = counterpart(tiny.pipe.scheduler, STEPS)
    assert found is not None
    method, calls = found
    own = run(tiny, tiny.pipe.scheduler, STEPS)
    assert relative(run(tiny, ours(tiny, method), calls), own) < ROOM.get(name, 1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_beside_a_scheduler_that_draws_noise_ours_does_not(name):
    tiny = ZOO[name]()
    assert counterpart(tiny.pipe.scheduler, STEPS) is None
    x = run(tiny, ours(tiny, "ddim"), STEPS)
    assert x.isfinite().all()
    assert torch.equal(x, run(tiny, ours(tiny, "ddim"), STEPS))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_another_process_are_refused(name):
    assert SCHEDULERS[name] in one_line(ValueError, ours, ZOO[name](), "ddim")


@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("method", ["ddim", "adaptive"])
def test_pipelines_that_a_scheduler_cannot_serve_are_refused(name, method):
    tiny, (error, words) = ZOO[name](), STEPPED[name]
    assert words in one_line(error, run, tiny, ours(tiny, method), STEPS)


@pytest.mark.parametrize("name", MIDDLE)
def test_a_method_with_a_start_of_its_own_does_not_begin_in_the_middle(name):
    tiny = ZOO[name]()
    method, calls = counterpart(tiny.pipe.scheduler, STEPS)
    assert "no step of 'plms' begins at timesteps[2]" in one_line(ValueError, run, tiny, ours(tiny, method), calls)


# --- adaptive


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in ZOO
        if name not in {*SCHEDULERS, *STEPPED, *ADAPTIVE, *ROUGH}
    ],
)
def test_adaptive_steps_keep_to_the_tolerance_and_waste_no_call(name):
    tiny = ZOO[name]()
    _, each = counted_run(tiny, "euler", STEPS)
    found, calls = counted_run(tiny, "adaptive", MOST, tol=TOL)
    assert calls.converged
    assert calls.answered <= 80
    fine, of_fine = counted_run(tiny, "adaptive", MOST, tol=TOL / 20)
    assert of_fine.answered > calls.answered
    if name not in BY_NUMBER:
        assert calls.made * each.answered == each.made * calls.answered
        assert rms(found - fine) <= 3 * TOL


@pytest.mark.parametrize("name", ADAPTIVE)
def test_pipelines_that_step_by_numbers_are_refused_adaptive_methods(name):
    tiny = ZOO[name]()
    assert ADAPTIVE[name] in one_line(ValueError, run, tiny, ours(tiny, "adaptive", tol=TOL), 60)


@pytest.mark.parametrize("name", ROUGH)
def test_what_does_not_converge_says_so(name):
    tiny = ZOO[name]()
    scheduler = ours(tiny, "adaptive", tol=TOL / 20)
    with pytest.warns(SpentWarning, match="network calls did not do for this tolerance"):
        assert run(tiny, scheduler, 60).isfinite().all()
    assert scheduler.converged is False
