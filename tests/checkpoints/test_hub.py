"""A name of the hub is fetched by huggingface_hub if it is there, and only if it can be nothing else."""

import fnmatch
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import ddim_ode
from ddim_ode.checkpoints import CheckpointError, CheckpointWarning, hub, is_local
from tests.helpers.assertions import one_line
from tests.helpers.foreign import LAYOUTS, pipeline, unet2d

Calls = list[dict[str, Any]]
WEIGHTS = "diffusion_pytorch_model.safetensors"
SAID = "looking for someone/a-model on the Hugging Face hub"


@pytest.fixture
def installed(monkeypatch) -> Callable[..., Calls]:
    """A stand-in for huggingface_hub, which answers so and has those files; what it is asked is listed."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def install(answer: Callable[..., str], files: list[str] | None = None) -> Calls:
        calls: Calls = []

        def snapshot_download(name: str, **options: Any) -> str:
            calls.append({"name": name, **options})
            return answer(**options)

        def list_repo_files(name: str) -> list[str]:
            return [f"unet/{WEIGHTS}"] if files is None else files

        functions = {"snapshot_download": snapshot_download, "list_repo_files": list_repo_files}
        monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(**functions))
        return calls

    return install


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """Something to wait for that does not come before the test has ended."""
    event = threading.Event()
    yield event
    event.set()


def absent(local_files_only: bool = False, **options: Any) -> str:
    raise OSError("Cannot find an appropriate cached snapshot.\nYou are offline.")


@pytest.fixture
def cached(tmp_path) -> Any:
    pipeline(tmp_path / "cache", unet2d(LAYOUTS["no attention"]))
    return tmp_path / "cache"


def test_a_name_of_the_hub_is_fetched_and_said(cached, installed):
    def answer(local_files_only: bool = False, **options: Any) -> str:
        return absent() if local_files_only else str(cached)

    calls = installed(answer)
    with pytest.warns(CheckpointWarning, match=SAID):
        model = ddim_ode.load("someone/a-model", check=False)
    assert model.provenance.folder == str(cached)
    assert [call["name"] for call in calls] == ["someone/a-model"] * 3
    look, facts, everything = calls
    assert look["local_files_only"]
    assert all(pattern.endswith(".json") for pattern in facts["allow_patterns"])
    assert everything["allow_patterns"] == [*hub.FACTS, f"unet/{WEIGHTS}"]
    assert facts["etag_timeout"] == everything["etag_timeout"] == hub.ETAG_SECONDS


@pytest.mark.parametrize("offline", [False, True])
def test_what_is_in_the_cache_is_taken_without_a_question(cached, installed, offline):
    calls = installed(lambda **options: str(cached))
    assert ddim_ode.load("someone/a-model", check=False, offline=offline).provenance.folder == str(cached)
    assert [call.get("local_files_only") for call in calls] == [True]


@pytest.mark.parametrize("lost", ["unet/diffusion_pytorch_model.safetensors", "a shard"])
def test_what_is_half_in_the_cache_is_fetched(cached, installed, lost):
    file = cached / "unet/diffusion_pytorch_model.safetensors"
    file.rename(cached / "away")
    if lost == "a shard":
        shutil.copy(cached / "away", cached / "unet/one.safetensors")
        index = '{"weight_map": {"a": "one.safetensors", "b": "other.safetensors"}}'
        (cached / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(index)

    def answer(local_files_only: bool = False, allow_patterns: Any = (), **options: Any) -> str:
        if not local_files_only:
            (cached / "away").rename(file) if (cached / "away").exists() else None
            (cached / "unet/diffusion_pytorch_model.safetensors.index.json").unlink(missing_ok=True)
        return str(cached)

    installed(answer)
    with pytest.warns(CheckpointWarning, match=SAID):
        assert ddim_ode.load("someone/a-model", check=False).shape == (3, 8, 8)


@pytest.mark.parametrize("place", ["unet/", ""], ids=["pipeline", "flat"])
@pytest.mark.parametrize("part", ["network", "whole"])
def test_a_part_in_the_cache_is_no_model(tmp_path, installed, place, part):
    whole, cache = tmp_path / "whole", tmp_path / "cache"
    pipeline(whole, unet2d(LAYOUTS["no attention"]))
    if not place:
        for file in [*(whole / "unet").iterdir(), whole / "scheduler/scheduler_config.json"]:
            file.rename(whole / file.name)
        (whole / "unet").rmdir()
    shutil.copytree(whole, cache)
    if part == "network":  # as UNet2DModel.from_pretrained leaves it
        shutil.rmtree(cache / "scheduler")
        (cache / "scheduler_config.json").unlink(missing_ok=True)
        (cache / "model_index.json").unlink()

    def answer(local_files_only: bool = False, **options: Any) -> str:
        return str(cache if local_files_only else whole)

    calls = installed(answer, [place + "config.json", place + WEIGHTS])
    if part == "whole":
        assert ddim_ode.load("someone/a-model", check=False).provenance.folder == str(cache)
        assert len(calls) == 1
        return
    with pytest.warns(CheckpointWarning, match=SAID):
        assert ddim_ode.load("someone/a-model", check=False).provenance.folder == str(whole)
    with pytest.warns(CheckpointWarning) as said:
        found = ddim_ode.load("someone/a-model", check=False, offline=True)
    assert found.provenance.folder == str(cache / place)
    texts = [str(warning.message) for warning in said]
    assert texts[0].startswith("the cache of the hub holds a part of someone/a-model only, without its scheduler")
    assert "DDPM's linear schedule and prediction of noise are assumed" in texts[1]
    assert {warning.filename for warning in said} == {__file__}


def test_a_part_in_the_cache_is_offered_where_the_hub_is_silent(cached, installed):
    shutil.rmtree(cached / "scheduler")
    installed(lambda local_files_only=False, **options: str(cached) if local_files_only else absent())
    with pytest.warns(CheckpointWarning, match=SAID):
        text = one_line(CheckpointError, ddim_ode.load, "someone/a-model")
    assert text.endswith("; give a folder, or offline=True (--offline) for the part that is in the cache")


BIN, INDEX = "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors.index.json"
HALF = "diffusion_pytorch_model.fp16.safetensors"


@pytest.mark.parametrize("place", ["unet/", ""], ids=["pipeline", "flat"])
@pytest.mark.parametrize(
    ("files", "fetched"),
    [
        ([BIN, HALF, WEIGHTS, "diffusion_pytorch_model.msgpack"], [WEIGHTS]),
        ([BIN, INDEX, "a-1[x].safetensors", "a-2.safetensors", "a-1x.safetensors"], [INDEX, "a-1[x].safetensors"]),
        ([HALF, "diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.onnx"], [HALF]),
        ([BIN, "diffusion_flax_model.msgpack"], [BIN]),
        (["model.safetensors"], []),
    ],
)
def test_one_file_of_weights_is_fetched(cached, installed, place, files, fetched):
    if not place:
        (cached / "unet").rename(cached / "elsewhere")
    where = cached / place
    (where / INDEX).write_text(json.dumps({"weight_map": {"a": "a-1[x].safetensors"}}))
    (where / WEIGHTS).unlink(missing_ok=True)
    listed = [place + file for file in files] + [".gitattributes", "vae/" + WEIGHTS, "safety/pytorch_model.bin"]
    calls = installed(lambda local_files_only=False, **options: absent() if local_files_only else str(cached), listed)
    with pytest.warns(CheckpointWarning, match=SAID):
        hub.fetch("someone/a-model")
    asked = calls[-1]["allow_patterns"]
    found = [file for file in listed if any(fnmatch.fnmatch(file, pattern) for pattern in asked)]
    assert sorted(found) == sorted(place + file for file in fetched)


@pytest.mark.parametrize("value", ["1", "ON", "true"])
def test_offline_the_hub_is_not_asked(installed, monkeypatch, value):
    calls = installed(absent)
    text = one_line(CheckpointError, ddim_ode.load, "someone/a-model", offline=True)
    assert "it is not in the cache of the hub, and the hub is not asked when offline" in text
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert one_line(CheckpointError, ddim_ode.load, "someone/a-model") == text
    assert all(call["local_files_only"] for call in calls)


def test_a_hub_that_does_not_answer_is_not_waited_for(installed, never, monkeypatch):
    def answer(local_files_only: bool = False, **options: Any) -> str:
        if not local_files_only:
            never.wait()
        return absent()

    installed(answer)
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.05)
    with pytest.warns(CheckpointWarning, match=SAID):
        text = one_line(CheckpointError, ddim_ode.load, "someone/a-model")
    assert "could not be fetched from the hub (no answer in 0.05 s); give a folder" in text


def test_a_folder_comes_first(tmp_path, monkeypatch):
    pipeline(tmp_path / "someone/a-model", unet2d(LAYOUTS["no attention"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert ddim_ode.load("someone/a-model", check=False).provenance.folder == "someone/a-model"
    assert is_local("someone/a-model")


def test_without_the_package_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    text = one_line(CheckpointError, ddim_ode.load, "someone/a-model")
    assert "there is no folder 'someone/a-model'" in text
    assert "pip install huggingface_hub" in text


@pytest.mark.parametrize("error", [OSError("Cannot find it.\nYou are offline."), ValueError("x" * 9999), KeyError()])
def test_what_the_hub_says_is_passed_on_in_one_line(installed, error):
    def answer(**options: Any) -> str:
        raise error

    installed(answer)
    with pytest.warns(CheckpointWarning, match=SAID):
        text = one_line(CheckpointError, ddim_ode.load, "someone/a-model")
    assert f"could not be fetched from the hub ({(str(error) or 'KeyError')[:15]}" in text
    assert text.endswith("); give a folder")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a/b/c",
            "/a/b",
            "../b",
            "./b",
            "fashoin",
            "a/.b",
            "a\\b",
            "a/b..c",
            "a--b/c",
            "a/b.",
            "a/b\n",
            "a/ b",
            "é/b",
        ),
        *("a/model.pt", "a/model.SAFETENSORS", "a/config.yaml", "a/x.json", "a/ckpt.pth", "a/b.git", "a/" + "b" * 200),
        "here/missing",
    ],
)
def test_other_names_are_not_looked_for_there(tmp_path, installed, monkeypatch, name):
    calls = installed(absent)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert not hub.is_hub_id(name)
    assert not is_local(name)
    assert "there is no model" in one_line(CheckpointError, ddim_ode.load, name)
    assert calls == []


@pytest.mark.parametrize("name", ["google/ddpm-cifar10-32", "a/b", "stabilityai/sd-v1.5", "A_b/c.d-e_f"])
def test_names_of_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert hub.is_hub_id(name)
    assert not is_local(name)


def test_a_bundled_model_is_local():
    assert is_local("fashion")
