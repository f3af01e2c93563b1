"""A few hundred command lines, files, calls and flipped bits of `benchmarks/fuzz.py`, and what judges them."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from benchmarks.fuzzing import api, command_line, containers, kinds, mutate, pool, report
from benchmarks.fuzzing.inputs import CLEAN, FINE, FOREIGN, HANG, MEMORY, SILENT, Fault, Input, Verdict
from benchmarks.fuzzing.judge import judge
from ddim_ode import paths
from ddim_ode.errors import DDIMError
from ddim_ode.grids import make_grid
from ddim_ode.models.denoiser import Denoiser

COUNTS = {"command_line": 60, "files": 100, "api": 150, "bits": 20}
#: subjects of which one input takes half a second and more, or imports diffusers
SLOW = {"compare", "recommend", "train", "quality", "study.json", "cell.safetensors", "unet_config.json", "train.yaml"}
SLOW |= {"checkpoint.pt", "log.csv", "checkpoint", "cell", "results.json", "pictures.safetensors"}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """What came of the inputs, all from one worker."""
    names = []
    for kind, count in COUNTS.items():
        subjects = [subject for subject in kinds.KINDS[kind].SUBJECTS if subject not in SLOW]
        names += kinds.names(kind, count, seed=0, subjects=subjects)
    return {verdict.name: verdict for verdict in pool.run(names)}


@pytest.mark.parametrize("kind", COUNTS)
def test_bad_input_is_refused_in_one_line_or_does_no_harm(kind, verdicts):
    found = [verdict for name, verdict in verdicts.items() if name.startswith(f"{kind}:")]
    assert len(found) == COUNTS[kind]
    usual = {CLEAN} if kind == "bits" else {CLEAN, FINE}  # neither all bad nor all harmless; of a bit each is found
    assert {verdict.outcome for verdict in found} >= usual
    assert not report.distinct(found), report.text(found)


class Untidy(DDIMError):
    """An error whose message is what it is given."""

    def __init__(self, message: str):
        self.message = message

    def __str__(self) -> str:
        return self.message


def raising(error: BaseException) -> Callable[[], str]:
    def run() -> str:
        raise error

    return run


def inside_the_library() -> str:
    """A network that raises, in the library's call of it."""

    def net(*inputs: torch.Tensor) -> torch.Tensor:
        raise KeyError("gone")

    Denoiser(net, paths.angle, "noise", (1,))(torch.zeros(1, 1), 1.0)
    return FINE


def endless() -> str:
    while True:
        pass


@pytest.mark.parametrize(
    ("run", "outcome", "error"),
    [
        (lambda: FINE, FINE, ""),
        (raising(DDIMError("nfe=3 is too small; use nfe >= 4")), CLEAN, ""),
        (raising(Untidy("two\nlines")), FOREIGN, "Untidy (2 lines)"),
        (raising(Untidy("")), FOREIGN, "Untidy (no message)"),
        (raising(Untidy("\x1b[31mred")), FOREIGN, "Untidy (control characters)"),
        (raising(Untidy("a" * 1501)), FOREIGN, "Untidy (over 1500 characters)"),
        (lambda: make_grid(), CLEAN, ""),  # a TypeError of Python's own
        (lambda: inside_the_library(), FOREIGN, "KeyError"),
        (raising(SystemExit(3)), FOREIGN, "SystemExit"),
        (lambda: str(len(bytearray(5 * 2**30))), MEMORY, "MemoryError"),
        (lambda: str(torch.zeros(2**31, dtype=torch.float32)), MEMORY, "RuntimeError"),
        (endless, HANG, "Hung"),
        (raising(Fault(SILENT, "another result")), SILENT, "another result"),
    ],
)
def test_the_outcome_of_an_input(run, outcome, error):
    found = judge(Input("api:x:0", "", run, refusals=(DDIMError,)), seconds=0.5)
    assert (found.outcome, found.error) == (outcome, error)
    assert found.good == (outcome in (CLEAN, FINE))


def test_a_failure_is_placed_in_the_innermost_frame_of_the_library():
    found = judge(Input("api:x:0", "", inside_the_library, (DDIMError,)), seconds=5)
    assert re.fullmatch(r"models/\w+\.py:\d+ in \w+", found.where)
    assert "KeyError: 'gone'" in found.trace


@pytest.mark.parametrize(
    ("printed", "sort"),
    [
        ((0, "out\n", ""), None),
        ((1, "rows\n", "warning: w\n"), None),
        ((2, "", "error: e\n"), None),
        ((2, "", "warning: w\nerror: e\n"), None),
        ((3, "", ""), "code 3"),
        ((0, "", ""), "nothing is printed"),
        ((0, "out", "error: e\n"), "an error, and code 0"),
        ((0, "\x1b[31m", ""), "control characters are printed"),
        ((0, "out", "x.py:1: UserWarning: w\n"), "a warning of other code"),
        ((2, "", ""), "code 2 without one line of error"),
        ((2, "", "error: a\nerror: b\n"), "code 2 without one line of error"),
        ((2, "", "error: a\nand more\n"), "code 2 and other lines"),
        ((2, "", f"error: {'a' * 1500}\n"), "a line over 1500 characters"),
        ((1, "", "Traceback (most recent call last):\n"), "a traceback is printed"),
    ],
)
def test_what_a_command_may_print(printed, sort):
    if sort is None:
        assert command_line.check(*printed) == (CLEAN if printed[0] == 2 else FINE)
        return
    with pytest.raises(Fault) as caught:
        command_line.check(*printed)
    assert caught.value.sort == sort


def write_json(file: Path) -> None:
    file.write_text('{"a": {"b": [1, 2, {"c": "text"}]}, "d": 1.5}')


def write_yaml(file: Path) -> None:
    file.write_text(yaml.safe_dump({"a": {"b": [1, 2, {"c": "text"}]}, "d": 1.5}))


def write_tensors(file: Path) -> None:
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(4)}, file, {"facts": '{"c": [1, 2]}'})


@pytest.mark.parametrize(
    ("name", "write"), [("x.json", write_json), ("x.yaml", write_yaml), ("x.safetensors", write_tensors)]
)
def test_damage_follows_from_the_seed_and_is_of_many_sorts(name, write, tmp_path):
    """Thirty damaged files; the same seed damages in the same way, and few seeds agree."""

    def damaged(seed: int) -> tuple[str, str]:
        folder = tmp_path / "valid"
        folder.mkdir()
        write(folder / name)
        shutil.copy(folder / name, tmp_path / "other")
        changed, done = mutate.damage(folder, name, random.Random(seed), [tmp_path / "other"])
        file = changed / name
        small = file.is_file() and not file.is_fifo() and file.stat().st_size < 2**30 and not file.is_symlink()
        found = file.read_bytes().hex() if small else "no ordinary file"
        shutil.rmtree(changed)
        return done, found

    once = [damaged(seed) for seed in range(30)]
    assert once == [damaged(seed) for seed in range(30)]
    assert len({done for done, _ in once}) > 15


def test_a_pickle_that_runs_code_is_found_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(containers.RunsCode(), "x.pt")
    assert not Path(containers.RAN).exists()
    torch.load("x.pt", weights_only=False)
    assert Path(containers.RAN).exists()


def test_names_share_out_the_kinds_and_seeds_have_none_in_common():
    counts = kinds.shared_out(20_000, list(kinds.KINDS))
    assert counts == kinds.SHARES
    assert sum(kinds.shared_out(7, list(kinds.KINDS)).values()) == 7
    names = [set(kinds.names("api", 1000, seed)) for seed in (0, 1)]
    assert len(names[0]) == 1000
    assert not names[0] & names[1]
    assert all(map(kinds.known, names[0] | names[1]))
    assert not any(map(kinds.known, ["", "api", "api:sample", "api:nothing:3", "nothing:sample:3", "api:sample:x"]))


@pytest.mark.parametrize("subject", ["between", "DiscreteVP", "Autoencoder"])
def test_a_call_follows_from_its_name(subject):
    """Without a number it is the valid call."""
    made = [api.make(subject, "n", random.Random(seed), None, None).what for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    valid = api.make(subject, "n", None, None, None)
    assert valid.what == f"{subject}: "
    assert valid.run() == FINE


def test_the_report_counts_and_groups():
    found = [Verdict(f"api:x:{n}", "call", FOREIGN, "KeyError", "a.py:1 in f", "gone") for n in range(4)]
    found += [Verdict("bits:y:0", "file", CLEAN), Verdict("bits:y:1", "file", SILENT, "another result", "bits:y")]
    first, second = report.distinct(found)
    assert (len(first.verdicts), len(second.verdicts)) == (4, 1)
    text = report.text(found)
    assert "5 inputs failed, in 2 ways" in text
    assert "api:x:0, api:x:1, api:x:2\n" in text
    rows = [line.split("|")[1:-1] for line in report.table(found).splitlines()]
    assert [cell.strip() for cell in rows[2]] == ["api", "4", "0", "0", "4", "0", "0", "0"]
    assert [cell.strip() for cell in rows[3]] == ["bits", "2", "1", "0", "0", "0", "0", "1"]
