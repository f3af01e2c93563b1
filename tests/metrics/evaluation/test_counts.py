"""Samples are counted: fewer than asked for, more, or equal ones make no row."""

import shutil

from ddim_ode import metrics
from ddim_ode.metrics import CountError, evaluate
from tests.helpers.assertions import one_line
from tests.helpers.evaluations import TINY, folder_of


def test_samples_are_counted(tmp_path):
    at = folder_of(tmp_path / "images", TINY)
    counted = evaluate(at, TINY).samples
    assert counted == metrics.Counted(str(at), 60, 60, 60)
    assert evaluate(at, TINY, count=60).samples == counted
    message = one_line(CountError, evaluate, at, TINY, count=64, out=tmp_path / "out")
    expected = "64 samples asked for, 60 found, 60 distinct; make 4 more, or measure what there are"
    assert message == f"{at}: {expected} with -n 60"
    assert not (tmp_path / "out").exists()
    assert "50 samples asked for, 60 found, 60 distinct; take 10 away" in one_line(
        CountError, evaluate, at, TINY, count=50
    )
    shutil.copy(at / "00000.png", at / "99.png")
    shutil.copy(at / "00003.png", at / "98.png")
    (at / "00007.png").unlink()
    assert "62 samples asked for, 61 found, 59 distinct" in one_line(CountError, evaluate, at, TINY, count=62)
    message = one_line(CountError, evaluate, at, TINY, out=tmp_path / "out")
    assert message.startswith(
        f"{at}: 61 samples asked for, 61 found, 59 distinct; leave out those that are there again"
    )
    assert not (tmp_path / "out" / "evaluation.json").exists()
    found = evaluate(at, TINY, out=tmp_path / "out", repeats=True)
    assert (found.samples.found, found.samples.distinct, found.copies) == (61, 59, 59)


def test_real_images_may_be_there_twice():
    assert evaluate(TINY[:20], TINY[20:40].repeat(2, 1, 1, 1)).real == metrics.Counted("the real images", None, 40, 20)
