"""Run every pipeline of the zoo: `python -m tests.helpers.pipelines.check [NAMES]`."""

import io
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor

from tests.helpers.pipelines import ZOO, Tiny
from tests.helpers.pipelines.tiny import SAID, WARNINGS

STEPS = 4
LOGS = (logging.getLogger("diffusers"), logging.getLogger("transformers"))
LIMITS = {"build": 1.5, "run": 1.5}


class Calls:
    """The calls of a pipeline's networks: how many, how large the answers, and the middle one's arguments."""

    def __init__(self, tiny: Tiny):
        self.count = 0
        self.answers: list[Tensor] = []
        self.seen: list[Any] = []
        self.hooks = [net.register_forward_hook(self.note, with_kwargs=True) for net in tiny.networks.values()]

    def note(self, net: Any, args: Any, options: Any, output: Any) -> None:
        self.count += 1
        answer = output[0]
        answer = answer[0] if isinstance(answer, list | tuple) else answer
        self.answers.append(answer.detach().float())
        self.seen.append((net, args, dict(options)))

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def size(self) -> float:
        return float(torch.stack([answer.square().mean() for answer in self.answers]).mean().sqrt())

    def shares(self) -> tuple[float, float]:
        """By how much the answer changes, relatively, with another x (a tenth of it new) and at another time."""
        net, args, options = self.seen[len(self.seen) // 2]
        old = answer_of(net, args, options)
        changed = (
            change(args, options, 0, ("sample", "hidden_states", "x", "noisy_latents"), noisier),
            change(args, options, 1, ("timestep", "timesteps", "r", "t", "timestep_ratio"), earlier),
        )
        by_x, by_t = (float("nan") if new is None else relative(answer_of(net, *new), old) for new in changed)
        return by_x, by_t


def noisier(x: Tensor) -> Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=seeded(9)).to(x)


def earlier(t: Tensor) -> Tensor:
    """10% off, and more where times are small."""
    return t * 0.9 - (0.2 if t.abs().max() < 2 else 0.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relative(new: Tensor, old: Tensor) -> float:
    return float((new - old).norm() / old.norm())


def answer_of(net: Any, args: Any, options: Any) -> Tensor:
    with torch.no_grad():
        output = net(*args, **options)[0]
    return (output[0] if isinstance(output, list | tuple) else output).float()


def change(args: Any, options: Any, position: int, names: tuple[str, ...], how: Any) -> Any:
    def apply(value: Any) -> Any:
        if isinstance(value, list):
            return [how(one) for one in value]
        return (
            how(value) if torch.is_tensor(value) and value.is_floating_point() else how(torch.as_tensor(value).float())
        )

    for name in names:
        if name in options:
            return args, {**options, name: apply(options[name])}
    if len(args) > position:
        return (*args[:position], apply(args[position]), *args[position + 1 :]), options
    return None


def run(tiny: Tiny, seed: int = 0) -> Tensor:
    return tiny.read(tiny.pipe(**tiny.call, num_inference_steps=STEPS, generator=seeded(seed)))


@contextmanager
def heard(noise: io.StringIO) -> Iterator[None]:
    """All that is printed or logged goes to `noise`."""
    handler = logging.StreamHandler(noise)
    usual = {log: log.handlers[:] for log in LOGS}
    with redirect_stderr(noise), redirect_stdout(noise):
        for log in LOGS:
            log.handlers[:] = [handler]
        try:
            yield
        finally:
            for log in LOGS:
                log.handlers[:] = usual[log]


def check(name: str) -> str:
    wrong: list[str] = []
    noise = io.StringIO()
    state = torch.random.get_rng_state()
    with heard(noise), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        before = ZOO[name]()  # imports what it needs, which is not what building takes
        start = time.perf_counter()
        tiny = ZOO[name]()
        built = time.perf_counter() - start
        if not torch.equal(state, torch.random.get_rng_state()):
            wrong.append("building draws from the global generator")
        start = time.perf_counter()
        x = run(tiny)
        took = time.perf_counter() - start
        if torch.equal(state, torch.random.get_rng_state()) == tiny.draws:
            wrong.append("running draws from the global generator")
        torch.random.set_rng_state(state)
        if not tiny.draws:
            torch.manual_seed(1)
        calls = Calls(tiny)
        again = run(tiny)
        calls.remove()
        torch.manual_seed(2)
        other = run(tiny, 1)
        torch.random.set_rng_state(state)
        rebuilt = torch.equal(x, run(before))
        by_x, by_t = calls.shares()
        torch.random.set_rng_state(state)
    same, size = torch.equal(x, again), float(x.square().mean().sqrt())
    said = {str(one.message) for one in warned}
    wrong += [f"warns {one[:90]!r}" for one in sorted(said) if not one.startswith(WARNINGS)]
    tests = {
        "not finite": not bool(x.isfinite().all()),
        "too large": float(x.abs().max()) > 10,
        "too small": size < 0.05,
        "two runs differ": not same,
        "built again it differs": not rebuilt,
        "the noise does not matter": tiny.noisy and relative(other, x) < 0.1,
        "slow to build": built > LIMITS["build"],
        "slow": took > LIMITS["run"],
        "no call of a network": calls.count == 0,
        "too few numbers": x.numel() < 32,
        "the network's answer is small or large": not 0.2 <= calls.size() <= 3,
        "x does not matter": by_x < 0.005,
        "t does not matter": by_t < 0.002,
        "x or t not found": by_x != by_x or by_t != by_t,
    }
    printed = {line for line in noise.getvalue().splitlines() if line.strip() and not line.startswith(SAID)}
    wrong += [f"prints {line[:90]!r}" for line in sorted(printed)]
    wrong += [what for what, holds in tests.items() if holds]
    words = [
        f"{name:20}",
        f"{type(tiny.pipe).__name__.removesuffix('Pipeline'):30}",
        f"{type(tiny.pipe.scheduler).__name__.removesuffix('Scheduler'):28}",
        f"{'flow' if tiny.flow else '-':4} {tiny.kind:5} {'' if tiny.fits else 'unfit':5}",
        f"{built:5.2f}s {took:5.2f}s {tuple(x.shape)!s:20} rms {size:5.2f} max {float(x.abs().max()):5.2f}",
        f"{'same' if same else 'DIFFER'} {calls.count:2d} calls {calls.size():4.2f} dx {by_x:5.3f} dt {by_t:5.3f}",
    ]
    return " ".join(words) + "".join(f"\n    ! {what}" for what in wrong)


def main() -> None:
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or list(ZOO)
    for name in chosen:
        try:
            print(check(name), flush=True)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-3:]
            places = " < ".join(f"{line.filename.rsplit('/', 1)[-1]}:{line.lineno}" for line in reversed(where))
            print(f"{name:20} FAILS {type(error).__name__}: {str(error)[:300]} at {places}", flush=True)


if __name__ == "__main__":
    main()
