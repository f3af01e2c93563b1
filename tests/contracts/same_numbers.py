"""What the library says today, written down, so that a change of its code can be held to the same numbers.

    python tests/contracts/same_numbers.py --write before.json       # every method, on a mixture and on `fashion`
    python tests/contracts/same_numbers.py --compare before.json     # after the change: every difference, or none

Each entry is a digest of bytes, which holds on one machine with one number of threads, and some numbers of those bytes,
which hold anywhere up to rounding. `test_same_numbers` compares the numbers of a short list with `same_numbers.json`,
which `--write tests/contracts/same_numbers.json --short` writes.
"""

import argparse
import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from safetensors.torch import load_file
from torch import Tensor

import ddim_ode
from ddim_ode import METHODS, GaussianMixture, paths
from ddim_ode.cli import main as command

#: what `test_same_numbers` takes: every way through the library once
SHORT = (
    *(f"mixture/sample/{name}" for name in ("ddim", "heun", "plms", "deis_tab3", "dpmpp_3m", "unipc_3", "adams3")),
    *(f"mixture/sample/{name}" for name in ("adaptive", "dopri5", "sde_srk", "sde_dpmpp_2m", "edm_churn", "edict")),
    *(f"mixture/latent/{name}" for name in ("exact_heun", "leapfrog", "belm", "fixed_point")),
    *("mixture/guided/adams3", "mixture/budget/adaptive", "mixture/eta/ddim-ddpm_large", "mixture/likelihood/dopri5"),
    *("mixture/gradient/leapfrog-reversible", "mixture/gradient/rk4-adjoint", "mixture/study"),
    *("fashion/sample/ddim", "fashion/sample/adams4", "fashion/latent/exact_heun", "manifest/ddim"),
)

SEEDS = range(8)
LABELS = torch.arange(8) % 10
Entry = dict[str, Any]  # digest, and numbers


def mixture() -> ddim_ode.Denoiser:
    """Five components of 48 numbers in three classes, in closed form, on DDPM's schedule."""
    means = torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    stds = 0.1 + 0.05 * torch.arange(5, dtype=torch.float64)
    return GaussianMixture(means, stds, torch.ones(5), torch.arange(5) % 3).denoiser(paths.DiscreteVP.linear())


def entry(*parts: Tensor) -> Entry:
    """The digest of some tensors, and of the finite values of each three numbers that are not told apart by chance."""
    digest, numbers = hashlib.sha256(), []
    for part in parts:
        digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
        digest.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        values = part.detach().cpu().double().flatten().nan_to_num(0.0, 0.0, 0.0)
        wave = torch.sin(torch.arange(1, len(values) + 1, dtype=torch.float64))
        numbers += [values.mean(), values.square().mean().sqrt(), values @ wave / math.sqrt(len(values))]
    return {"digest": digest.hexdigest()[:32], "numbers": [float(f"{float(n):.9g}") for n in numbers]}


def spent(name: str) -> dict[str, Any]:
    return {"tol": 0.03} if METHODS[name].adaptive else {"nfe": 10}


def record_samples(model: ddim_ode.Denoiser, name: str) -> Entry:
    labels = LABELS % model.num_classes
    found = ddim_ode.sample(model, method=name, seeds=SEEDS, labels=labels, **spent(name))
    return entry(found.x, found.nfe, found.steps, found.rejected, found.sigmas)


def record_budget(model: ddim_ode.Denoiser, name: str) -> Entry:
    """The tolerance that is found for a budget."""
    found = ddim_ode.sample(model, method=name, seeds=SEEDS, nfe=60)
    return entry(found.x, found.nfe, torch.tensor([found.tol], dtype=torch.float64))


def record_eta(model: ddim_ode.Denoiser, name: str, eta: Any) -> Entry:
    return entry(ddim_ode.sample(model, method=name, seeds=SEEDS, nfe=10, eta=eta, eta_range=(0.05, 50.0)).x)


def record_guided(model: ddim_ode.Denoiser, name: str) -> Entry:
    labels = LABELS % model.num_classes
    found = ddim_ode.sample(model, method=name, seeds=SEEDS, labels=labels, guidance=2.0, nfe=14)
    return entry(found.x, found.nfe)


def images_of(model: ddim_ode.Denoiser) -> Tensor:
    if model.shape == (1, 28, 28):
        return ddim_ode.data.bundled_images()[0][:4]
    return torch.linspace(-1, 1, 4 * 48).reshape(4, *model.shape)


def record_latents(model: ddim_ode.Denoiser, name: str) -> Entry:
    x = images_of(model)
    labels = torch.arange(4) % model.num_classes
    latent = ddim_ode.encode(model, x, method=name, nfe=10, labels=labels)
    back = ddim_ode.decode(model, latent)
    return entry(*latent.states, latent.sigmas, latent.nfe, back.x)


def record_likelihood(model: ddim_ode.Denoiser, name: str) -> Entry:
    options: dict[str, Any] = {"tol": 0.03} if METHODS[name].adaptive else {"nfe": 24}
    found = ddim_ode.log_likelihood(model, images_of(model), labels=1, method=name, probes=2, **options)
    return entry(found.nats, found.standard_error, found.nfe, found.latent)


def record_gradient(model: ddim_ode.Denoiser, name: str, mode: str) -> Entry:
    noise = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    options: dict[str, Any] = {"tol": 0.03} if METHODS[name].adaptive else {"nfe": 6}
    x = ddim_ode.sample(model, method=name, noise=noise, labels=1, differentiable=mode, **options).x
    x.square().sum().backward()
    assert noise.grad is not None
    return entry(x, noise.grad)


def run(*words: object) -> str:
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(StringIO()):
        assert command([str(word) for word in words]) == 0
    return out.getvalue()


def record_manifest(method: str, *options: str) -> Entry:
    """What a manifest recreates."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        run("sample", "fashion", "--method", method, *options, "-n", 4, "--label", "each", "--out", first)
        run("sample", "--manifest", first / "manifest.json", "--out", second)
        x, again = (load_file(out / "samples.safetensors")["x"] for out in (first, second))
        assert torch.equal(x, again)
        return entry(again)


def record_study(model: ddim_ode.Denoiser) -> Entry:
    """A row's facts without its times, flattened to numbers."""
    study = ddim_ode.compare(
        model,
        methods=["ddim", "adams3", "unipc_2", "exact_heun", "adaptive", "sde_euler"],
        nfe=[5, 10],
        seeds=range(6),
        labels=torch.arange(6) % model.num_classes,
        etas=[0.0, 1.0],
        reference_tol=0.01,
    )
    rows = []
    for row in study.rows:
        facts = {name: value for name, value in asdict(row).items() if name != "timing"}
        rows.append(json.dumps(facts, sort_keys=True, default=float))
    numbers = [list(_numbers(json.loads(row))) for row in rows]
    kept = {"best": study.best, "keys": [(row.key, row.kind, row.status, row.reason) for row in study.rows]}
    digest = hashlib.sha256("\n".join([*rows, json.dumps(kept)]).encode()).hexdigest()[:32]
    return {"digest": digest, "numbers": [float(f"{n:.12g}") for row in numbers for n in row]}


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for name in sorted(value):
            yield from _numbers(value[name])
    elif isinstance(value, int | float):
        yield float(value)


def record_asked(model: ddim_ode.Denoiser, name: str, asked: dict[str, Any]) -> Entry:
    """Samples in another precision, in batches, on a grid of one's own, from a state, or to the smallest sigma."""
    given: dict[str, Any] = {"seeds": SEEDS, "nfe": 10, "labels": 1} | asked
    found = ddim_ode.sample(model, method=name, **{key: value for key, value in given.items() if value is not None})
    return entry(found.x, found.nfe, found.sigmas)


#: name -> what is asked of `sample` besides
ASKED: dict[str, dict[str, Any]] = {
    "float64": {"dtype": torch.float64},
    "batches": {"batch_size": 3},
    "own grid": {"grid": [90.0, 20.0, 5.0, 1.5, 0.5, 0.1, 0.02, 0.0], "nfe": None},
    "to sigma_min": {"final": "sigma_min"},
    "from a state": {"grid": [5.0, 1.5, 0.5, 0.1, 0.02], "nfe": None, "seeds": None},
}


def entries() -> dict[str, Callable[[], Entry]]:
    """Everything that is recorded, by name."""
    found: dict[str, Callable[[], Entry]] = {}
    for which, model in {"mixture": mixture(), "fashion": ddim_ode.load("fashion")}.items():

        def add(name: str, record: Callable[..., Entry], *given: Any, which: str = which, model: Any = model) -> None:
            found[f"{which}/{name}"] = lambda: record(model, *given)

        for name, method in METHODS.items():
            add(f"sample/{name}", record_samples, name)
            if method.invertible:
                add(f"latent/{name}", record_latents, name)
        for name in ("ddim", "adams3", "fixed_point"):
            add(f"latent/{name}", record_latents, name)
        for name in ("ddim", "heun", "adams3", "adaptive"):
            add(f"guided/{name}", record_guided, name)
        for name in ("adaptive", "dopri5", "sde_adaptive"):
            add(f"budget/{name}", record_budget, name)
        for name, eta in (("ddim", 1.0), ("ddim", "ddpm_large"), ("rk4", 0.5), ("sde_srk", 0.5)):
            add(f"eta/{name}-{eta}", record_eta, name, eta)
        for name in ("dopri5", "heun_angle"):
            add(f"likelihood/{name}", record_likelihood, name)
        for name, mode in (
            *(("adams3", "direct"), ("adaptive", "direct"), ("rk4", "adjoint"), ("dopri5", "adjoint")),
            *(("leapfrog", "reversible"), ("exact_heun", "reversible"), ("bdia", "reversible")),
        ):
            add(f"gradient/{name}-{mode}", record_gradient, name, mode)
        for what, asked in ASKED.items():
            for name in ("adams4", "heun", "exact_heun"):
                state = 2 * torch.ones(2, *model.shape)
                add(f"asked/{what}/{name}", record_asked, name, asked | ({"start": state} if "state" in what else {}))
        add("study", record_study)
    found["manifest/ddim"] = lambda: record_manifest("ddim", "--nfe", "6")
    found["manifest/adaptive"] = lambda: record_manifest("adaptive", "--tol", "0.03")
    return found


def differences(before: dict[str, Entry], now: dict[str, Entry]) -> list[str]:
    """One line for each entry whose digest is another, with how far its numbers are from what they were."""
    lines = [f"{name}: only {'before' if name in before else 'now'}" for name in sorted(before.keys() ^ now.keys())]
    for name in before.keys() & now.keys():
        if before[name]["digest"] != now[name]["digest"]:
            lines.append(f"{name}: another digest; numbers {before[name]['numbers'][:4]} -> {now[name]['numbers'][:4]}")
    return sorted(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FILE")
    what.add_argument("--compare", type=Path, metavar="FILE")
    parser.add_argument("--only", default="", metavar="TEXT", help="entries whose name holds this")
    parser.add_argument("--short", action="store_true", help="the entries of the test alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    wanted = entries()
    wanted = {name: wanted[name] for name in (SHORT if given.short else wanted) if given.only in name}
    now = {name: record() for name, record in wanted.items()}
    if given.write:
        given.write.write_text(json.dumps(now, indent=1) + "\n")
        print(f"{len(now)} entries in {given.write}")
        return 0
    before = {name: found for name, found in json.loads(given.compare.read_text()).items() if name in wanted}
    lines = differences(before, now)
    print(*lines, f"{len(before)} entries before, {len(lines)} differences", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
