"""The index of a folder in shards is read as it was written, or refused in one line."""

import json
from dataclasses import replace

import pytest

from ddim_ode.errors import DDIMError
from ddim_ode.support.records import write_record
from ddim_ode.support.shards import INDEX, KIND, Index, Shard, read_index, write_index

FIRST = Shard({"a.tar": "0" * 64}, 2, "0-1", (3, 4), {5: 1, 7: 1}, 1)
WHOLE = Index(3, 3, "webdataset", (1, 8, 8), "f" * 64, (FIRST, replace(FIRST, count=1, seeds="9", labels=(1,))), {})


def test_it_is_read_as_it_was_written(tmp_path):
    write_index(tmp_path, WHOLE)
    assert read_index(tmp_path, DDIMError) == WHOLE
    assert WHOLE.labels == [3, 4, 1]
    assert replace(WHOLE, shards=(replace(FIRST, labels=None),)).labels is None


def test_none_is_one_line(tmp_path):
    with pytest.raises(DDIMError, match=r"index\.json cannot be read: No such file or directory; give a folder that"):
        read_index(tmp_path, DDIMError)


def test_a_changed_one_is_found_out(tmp_path):
    write_index(tmp_path, WHOLE)
    told = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps({**told, "asked": 4}))
    with pytest.raises(DDIMError, match="is not as it was written"):
        read_index(tmp_path, DDIMError)


@pytest.mark.parametrize("told", [{}, {"shape": 3, "shards": []}, {"shape": [1], "shards": [{"labels": None}]}])
def test_one_that_does_not_say_what_it_holds(tmp_path, told):
    write_record(tmp_path / INDEX, KIND, told)
    with pytest.raises(DDIMError, match="does not say what it holds"):
        read_index(tmp_path, DDIMError)
