"""--fast: what the commands make of a network that computes otherwise, what they say of it and what they keep."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ddim_ode.commands.shared import quick
from ddim_ode.commands.shared.quick import Batches
from ddim_ode.latents import Latent, LatentError
from ddim_ode.models import fast as module
from tests.helpers.assertions import one_line
from tests.helpers.command_line import Command
from tests.helpers.foreign import relative

SAID = "fast: compiled; "


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[torch.nn.Module]:
    """The modules that were to be compiled; they are run as they are, since a compiler takes its time."""
    asked: list[torch.nn.Module] = []
    monkeypatch.setattr(module, "compiled", lambda net, graphs: asked.append(net) or net)
    return asked


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Calls for which torch would have compiled after it was to have: the size of batch, and whether deterministic."""
    found: list[tuple[int, bool]] = []
    warming: list[bool] = []
    warm_up, judged = quick.warm_up, module.Fast._judged

    def warmed(*asked: Any) -> None:
        warming.append(True)
        warm_up(*asked)
        warming.clear()

    def noticed(self: module.Fast, inputs: module.Inputs, gradient: bool) -> module.Verdict | None:
        if not warming:
            found.append((len(inputs[0][0]), torch.are_deterministic_algorithms_enabled()))
        return judged(self, inputs, gradient)

    monkeypatch.setattr(quick, "warm_up", warmed)
    monkeypatch.setattr(module.Fast, "_judged", noticed)
    return found


def samples(folder: Path) -> torch.Tensor:
    return load_file(folder / "samples.safetensors")["x"]


def test_samples_and_their_manifest(
    run: Command, fails: Callable[..., str], model: Path, tmp_path: Path, compiled: list[torch.nn.Module]
) -> None:
    few = ("--nfe", 3, "-n", 2, "--label", "each")
    ran = run("sample", model, *few, "--out", tmp_path / "slow")
    assert (ran.code, "fast" in ran.err, compiled) == (0, False, [])
    ran = run("sample", model, *few, "--fast", "--out", tmp_path / "one")
    assert (ran.code, ran.err.count(SAID)) == (0, 1)
    assert run("sample", "--manifest", tmp_path / "one/manifest.json", "--out", tmp_path / "two").code == 0
    assert len(compiled) == 2
    slow, one, two = (samples(tmp_path / name) for name in ("slow", "one", "two"))
    assert torch.equal(one, two)
    assert 0 < relative(one, slow) < 0.1
    line = fails("sample", model, *few, "--fast", "--dtype", "float64", "--out", tmp_path / "three")
    assert "dtype=float64 and fast contradict each other" in line


def test_into_shards(run: Command, model: Path, tmp_path: Path) -> None:
    few = ("--nfe", 2, "-n", 4, "--batch-size", 2)
    assert run("sample", model, *few, "--fast", "--out", tmp_path / "one").code == 0
    ran = run("sample", model, *few, "--fast", "--shards", "--out", tmp_path / "two")
    assert (ran.code, ran.err.count(SAID)) == (0, 1)
    shards = [load_file(file)["x"] for file in sorted((tmp_path / "two").glob("*.safetensors"))]
    assert torch.equal(torch.cat(shards), samples(tmp_path / "one"))


def test_what_is_encoded_fast_is_decoded_fast(run: Command, model: Path, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "z"
    ran = run("encode", model, images, "--nfe", 5, "--fast", "--out", file)
    assert (ran.code, ran.err.count(SAID)) == (0, 1)
    ran = run("decode", model, file, "--out", tmp_path / "back")
    assert (ran.code, ran.err.count(SAID)) == (0, 1)
    assert json.loads((tmp_path / "back/manifest.json").read_text())["latent"]["fast"] is True
    assert run("encode", model, images, "--nfe", 5, "--out", tmp_path / "slow").code == 0
    assert run("decode", model, tmp_path / "slow", "--out", tmp_path / "slowly").code == 0
    assert torch.equal(samples(tmp_path / "back"), samples(tmp_path / "slowly"))  # both to the last bit
    assert not torch.equal(Latent.load(file).states[0], Latent.load(tmp_path / "slow").states[0])


def test_another_network_than_the_latents_is_refused_by_name(run: Command, model: Path, images: Path, tmp_path: Path):
    from ddim_ode.checkpoints import load
    from ddim_ode.inversion import decode

    network = load(str(model))
    for flag, other in (("--fast", network), ("", network.fast())):
        assert run("encode", model, images, "--nfe", 5, *filter(None, [flag]), "--out", tmp_path / f"z{flag}").code == 0
        line = one_line(LatentError, decode, other, Latent.load(tmp_path / f"z{flag}"))
        assert f"was encoded {'with' if flag else 'without'} fast()" in line


def test_reconstruct(run: Command, model: Path, images: Path, compiled: list[torch.nn.Module]) -> None:
    ran = run("reconstruct", model, images, "--method", "exact_heun,ddim", "--nfe", 4, "--fast", "--json")
    assert (ran.code, ran.err.count(SAID), len(compiled)) == (0, 1, 1)
    exact, _ = json.loads(ran.out)["methods"]
    assert exact["bit_exact"] == exact["count"]


def test_a_study_measures_against_the_network_as_it_is(run: Command, model: Path, tmp_path: Path) -> None:
    few = ("--methods", "heun_angle", "--nfe", "16", "-n", 2, "--label", "none", "--json")
    rows = []
    for name, more in (("slow", ()), ("fast", ("--fast",))):
        ran = run("compare", model, *few, *more, "--out", tmp_path / name)
        assert (ran.code, ran.err.count(SAID)) == (0, len(more))
        rows.append(json.loads((tmp_path / name / "results.json").read_text()))
    slow, fast = rows
    assert slow["reference"]["tol"] == fast["reference"]["tol"]
    assert slow["model"]["fingerprint"] != fast["model"]["fingerprint"]
    assert "--fast" in fast["command"]
    assert slow["rows"][0]["error"]["median"] != fast["rows"][0]["error"]["median"]


def test_tuning_only_searches(run: Command, fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    few = ("--nfe", "3", "--seeds", "1000-1007", "--held-out", "0-3", "--label", "none", "--fast")
    assert "add --no-refine" in fails("tune", model, *few, "--out", tmp_path / "tuned.json")
    assert "add --no-refine" in fails("tune", tmp_path / "none", *few, "--out", tmp_path / "tuned.json")
    ran = run("tune", model, *few, "--no-refine", "--out", tmp_path / "tuned.json")
    assert (ran.code, ran.err.count(SAID)) == (0, 1)


@pytest.mark.parametrize(
    "asked",
    [
        ("--nfe", 2, "-n", 3, "--batch-size", 2),
        ("--nfe", 2, "-n", 1, "--label", 1, "--guidance", 2),
        ("--nfe", 4, "-n", 1, "--label", 1, "--guidance", 2, "--guidance-range", "0.5:5"),
        ("--method", "adaptive", "--tol", 0.05, "-n", 4, "--label", "each"),
        ("--nfe", 2, "-n", 3, "--batch-size", 2, "--shards", "--threads", 2),
    ],
)
def test_nothing_compiles_while_it_is_timed(
    asked: tuple[object, ...], run: Command, model: Path, tmp_path: Path, late: list[tuple[int, bool]]
) -> None:
    assert run("sample", model, *asked, "--fast", "--out", tmp_path / "out").code == 0
    assert late == []


def test_nothing_compiles_on_the_way_there_and_back(
    run: Command, model: Path, images: Path, tmp_path: Path, late: list[tuple[int, bool]]
) -> None:
    few = ("--nfe", 2, "--fast", "--deterministic")
    assert run("encode", model, images, *few, "--out", tmp_path / "z").code == 0
    assert run("decode", model, tmp_path / "z", "--deterministic", "--out", tmp_path / "back").code == 0
    assert run("decode", model, tmp_path / "z", "--out", tmp_path / "quicker").code == 0
    assert run("reconstruct", model, images, *few).code == 0
    assert late == []


@pytest.mark.parametrize(
    ("batches", "count", "expected"),
    [
        (Batches(), 500, [128]),
        (Batches(), 129, [128, 1]),
        (Batches(2), 3, [2, 1]),
        (Batches(1), 3, [1]),
        (Batches(shrinks=True), 4, [4, 1]),
        (Batches(guided=True), 1, [2, 1]),
        (Batches(guided=True), 4, [4]),
    ],
)
def test_sizes_to_compile_for(batches: Batches, count: int, expected: list[int]) -> None:
    assert batches.kinds(count) == expected


def test_without_a_compiler(run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on with what is slower, and says so."""
    from torch._inductor.exc import InvalidCxxCompiler

    def none(*_: object, **__: object) -> torch.Tensor:
        raise InvalidCxxCompiler

    monkeypatch.setattr(module, "compiled", lambda net, graphs: none)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ran = run("sample", model, "--nfe", 2, "-n", 2, "--fast", "--out", tmp_path / "out")
    assert ran.code == 0
    assert "warning: fast: for batches the network is run not compiled" in ran.err
    assert "InvalidCxxCompiler" in ran.err
    assert "fast: not compiled; " in ran.err
