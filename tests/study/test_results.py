"""A finished study: read back as it was saved, and refused in one line where it cannot be."""

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddim_ode.solvers import METHODS
from ddim_ode.study.cells import StudyError
from ddim_ode.study.comparison import Study, compare
from ddim_ode.study.report import page
from ddim_ode.study.rows import Row
from ddim_ode.support.outputs import OutputError
from tests.helpers.assertions import one_line
from tests.helpers.command_line import unsealed
from tests.helpers.mixtures import labelled
from tests.helpers.small_study import MIXTURE, MODEL
from tests.helpers.tables import PATHS

OWN = METHODS["ddim"].grid
FILES = {"report.html", "results.json", "results.csv", "pictures.safetensors", "work_precision.png", "sheet.png"}


@pytest.fixture(scope="module")
def study() -> Study:
    """Rows of every kind: without an error, with reconstructions and distances, and one that cannot be done."""
    real = MIXTURE.sample(50, seed=1).clamp(-1, 1)
    return compare(
        MODEL,
        ["ddim", "exact_heun", "dopri5"],
        [5],
        range(12),
        labels=[0, 1, 2] * 4,
        etas=[0.0, 0.5],
        real=real,
        reference_tol=0.01,
    )


@pytest.fixture
def saved(study, tmp_path) -> Path:
    study.save(tmp_path / "a")
    return tmp_path / "a"


def test_a_study_is_read_back_and_saved_again_byte_for_byte(study, saved, tmp_path):
    files = Study.load(saved).save(tmp_path / "b")
    assert {file.name for file in files} == FILES
    for name in FILES:
        assert (tmp_path / "b" / name).read_bytes() == (saved / name).read_bytes(), name


def test_what_is_read_back_has_its_types(study, saved):
    found = Study.load(saved)
    assert {row.status for row in found.rows} == {"done", "skipped"}
    assert found.rows == study.rows
    assert found.results == study.results
    for name in ("model", "settings", "reference", "timing", "best", "versions", "command"):
        assert getattr(found, name) == getattr(study, name)
    assert list(found.pictures) == list(study.pictures)
    assert all(torch.equal(pictures, study.pictures[key]) for key, pictures in found.pictures.items())


def test_samples_that_are_no_pictures_have_none(tmp_path):
    vectors = labelled((5,)).denoiser(PATHS["linear"])
    study = compare(vectors, ["ddim"], [3], range(2), reference_tol=0.1)
    assert {file.name for file in study.save(tmp_path)} == FILES - {"pictures.safetensors", "sheet.png"}
    found = Study.load(tmp_path)
    assert found.pictures == {}
    assert found.rows == study.rows


def test_an_infinite_number_is_read_as_none(study, tmp_path):
    perfect = dataclasses.replace(study.rows[0], psnr=math.inf)
    dataclasses.replace(study, rows=(perfect, *study.rows[1:])).save(tmp_path)
    assert Study.load(tmp_path).rows[0].psnr is None


def test_a_row_by_its_key(study):
    assert study.row(f"ddim|{OWN}|nfe=5|eta=0.5").eta == 0.5
    line = one_line(StudyError, study.row, f"ddim|{OWN}|nfe=5")
    assert line.startswith(f"unknown row 'ddim|{OWN}|nfe=5'; did you mean 'ddim|{OWN}|nfe=5|eta=0.")


def test_a_row_is_a_record_and_a_record_a_row(study):
    for row in study.rows:
        assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_a_range_of_guidance_is_told_and_kept(tmp_path):
    few: dict[str, Any] = {"methods": ["ddim"], "nfe": [2], "seeds": [0], "labels": [1], "reference_tol": 0.1}
    found = compare(MODEL, **few, guidance=2.0, guidance_range=(1, None))
    found.save(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["settings"]["guidance_range"] == [1.0, None]
    assert Study.load(tmp_path).settings == found.settings
    assert "2.0, where sigma is above 1" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_results_of_before_something_was_told_lack_it(study, saved):
    results = unsealed(saved / "results.json")
    assert results["settings"].pop("guidance_range") is None
    assert results["settings"].pop("own_grids") == {name: METHODS[name].grid for name in ("ddim", "exact_heun")}
    assert {row.pop("grid_cost") for row in results["rows"]} == {None}
    assert (results["timing"].pop("processes"), results["timing"].pop("devices")) == (1, ["cpu"])
    (saved / "results.json").write_text(json.dumps(results))
    found = Study.load(saved)
    assert found.settings == dataclasses.replace(study.settings, own_grids={})
    assert found.timing == dataclasses.replace(study.timing, devices=[])
    assert found.rows == study.rows


def test_numbers_of_other_libraries_are_kept_as_plain_ones(study, tmp_path):
    few: dict[str, Any] = {"methods": ["ddim"], "nfe": [2], "seeds": [0], "labels": [1], "reference_tol": 0.1}
    found = compare(MODEL, **few, batch_size=np.int64(8), guidance=np.float32(2.0))
    found.save(tmp_path)
    settings = Study.load(tmp_path).settings
    assert settings == found.settings
    assert (settings.batch_size, settings.guidance) == (8, 2.0)


@pytest.mark.parametrize("last", ["write_report", "write_csv"])
def test_a_folder_that_is_written_again_is_what_it_was_until_all_is_there(study, saved, last, monkeypatch):
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    monkeypatch.setattr(page, last, killed)
    with pytest.raises(KeyboardInterrupt):
        study.save(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_it_is_not_finished_while_its_files_are_exchanged(study, saved, monkeypatch):
    """A page of one study beside the results of another would be read as one."""
    replace, calls = os.replace, []

    def killed(source: Path, target: Path) -> None:
        calls.append(target)
        if Path(target).parent == saved:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        study.save(saved)
    assert "holds no study (no results.json)" in one_line(StudyError, Study.load, saved)


def test_pictures_of_another_study_are_refused(study, saved, tmp_path):
    dataclasses.replace(study, command="another").save(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "pictures.safetensors", saved)
    assert "is of other results than results.json" in one_line(StudyError, Study.load, saved)


AGAIN = "run the same study again with this --out, which measures nothing that is kept"


def test_a_folder_that_holds_no_finished_study(saved, tmp_path):
    line = one_line(StudyError, Study.load, tmp_path / "none")
    assert line.startswith(f"{tmp_path / 'none'} is not a folder; give one that `ddim-ode compare --out`")
    (tmp_path / "empty").mkdir()
    assert "holds no study (no results.json)" in one_line(StudyError, Study.load, tmp_path / "empty")
    compare(MODEL, ["ddim"], [2], [0], reference_tol=0.1, out=tmp_path / "begun")  # and killed before it was saved
    line = one_line(StudyError, Study.load, tmp_path / "begun")
    assert line == (
        f"the study in {tmp_path / 'begun'} is not finished; run it again with this --out, and it goes on where it was"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"format": 1, "model": {', "is not valid JSON"),
        ("\0\0\0\0", "is not valid JSON"),
        ("[1, 2]", "has format None, and this version reads format 1"),
        ('{"format": 2}', "has format 2, and this version reads format 1"),
        ('{"format": 1}', "the study lacks fields: best, command, model, reference, rows, settings, timing, versions"),
    ],
)
def test_results_that_are_damaged_or_of_another_format(saved, text, line):
    (saved / "results.json").write_text(text)
    found = one_line(StudyError, Study.load, saved)
    assert line in found
    assert found.startswith(str(saved / "results.json"))
    assert found.endswith(AGAIN)


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda row: row | {"colour": "red", "taste": 1}, "the study.rows[0] has unknown fields: colour, taste"),
        (lambda row: without(without(row, "psnr"), "ssim"), "the study.rows[0] lacks fields: psnr, ssim"),
        (lambda row: row | {"error": without(row["error"], "share")}, "the study.rows[0].error lacks fields: share"),
        (lambda row: row | {"error": 0.1}, "the study.rows[0].error is 0.1, and should be Errors or NoneType"),
        (lambda row: row | {"nfe": "five"}, "the study.rows[0].nfe is 'five', and should be int or NoneType"),
        (lambda row: row | {"steps": True}, "the study.rows[0].steps is True, and should be float or NoneType"),
        (
            lambda row: row | {"status": "lost"},
            "the study.rows[0].status is 'lost', and should be typing.Literal['done'",
        ),
        (lambda row: row["key"], "and should be Row"),
    ],
)
def test_a_row_with_other_fields_is_named(saved, change, line):
    results = unsealed(saved / "results.json")
    results["rows"][0] = change(results["rows"][0])
    (saved / "results.json").write_text(json.dumps(results))
    found = one_line(StudyError, Study.load, saved)
    assert line in found
    assert found.endswith(AGAIN)


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-9])])
def test_pictures_that_are_gone_or_damaged(saved, damage):
    damage(saved / "pictures.safetensors")
    line = one_line(StudyError, Study.load, saved)
    assert line.startswith(f"{saved / 'pictures.safetensors'} ")
    assert line.endswith(AGAIN)


@pytest.mark.parametrize("name", ["results.json", "pictures.safetensors"])
def test_a_bit_that_flips_is_found_or_says_the_same(name, study, saved):
    written = (saved / name).read_bytes()
    for bit in torch.randint(8 * len(written), (40,), generator=torch.Generator().manual_seed(0)).tolist():
        flipped = bytearray(written)
        flipped[bit // 8] ^= 1 << bit % 8
        (saved / name).write_bytes(flipped)
        try:
            found = Study.load(saved)
        except StudyError:
            continue
        assert found.rows == study.rows
        assert all(torch.equal(found.pictures[key], pictures) for key, pictures in study.pictures.items())


@pytest.mark.parametrize("name", ["report.html", "results.json", "results.csv", "sheet.png"])
def test_files_of_strangers_are_not_replaced(name, study, tmp_path):
    (tmp_path / name).write_text("precious")
    (tmp_path / "notes.txt").write_text("mine")
    line = one_line(OutputError, study.save, tmp_path)
    assert line == f"{tmp_path} holds {name}, and no study of ours; choose another folder"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "precious", "notes.txt": "mine"}
