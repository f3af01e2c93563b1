"""What the rows of `benchmarks/gpu.py` and `roofline.py` may be called, and what is counted for them."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import roofline, time_spent
from benchmarks.gpu_sections import adaptive, forwards, images, report
from benchmarks.gpu_sections.base import Setting, SkippedError
from benchmarks.gpu_sections.clocks import Clocked
from benchmarks.gpu_sections.models import NotCompiledError, Pointwise, pointwise, with_net
from benchmarks.gpu_sections.solvers import Traffic
from benchmarks.roofline import Roof
from ddim_ode.models.failures import NonFiniteError

ROOT = Path(__file__).parents[1]
CPU = Setting(torch.device("cpu"), small=True)


def passing(net: nn.Module, **options: object) -> Callable[..., Tensor]:
    return net


def failing_alone(net: nn.Module, **options: object) -> Callable[..., Tensor]:
    def run(x: Tensor, *rest: Tensor) -> Tensor:
        if len(x) == 1:
            raise RuntimeError("not of one")
        out: Tensor = net(x, *rest)
        return out

    return run


@pytest.mark.filterwarnings("ignore::ddim_ode.models.fast.FastWarning")
def test_a_network_that_is_not_compiled_is_in_no_row_of_compiled_ones(monkeypatch):
    monkeypatch.setattr(torch, "compile", failing_alone)
    model = pointwise(CPU).fast()
    with torch.no_grad():
        assert forwards.overhead(model, CPU, 2)["ms a pass"] > 0
        with pytest.raises(NotCompiledError, match="was run a single sample as two"):
            forwards.overhead(model, CPU, 1)
        assert forwards.overhead(model, CPU, 2)["ms a pass"] > 0  # whatever became of a single one


@pytest.mark.filterwarnings("ignore::ddim_ode.models.fast.FastWarning")
def test_nor_is_it_a_way_at_the_roofline(monkeypatch):
    monkeypatch.setattr(roofline, "HERE", CPU)
    monkeypatch.setattr(roofline.ddim_ode, "load", lambda name: pointwise(CPU))
    with torch.no_grad():
        monkeypatch.setattr(torch, "compile", passing)
        assert roofline.measure("it", 1, 1e9, ["fast"]).ways["fast"] > 0
        monkeypatch.setattr(torch, "compile", failing_alone)
        with pytest.raises(NotCompiledError, match="a single sample as two"):
            roofline.measure("it", 1, 1e9, ["fast"])


def test_ways_that_are_none_are_refused(capsys):
    with pytest.raises(SystemExit):
        roofline.main(["--ways", "fast,quick"])
    assert "--ways quick is no way to run a network; choose of channels_last,fast" in capsys.readouterr().err


def test_a_budget_that_cannot_be_is_skipped_and_a_network_that_gives_no_numbers_fails():
    model = pointwise(CPU)
    with torch.no_grad(), pytest.raises(SkippedError, match="nfe=1 is too small"):
        images.images(model, CPU, "adaptive", 1, 2)
    broken = with_net(model, Pointwise(3).requires_grad_(False))
    broken.net.mix.bias.fill_(math.nan)
    with torch.no_grad(), pytest.raises(NonFiniteError):
        images.images(broken, CPU, "ddim", 4, 2)


def test_a_device_whose_clock_goes_faster_leaves_no_negative_time(monkeypatch):
    monkeypatch.setattr(adaptive, "fashion", pointwise)
    monkeypatch.setattr(Clocked, "seconds", lambda self: 1e6)
    with torch.no_grad():
        assert adaptive.compaction(CPU, 2, 0.1)["between, ms"] == 0


# What is counted


def test_the_bytes_of_states_are_counted_and_those_of_views_and_numbers_are_not():
    x, y = torch.zeros(2, 4, 1000)
    with Traffic(least=x.numel()) as traffic:
        x.view(2, 2000) * 2.0  # read and written
        torch.add(x, y)  # two read, one written
        x.sum() + 1.0  # read alone
    assert (traffic.operations, traffic.bytes) == (3, 6 * x.nbytes)


def test_the_roof_of_a_pass_is_the_slower_of_computing_and_moving():
    roof = Roof("a card", peak=100.0, bandwidth=10.0)
    assert roof.seconds(flops=500.0, moved=20.0) == 5.0
    assert roof.seconds(flops=100.0, moved=20.0) == 2.0
    assert roof._replace(width=2).seconds(flops=50.0, moved=20.0) == 1.0


def test_the_code_is_all_that_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ROOT", tmp_path)
    found = set()
    for place in ("ddim_ode/a.py", "benchmarks/gpu_sections/b.py", "benchmarks/gpu.py", "benchmarks/unet_speed.py"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("")
    for place in tmp_path.rglob("*.py"):
        found.add(report.digest())
        place.write_text("changed")
    assert len(found | {report.digest()}) == 5


# What the documentation shows


@pytest.mark.parametrize("name", ["roofline", "time_spent"])
def test_the_documentation_shows_what_the_commands_print(name):
    found, page = json.loads((ROOT / "docs" / f"{name}.json").read_text()), ROOT / "docs" / "performance.md"
    if name == "roofline":
        tables = roofline.tables([roofline.Row(**row) for row in found["rows"]])
    else:
        tables = time_spent.tables(found["rows"], found["commands"])
    text = page.read_text()
    assert f"`OMP_NUM_THREADS=1 {found['command']}`" in text
    assert all(table in text for table in tables)
    assert found["date"] in text
