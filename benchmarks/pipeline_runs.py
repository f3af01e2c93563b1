"""What a scheduler of ours costs a pipeline, and what a thousand calls of one leave behind.

python benchmarks/pipeline_runs.py [--calls 1000]

steps   milliseconds a step outside of the network, latents (2, 4, 128, 128) as SDXL's, the least of 5 runs
calls   of a tiny Stable Diffusion, adaptive: a third whole, a third interrupted, a third with an exception in its
        callback; what the process holds before and after
"""

import argparse
import gc
import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from greenlet import greenlet

from ddim_ode.integrations.diffusers import ODEScheduler
from tests.helpers.pipelines import ZOO

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
OWN = {"betas": EulerDiscreteScheduler(**STABLE), "flow": FlowMatchEulerDiscreteScheduler(shift=3.0)}
METHODS = ("euler", "dpmpp_2m", "unipc_2", "adams3", "adaptive")


def milliseconds(scheduler: Any) -> tuple[float, int]:
    """A step of 30, and how many there were."""
    scheduler.set_timesteps(30)
    x, spent, steps = torch.randn(2, 4, 128, 128, generator=torch.Generator().manual_seed(0)), 0.0, 0
    for t in scheduler.timesteps:
        begin = time.perf_counter()
        seen = scheduler.scale_model_input(x, t)
        spent += time.perf_counter() - begin
        out = torch.tanh(seen)
        begin = time.perf_counter()
        x = scheduler.step(out, t, x, return_dict=False)[0]
        spent, steps = spent + time.perf_counter() - begin, steps + 1
    return 1e3 * spent / steps, steps


def held() -> dict[str, float]:
    """Threads, greenlets and MB of this process; the last on Linux alone."""
    gc.collect()
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.is_file() else 0
    return {
        "threads": threading.active_count(),
        "greenlets": sum(type(thing) is greenlet for thing in gc.get_objects()),
        "MB": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6),
    }


def stop(pipe: Any, step: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
    pipe._interrupt = step == 3
    return values


def fail(pipe: Any, step: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("mine")


def call(count: int) -> None:
    tiny = ZOO["sd15"]()
    tiny.pipe.scheduler = ODEScheduler.from_scheduler(tiny.pipe.scheduler, "adaptive", tol=0.05)
    for n in range(count):
        extra = ({}, {"callback_on_step_end": stop}, {"callback_on_step_end": fail})[n % 3]
        try:
            tiny.pipe(**tiny.call, **extra, num_inference_steps=30, generator=torch.Generator().manual_seed(n))
        except KeyError:
            assert n % 3 == 2
        if n == 2 or (n + 1) % 200 == 0 or n + 1 == count:
            print(f"after {n + 1:4d} calls", held())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    calls = parser.parse_args().calls
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for kind, own in OWN.items():
        for method in METHODS:
            found = [milliseconds(ODEScheduler.from_scheduler(own, method)) for _ in range(5)]
            print(f"{kind:6s} {method:10s} {min(found)[0]:6.2f} ms a step, {found[0][1]} steps")
    call(calls)


if __name__ == "__main__":
    main()
