"""The folder of an evaluation: what was cut short goes on, and what has changed is refused by its name."""

import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore

from ddim_ode.metrics import FeatureSpace, MetricError, evaluate
from ddim_ode.metrics.evaluation.shards import DamagedWarning
from ddim_ode.support.files import OutputError
from ddim_ode.support.processes import OtherFailedError, Processes
from tests.helpers.assertions import one_line
from tests.helpers.evaluations import THEIRS, TINY, folder_of, timeless


class Stopped(Exception):
    pass


def test_an_evaluation_that_was_cut_short_goes_on(tmp_path):
    at, out = folder_of(tmp_path / "images", TINY), tmp_path / "out"
    common = {"shard_size": 7, "batch_size": 5}
    whole = evaluate(at, THEIRS[:60, :, :4, :4], **common)
    seen = []

    def stop(done: int) -> None:
        seen.append(done)
        if done > 30:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate(at, THEIRS[:60, :, :4, :4], **common, out=out, callback=stop)
    assert len(list(out.rglob("*.safetensors"))) == 4
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    found = evaluate(at, THEIRS[:60, :, :4, :4], **common, out=out, callback=seen.append)
    assert timeless(found) == timeless(whole)
    assert seen[-1] == 120
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    other = evaluate(at, THEIRS[:60, :, :4, :4], **common, out=out, seed=4, most=20)  # of which features do not depend
    assert other.frechet == found.frechet
    assert other.kid != found.kid


def test_what_has_changed_since_is_refused_by_name(tmp_path):
    at, out = folder_of(tmp_path / "images", TINY), tmp_path / "out"
    evaluate(at, TINY[:30], out=out, shard_size=16)

    def refused(*sets: object, **options: object) -> str:
        message = one_line(OutputError, evaluate, *sets, out=out, **{"shard_size": 16, **options})
        assert message.endswith("choose another --out")
        return message

    assert "belongs to another evaluation: its shard_size is 16, not 17" in refused(at, TINY[:30], shard_size=17)
    assert "its batch_size is 250, not 10" in refused(at, TINY[:30], batch_size=10)
    assert "its threads is 1, not 2" in refused(at, TINY[:30], threads=2)
    assert "its features is pixels, not mean" in refused(at, TINY[:30], features=mean)
    assert f"the images of the real images have changed since {out} was begun (30 then and 31 now)" in refused(
        at, TINY[:31]
    )
    other = folder_of(tmp_path / "other", TINY.flip(0))
    assert f"its samples is {at}, not {other}" in refused(other, TINY[:30])
    (at / "00003.png").write_bytes((other / "00003.png").read_bytes())
    assert f"the images of {at} have changed since {out} was begun (by their files)" in refused(at, TINY[:30])


def mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3)).repeat(1, 3)


def test_the_same_images_by_another_path_go_on_with_what_there_is(tmp_path, monkeypatch):
    folder_of(tmp_path / "images", TINY)
    monkeypatch.chdir(tmp_path)
    found = evaluate("images", TINY[:30], out="out", shard_size=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedWarning)
        again = evaluate(tmp_path / "images", TINY[:30], out="out", shard_size=16)
    assert again.frechet == found.frechet


def test_answers_that_are_rounded_otherwise_are_those_of_the_same_network(tmp_path):
    factor = 1.0

    def own(x: torch.Tensor) -> torch.Tensor:
        return factor * x.flatten(1)[:, :5]

    found = evaluate(TINY[:30], TINY[30:], features=own, out=tmp_path)
    factor = 1 + 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedWarning)
        assert evaluate(TINY[:30], TINY[30:], features=own, out=tmp_path).frechet == found.frechet


def test_a_network_of_the_same_name_that_answers_otherwise_is_refused(tmp_path):
    factor = 1.0

    def own(x: torch.Tensor) -> torch.Tensor:
        return factor * x.flatten(1)[:, :5]

    evaluate(TINY[:30], TINY[30:], features=own, out=tmp_path)
    evaluate(TINY[:30], TINY[30:], features=own, out=tmp_path)
    factor = 1.5
    message = one_line(OutputError, evaluate, TINY[:30], TINY[30:], features=own, out=tmp_path)
    assert "its features answer otherwise" in message


def test_no_feature_and_no_name_hides_another_network(tmp_path):
    def network(last: float) -> FeatureSpace:
        return FeatureSpace("pixels", (1, 4, 4), lambda x: torch.cat([x.flatten(1)[:, 1:], last * x[:, 0, 0, :1]], 1))

    evaluate(TINY[:30], TINY[30:], features=network(1), out=tmp_path / "a")
    evaluate(TINY[:30], TINY[30:], features=network(1), out=tmp_path / "a")
    for features in (network(5), "pixels"):
        message = one_line(OutputError, evaluate, TINY[:30], TINY[30:], features=features, out=tmp_path / "a")
        assert "its features answer otherwise" in message
    statistics = tmp_path / "a" / "statistics.npz"
    assert evaluate(TINY[:30], statistics, features=network(1)).frechet is not None
    for features in (network(5), "pixels"):
        message = one_line(MetricError, evaluate, TINY[:30], statistics, features=features)
        assert message == (
            f"{statistics} has statistics of another network of the name 'pixels', which answers otherwise"
            "; give those of this one"
        )


def as_two_processes(out: Path, *networks: FeatureSpace) -> list[float | BaseException]:
    """The Frechet distance, or the error, of each of two processes that share an evaluation, with a network of each."""
    store = HashStore()

    def one(rank: int) -> float | BaseException:
        here = Processes(rank, 2, os.getppid(), store, "job")
        try:
            found = evaluate(TINY[:30], TINY[30:], features=networks[rank], out=out, here=here, shard_size=5)
        except Exception as error:
            return error
        assert found.frechet is not None
        return found.frechet

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(2)))


def space(factor: float = 1.0, fails: bool = False) -> FeatureSpace:
    calls = []

    def net(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        if fails and len(calls) > 1:  # the first are the images of noise
            raise ValueError("the device is gone")
        time.sleep(0.02)
        return factor * x.flatten(1)

    return FeatureSpace("mine", (1, 4, 4), net)


def test_processes_that_round_otherwise_make_one_evaluation(tmp_path):
    first, second = as_two_processes(tmp_path, space(), space(1 + 1e-6))
    assert first == second == pytest.approx(evaluate(TINY[:30], TINY[30:], features=space()).frechet, rel=1e-5)


def test_an_error_in_one_process_ends_the_others(tmp_path):
    first, second = as_two_processes(tmp_path, space(), space(fails=True))
    assert isinstance(first, OtherFailedError)
    assert str(second) == "the device is gone"
