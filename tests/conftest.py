"""Settings that must hold before torch is imported, and the fixtures of several files. Nothing is seeded here: a test
passes its own seed.
"""

import os

# Idle OpenMP threads that spin slow torch several-fold as soon as another process is busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch
from helpers import KINDS, Command, Ran, folder_of, make_model, settings
from PIL import Image

from ddim_ode.cli import main
from ddim_ode.train import Run, train

# The same examples on every run, and no time limit an example could miss by chance.
hypothesis.settings.register_profile("ddim_ode", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ddim_ode")


# --- training


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One folder of each kind of data."""
    generator = torch.Generator().manual_seed(0)
    images = tmp_path_factory.mktemp("images")
    for i in range(24):
        pixels = torch.randint(256, (64,), generator=generator).tolist()
        Image.frombytes("L", (8, 8), bytes(pixels)).save(images / f"{i:02d}.png")
    fashion = tmp_path_factory.mktemp("fashion")
    pixels = torch.randint(256, (20 * 784,), generator=generator).tolist()
    header = b"".join(n.to_bytes(4, "big") for n in (20, 28, 28))
    (fashion / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + header + bytes(pixels))
    (fashion / "train-labels-idx1-ubyte").write_bytes(
        b"\0\0\x08\x01" + (20).to_bytes(4, "big") + bytes(k % 10 for k in range(20))
    )
    return {"images": images, "fashion-mnist": fashion}


@pytest.fixture
def pictures(request, monkeypatch) -> None:
    """The sheet of samples costs more than all else; in a file that uses this, only the tests marked so draw it."""
    if "draws" not in request.fixturenames:
        monkeypatch.setattr(Run, "picture", lambda self: None)


@pytest.fixture
def draws() -> None:
    """Ask for the sheet of samples."""


@pytest.fixture(scope="session")
def whole(folders, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of an uninterrupted run of each kind, made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("whole")
            config = settings(**KINDS[kind])
            train(config, made[kind], folder_of(config, folders))
        return made[kind]

    return get


# --- the command line


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def fails(run: Command) -> Callable[..., str]:
    """Run something that must fail as bad input does; returns the line."""

    def fails(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return fails
