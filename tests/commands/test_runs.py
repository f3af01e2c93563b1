"""A run in blocks, of which one is in memory, is a run in one."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ddim_ode
from ddim_ode.models.unet import UNet
from ddim_ode.shards import blocks as cutting
from tests.helpers.command_line import Command


@pytest.mark.parametrize(
    "options",
    [
        ["--nfe", 3],
        ["--nfe", 3, "--label", "each", "--guidance", 1.5],
        ["--method", "adaptive", "--tol", 0.1],
        ["--method", "adaptive", "--nfe", 9],
        ["--method", "dopri5", "--tol", 0.1],  # whose batches share their steps
        ["--method", "sde_euler", "--nfe", 4],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_samples_in_blocks_are_those_of_one_run(
    run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[object]
) -> None:
    command = ["sample", model, "-n", 11, "--batch-size", 2, "--images", *options, "--out"]
    assert run(*command, tmp_path / "one").code == 0
    monkeypatch.setattr(cutting, "BLOCK", 5)  # two batches of 2
    held: list[int] = []
    sampled = cutting.sample_with

    def watched(*arguments: object, **options: object) -> ddim_ode.Solution:
        found = sampled(*arguments, **options)
        held.append(len(found.x))
        return found

    monkeypatch.setattr(cutting, "sample_with", watched)
    assert run(*command, tmp_path / "blocks").code == 0
    assert held == [4, 4, 3]
    one, blocks = (load_file(tmp_path / name / "samples.safetensors") for name in ("one", "blocks"))
    assert one.keys() == blocks.keys()
    assert all(torch.equal(one[name].nan_to_num(nan=-1), blocks[name].nan_to_num(nan=-1)) for name in one)
    pictures = [sorted((tmp_path / name / "images").iterdir()) for name in ("one", "blocks")]
    assert [file.name for file in pictures[0]] == [f"{n:05d}.png" for n in range(11)]
    assert [file.read_bytes() for file in pictures[0]] == [file.read_bytes() for file in pictures[1]]
    told = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "blocks")]
    assert told[0]["nfe"] == told[1]["nfe"]
    assert told[0]["tol"] == told[1]["tol"]


def test_a_sheet_of_the_first_block(run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "BLOCK", 8)
    ran = run("sample", model, "-n", 20, "--nfe", 1, "--batch-size", 4, "--out", tmp_path / "out")
    assert "the first 8 of 20 samples are in grid.png" in ran.out
    with Image.open(tmp_path / "out" / "grid.png") as sheet:
        assert sheet.size == (8 * (2 * 8 + 2) + 2, 2 * 8 + 2 + 2)


def test_what_is_not_finite_is_named_by_its_place_in_the_run(
    fails, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = UNet.forward, [0]

    def broken(net: UNet, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        out = forward(net, x, *rest)
        seen[0] += len(x)
        if seen[0] > 8:
            out[-1] = torch.nan
        return out

    monkeypatch.setattr(UNet, "forward", broken)
    monkeypatch.setattr(cutting, "BLOCK", 4)
    line = fails("sample", model, "-n", 12, "--nfe", 1, "--batch-size", 2, "--out", tmp_path / "out")
    assert "for sample 9 in step 1" in line
    assert not (tmp_path / "out").exists()
