"""One run of a scheduler at a time: copies, threads, pipelines that interfere, and calls that do not end."""

import copy
import gc
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from greenlet import greenlet

from ddim_ode.integrations.diffusers import ODEScheduler, SchedulerError
from ddim_ode.models.denoiser import NonFiniteError
from tests.helpers.assertions import one_line
from tests.helpers.pipelines import ZOO
from tests.helpers.pipelines.driving import run
from tests.helpers.pipelines.tiny import WARNINGS
from tests.integrations.test_from_scheduler import flow, go, net, noise

pytestmark = [pytest.mark.filterwarnings(f"ignore:{warning}") for warning in WARNINGS]


def test_a_run_that_has_failed_says_so():
    scheduler = flow("heun")
    scheduler.set_timesteps(7)
    x, (t, u) = noise(), scheduler.timesteps[:2]
    with pytest.raises(NonFiniteError):
        scheduler.step(torch.nan * x, t, x)
    assert "ended with an error; call set_timesteps" in one_line(SchedulerError, scheduler.step, x, u, x)


def test_a_process_that_ends_in_the_midst_says_nothing():
    code = (
        "import torch; from ddim_ode.integrations.diffusers import ODEScheduler; scheduler = ODEScheduler()\n"
        "scheduler.set_timesteps(5); x = torch.zeros(1, 1, 2, 2); scheduler.step(x, scheduler.timesteps[0], x)\n"
        "raise SystemExit('done')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr.strip().splitlines()[-1:] == ["done"]
    assert "ignored" not in found.stderr


def test_copies_are_without_the_run_and_go_their_own_way():
    scheduler = flow("adaptive", tol=0.01)
    scheduler.set_timesteps(40)
    expected = go(flow_planned(40), noise())
    twin = copy.deepcopy(scheduler)
    x, y = noise(), noise()
    for t, u in zip(scheduler.timesteps, twin.timesteps, strict=False):
        x = scheduler.step(net(x, t), t, x).prev_sample
        y = twin.step(net(y, u), u, y).prev_sample
    assert torch.equal(x, expected)
    assert torch.equal(y, expected)
    assert "cannot be copied" in one_line(SchedulerError, copy.deepcopy, scheduler.__dict__)


def flow_planned(calls: int) -> ODEScheduler:
    scheduler = flow("adaptive", tol=0.01)
    scheduler.set_timesteps(calls)
    return scheduler


def test_planning_twice_keeps_the_timesteps_that_were_taken():
    scheduler = flow_planned(40)
    times = scheduler.timesteps
    scheduler.set_timesteps(40)  # as Allegro does
    assert torch.equal(go(scheduler, noise(), times), go(flow_planned(40), noise()))


def test_another_thread_is_refused():
    scheduler, found = flow_planned(40), []
    x = scheduler.step(net(noise(), 1000), scheduler.timesteps[0], noise()).prev_sample
    t = scheduler.timesteps[1]
    worker = threading.Thread(target=lambda: found.append(one_line(SchedulerError, scheduler.step, net(x, t), t, x)))
    worker.start()
    worker.join()
    assert "another thread; use one scheduler for each request" in found[0]


def test_a_pipeline_that_writes_or_counts_itself_is_refused():
    scheduler = flow("euler")
    scheduler.set_timesteps(4)
    scheduler.sigmas[-1] = scheduler.sigmas[-2]  # as Cosmos Predict 2 does
    assert "has changed the sigmas" in one_line(SchedulerError, go, scheduler, noise())
    scheduler.set_timesteps(4)
    x = scheduler.step(noise(), scheduler.timesteps[0], noise()).prev_sample
    with pytest.raises(AttributeError, match="has no _step_index, which this pipeline reads or changes"):
        scheduler._step_index -= 1
    text = one_line(SchedulerError, scheduler.step, x, scheduler.timesteps[1], x, per_token_timesteps=x)
    assert "per_token_timesteps is no argument" in text


def test_nothing_grows_with_calls_that_were_interrupted_or_failed():
    tiny = ZOO["sd15"]()
    scheduler = ODEScheduler.from_scheduler(tiny.pipe.scheduler, "adaptive", tol=0.1)

    def stop(pipe: Any, step: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step == 2
        return values

    def fail(pipe: Any, step: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("mine")

    def held() -> int:
        gc.collect()
        return sum(type(thing) is greenlet for thing in gc.get_objects())

    run(tiny, scheduler, 20)
    before = held(), threading.active_count()
    for n in range(12):
        if n % 2:
            run(tiny, scheduler, 20, callback_on_step_end=stop)
        else:
            with pytest.raises(KeyError, match="mine"):
                run(tiny, scheduler, 20, callback_on_step_end=fail)
    alone = run(tiny, scheduler, 20)
    assert (held(), threading.active_count()) == before
    assert torch.equal(alone, run(tiny, ODEScheduler.from_scheduler(scheduler, "adaptive", tol=0.1), 20))
