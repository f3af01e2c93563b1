"""`ddim-ode sample` in shards: the same bytes by any number of processes, whatever becomes of them on the way."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ddim_ode
from ddim_ode.cli import main
from ddim_ode.commands.shared.manifest import read_manifest
from ddim_ode.support.outputs import going_on
from tests.helpers.command_line import Command
from tests.helpers.launching import kill, launched, ranks_of, started
from tests.helpers.launching import run as ran
from tests.helpers.sharding import bytes_of, contents, flip

HOW = ["-n", 11, "--nfe", 3, "--batch-size", 2]
SHARDS = [*HOW, "--shard-size", 4]
PACKAGE = Path(ddim_ode.__file__).parent  # whose files a traceback would name
MANY = ["-n", 320, "--nfe", 10, "--label", "each", "--batch-size", 8, "--shard-size", 8]  # 40 shards


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process has made of it undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(["sample", *map(str, (model, *MANY)), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_writes_the_same_bytes(
    model: Path, whole: Path, tmp_path: Path, processes: int
) -> None:
    ended = ran(launched(["sample", model, *MANY, "--out", tmp_path / "out", "--json"], processes))
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)  # by one of them
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (told["count"], told["shards"], told["made"], told["digest"]) == (320, 40, 40, index["digest"])
    assert contents(tmp_path / "out") == contents(whole)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("process ")]
    assert len(lines) == processes
    assert sum(int(line.split(": ")[1].split()[0]) for line in lines) == 40  # "process 1 of 2: 24 of 40 shards, ..."


def wait_for(shards: int, out: Path, launcher: object) -> None:
    """Until a run has written so many shards."""
    end = time.monotonic() + 60
    while len(list((out / "shards").glob("*.json"))) < shards:
        assert launcher.poll() is None  # type: ignore[attr-defined]
        assert time.monotonic() < end
        time.sleep(0.005)


def assert_told(err: str) -> None:
    """What a run that was killed has said, but for torch's own: no traceback of ours, and one line a process."""
    ours = [line for line in err.splitlines() if line.startswith("error: ")]
    assert not [line for line in err.splitlines() if f"{PACKAGE}/" in line], err
    assert len(ours) <= 2, err
    assert all("process" in line or "launcher" in line or "store" in line for line in ours), err


def test_killed_at_any_moment_it_goes_on(run: Command, model: Path, whole: Path, tmp_path: Path) -> None:
    out, command = tmp_path / "out", ["sample", model, *MANY, "--out", tmp_path / "out"]
    for shards, who in ((3, "a process"), (12, "the launcher"), (22, "all")):
        launcher = started(launched(command, 2))
        wait_for(shards, out, launcher)
        ranks = ranks_of(launcher)
        kill(*{"a process": ranks[1:], "the launcher": [launcher.pid], "all": [launcher.pid, *ranks]}[who])
        _, err = launcher.communicate(timeout=60)  # which ends when all have
        assert_told(err)
    done, _, err = run(*command, "--json")
    assert (done, err) == (0, "")
    assert contents(out) == contents(whole)


def test_a_plain_run_has_the_same_samples(run: Command, model: Path, tmp_path: Path) -> None:
    assert run("sample", model, *HOW, "--threads", 1, "--out", tmp_path / "plain").code == 0
    assert run("sample", model, *SHARDS, "--out", tmp_path / "shards").code == 0
    parts = [load_file(tmp_path / "shards" / f"samples-0000{n}-of-00003.safetensors") for n in range(3)]
    plain = load_file(tmp_path / "plain" / "samples.safetensors")
    assert all(torch.equal(torch.cat([part[name] for part in parts]), plain[name]) for name in ("x", "seeds"))


@pytest.mark.filterwarnings("default")
def test_a_finished_folder_says_so(run: Command, model: Path, tmp_path: Path) -> None:
    command = ["sample", model, *SHARDS, "--out", tmp_path / "out"]
    code, first, err = run(*command)
    assert (code, err) == (0, "")
    told = first.splitlines()
    assert told[0] == str(tmp_path / "out" / "grid.png")
    assert told[1].startswith("11 samples in 3 shards, measured NFE 3, ")
    manifest = (tmp_path / "out" / "manifest.json").read_text()
    code, again, err = run(*command)
    assert (code, err) == (0, "")
    assert "3 shards of 11 samples were there already, and are as they were written" in again
    assert again.splitlines()[-1] == told[-1]  # the digest
    assert (tmp_path / "out" / "manifest.json").read_text() == manifest
    data = bytearray((tmp_path / "out" / "samples-00001-of-00003.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "out" / "samples-00001-of-00003.safetensors").write_bytes(data)
    code, mended, err = run(*command)
    assert code == 0
    assert err == (
        f"warning: {tmp_path}/out/samples-00001-of-00003.safetensors is not as it was written; shard 1 is made again\n"
    )
    assert "2 of 3 shards were there already, and are as they were written" in mended
    assert mended.splitlines()[-1] == told[-1]


@pytest.mark.filterwarnings("default")
def test_a_manifest_is_made_again_where_it_is_not_this_runs(run: Command, model: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    command = ["sample", model, *SHARDS, "--out"]
    assert run(*command, out).code == run(*command, other, "--method", "euler").code == 0
    expected = read_manifest(out / "manifest.json").model_dump(exclude={"seconds"})

    def mended() -> str:
        code, _, err = run(*command, out)
        assert code == 0
        assert read_manifest(out / "manifest.json").model_dump(exclude={"seconds"}) == expected
        return err

    (out / "manifest.json").unlink()
    assert mended() == ""
    (out / "manifest.json").write_bytes((other / "manifest.json").read_bytes())
    assert mended() == ""
    flip(out / "manifest.json", 300)
    assert mended() == f"warning: {out}/manifest.json is not as it was written; it is made again\n"


@pytest.mark.parametrize(
    "options",
    [["--label", "each", "--guidance", 1.5], ["--method", "adaptive", "--tol", 0.3], ["--format", "npz"]],
    ids=str,
)
def test_a_manifest_recreates_them(run: Command, model: Path, tmp_path: Path, options: list[object]) -> None:
    how = ["-n", 11, "--batch-size", 2, "--shard-size", 4, *options]
    assert run("sample", model, *how, "--out", tmp_path / "out").code == 0
    again = ["sample", "--manifest", tmp_path / "out" / "manifest.json", "--out"]
    assert run(*again, tmp_path / "other").code == 0
    names = {"index.json", "grid.png"}
    found, expected = contents(tmp_path / "other"), contents(tmp_path / "out")
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}
    code, _, err = run(*again, tmp_path / "pictures", "--format", "png")
    assert (code, err) == (0, "")
    assert torch.equal(bytes_of(tmp_path / "pictures"), bytes_of(tmp_path / "out"))


def test_a_plain_run_may_replace_shards_and_shards_a_plain_run(
    run: Command, fails: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "out"]
    assert run("sample", model, *HOW, *out).code == 0
    line = fails("sample", model, *SHARDS, *out)
    assert "out is not empty; choose another --out, or replace it with --overwrite" in line
    assert (tmp_path / "out" / "samples.safetensors").exists()
    assert run("sample", model, *SHARDS, *out, "--overwrite").code == 0
    assert not (tmp_path / "out" / "samples.safetensors").exists()
    assert (tmp_path / "out" / "index.json").exists()
    line = fails("sample", model, *HOW, *out)
    assert "out is not empty; choose another --out, or replace it with --overwrite" in line
    assert run("sample", model, *HOW, *out, "--overwrite").code == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "grid.png",
        "manifest.json",
        "samples.safetensors",
    ]


def test_another_run_is_refused_by_name(run: Command, fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    assert run("sample", model, *SHARDS, *out).code == 0
    line = fails("sample", model, *SHARDS, "--method", "euler", *out)
    assert line == (
        f'error: {tmp_path}/out belongs to another run: its method is "ddim", not "euler"; give the same, choose'
        " another --out, or replace it with --overwrite\n"
    )
    with going_on(tmp_path / "out", "job.json", "ddim_ode job 1", {}):
        assert f"another run is at work in {tmp_path}/out" in fails("sample", model, *SHARDS, *out)


def test_a_folder_that_cannot_be_written_is_one_line(fails: Callable[..., str], model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file is a file; choose another --out" in fails("sample", model, *SHARDS, "--out", tmp_path / "file")
    assert "cannot be written: " in fails("sample", model, *SHARDS, "--out", tmp_path / "file" / "a")
    assert "cannot be written: " in fails("sample", model, *SHARDS, "--out", "/proc/none/a")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--images"], "shards take no --images: --format png writes pictures; leave that out"),
        (["--trace", "--method", "adaptive"], "shards take no --trace: a plain run draws it; leave that out"),
        (["--shard-size", 5, "--batch-size", 2], "shard_size=5 is no multiple of batch_size=2"),
        (["--guidance", 2], "guidance=2 has no label to guide to"),
    ],
    ids=str,
)
def test_what_shards_do_not_take(run: Command, model: Path, tmp_path: Path, options: list[object], told: str) -> None:
    code, _, err = run("sample", model, "--shards", *options, "--out", tmp_path / "out")
    assert code == 2
    assert told in err
    assert not (tmp_path / "out").exists()


def test_a_cascade_is_drawn_whole_by_one_process(
    fails: Callable[..., str], run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run("sample", "fashion-cascade", "--shards", "--out", tmp_path / "out")
    assert code == 2
    assert "a cascade takes no --shards; leave that out" in err
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("ddim_ode.cli.speaks", lambda *_: True)
    monkeypatch.setattr("ddim_ode.cli.fail", lambda: None)
    line = fails("sample", "fashion-cascade", "--out", tmp_path / "out")
    assert "a cascade runs in one process, and this is one of 2; leave the launcher out" in line


# --- labels


def labels_in(folder: Path) -> list[int]:
    parts = [load_file(file)["labels"] for file in sorted(folder.glob("samples*.safetensors"))]
    found: list[int] = torch.cat(parts).tolist()
    return found


@pytest.mark.parametrize("options", [HOW, SHARDS], ids=["plain", "shards"])
@pytest.mark.parametrize("name", ["labels.txt", "labels.npy"])
def test_labels_of_a_file(run: Command, model: Path, tmp_path: Path, options: list[object], name: str) -> None:
    labels = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    np.save(tmp_path / "labels.npy", labels)
    command = ["sample", model, *options, "--out", tmp_path / "out"]
    code, _, err = run(*command, "--label", tmp_path / name)
    assert (code, err) == (0, "")
    assert labels_in(tmp_path / "out") == labels
    (tmp_path / name).unlink()
    again = run("sample", "--manifest", tmp_path / "out" / "manifest.json", "--out", tmp_path / "again")
    assert (again.code, again.err) == (0, "")
    assert labels_in(tmp_path / "again") == labels


def test_labels_in_proportion(run: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("2\n2\n7\n")
    command = ["sample", model, "-n", 9, "--nfe", 1, "--label", f"proportions:{tmp_path}/labels.txt", "--out"]
    assert run(*command, tmp_path / "plain").code == 0
    assert run(*command, tmp_path / "shards", "--shards").code == 0
    assert Counter(labels_in(tmp_path / "plain")) == {2: 6, 7: 3}
    assert labels_in(tmp_path / "plain") == labels_in(tmp_path / "shards")
    of_images = ["sample", model, "-n", 9, "--nfe", 1, "--label", "proportions:bundled", "--out", tmp_path / "bundled"]
    assert run(*of_images).code == 0
    assert set(Counter(labels_in(tmp_path / "bundled")).values()) == {1}


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (
            "three",
            "label='three' is no class; give a whole number, 'each' for all in turn, a file with one class a line",
        ),
        ("few.txt", "few.txt has 3 labels, for 11 samples; give one a sample, or proportions:"),
        ("words.txt", "words.txt holds 'shoe', which is no class; give a text file with one class a line"),
        ("none.txt", "none.txt holds nothing; give a text file with one class a line"),
        ("broken.npy", "broken.npy is no array of numbers"),
        ("table.npy", "table.npy is no list of whole numbers"),
        ("high.txt", "label 10 does not exist; this model has labels 0..9"),
        ("proportions:", "label='proportions:' is no class"),
        ("proportions:nothing", "nothing: no such file or folder"),
        ("12", "label 12 does not exist; this model has labels 0..9"),
    ],
)
@pytest.mark.parametrize("options", [HOW, SHARDS], ids=["plain", "shards"])
def test_labels_that_cannot_be(
    fails: Callable[..., str],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    label: str,
    told: str,
    options: list[object],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("few.txt").write_text("1 2 3")
    Path("words.txt").write_text("1\nshoe\n")
    Path("none.txt").write_text("\n")
    Path("broken.npy").write_bytes(b"\x93NUMPY")
    Path("high.txt").write_text("10\n" * 11)
    np.save("table.npy", np.zeros((11, 2), int))
    assert told in fails("sample", model, *options, "--label", label, "--out", "out")
    assert not Path("out").exists()
