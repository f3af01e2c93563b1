"""The classes in files, as they are given, and as strangers leave them."""

import numpy as np
import pytest

from ddim_ode.commands.shared.labels import labels_for, parse_classes, read_labels
from ddim_ode.data import DataError
from tests.helpers.assertions import one_line


@pytest.mark.parametrize("name", ["labels.txt", "labels.csv", "labels"])
def test_a_file_of_any_name_has_labels_and_proportions(tmp_path, name):
    (tmp_path / name).write_text("0\n0\n1\n")
    file = str(tmp_path / name)
    assert labels_for(parse_classes(file), 2, 3) == [0, 0, 1]
    assert sorted(labels_for(parse_classes(f"proportions:{file}"), 2, 6)) == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.uint64])
def test_whole_numbers_of_any_kind(tmp_path, kind):
    np.save(tmp_path / "labels.npy", np.array([3, 1, 2], kind))
    assert read_labels(tmp_path / "labels.npy") == [3, 1, 2]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (np.array([1, 2**63], np.uint64), "holds '9223372036854775808', which is no class"),
        (np.array([1, -1]), "holds '-1', which is no class"),
        (np.array([1.0]), "is no list of whole numbers"),
        (np.zeros(0, np.int64), "holds nothing"),
    ],
)
def test_numbers_that_are_no_classes_are_refused(tmp_path, found, words):
    np.save(tmp_path / "labels.npy", found)
    assert f"{tmp_path / 'labels.npy'} {words}; give a text file" in one_line(
        DataError, read_labels, tmp_path / "labels.npy"
    )


def test_an_array_that_says_it_is_endless_is_the_fault_of_its_file(tmp_path):
    file = tmp_path / "labels.npy"
    with file.open("wb") as opened:
        np.lib.format.write_array_header_1_0(opened, {"descr": "<i8", "fortran_order": False, "shape": (10**12,)})
    assert f"{file} is no array of numbers" in one_line(DataError, read_labels, file)
