"""The row of a table is kept, and read again."""

import json

from ddim_ode.metrics import Evaluation, MetricError, evaluate
from tests.helpers.assertions import one_line
from tests.helpers.evaluations import TINY


def test_an_evaluation_is_kept_and_read_again(tmp_path):
    found = evaluate(TINY[:30], TINY[20:], out=tmp_path)
    assert Evaluation.load(tmp_path / "evaluation.json") == Evaluation.of(json.loads(json.dumps(found.record)))
    assert found.copies == 10
    text = (tmp_path / "evaluation.json").read_text()
    (tmp_path / "evaluation.json").write_text(text.replace('"found": 30', '"found": 31'))
    assert "is not as it was written" in one_line(MetricError, Evaluation.load, tmp_path / "evaluation.json")


def test_a_record_of_something_else_is_one_line(tmp_path):
    record = evaluate(TINY[:30], TINY[20:]).record
    for wrong in ({"found": "30"}, {"asked": 1.5}, {"distinct": True}, {"other": 1}):
        message = one_line(MetricError, Evaluation.of, {**record, "samples": {**record["samples"], **wrong}})
        assert message.startswith("this is no record of an evaluation")
    assert "this is no record of an evaluation" in one_line(MetricError, Evaluation.of, {**record, "samples": 3})
