"""Files of torch.save, read as tensors and plain containers only. No pickle is ever executed.

What torch would take on trust is looked at first: an archive's checksums, and how much it unpacks to.
"""

import os
import pickle
import re
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ddim_ode.checkpoints.faults import CheckpointError
from ddim_ode.support.reading import open_regular
from ddim_ode.support.resources import allocating, check_memory, size

ZIP = b"PK\x03\x04"
PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")  # after the opcode PROTO
MOST_TIMES = 10  # its size on disk that a compressed archive may unpack to; torch itself compresses nothing
OTHER = "use another checkpoint"
ADVICE = re.compile(r"weights[_ ]only", re.IGNORECASE)  # of torch, to have the pickle executed


def is_pickle(file: Path) -> bool:
    """Whether a file begins as a zip archive of torch.save does, or with the opcode PROTO and a protocol number.

    Raises:
        CheckpointError: it cannot be read, or is no regular file.
    """
    with open_regular(file, CheckpointError, OTHER) as opened:
        return _looks_pickled(opened.read(4))


def load_torch(file: Path) -> Any:
    """A torch.save file, tensors and plain containers only; numbers of NumPy become Python's, its arrays are left out.

    Raises:
        CheckpointError: it is cut or damaged, or too large, or it is a pickle that would run code.
    """
    with open_regular(file, CheckpointError, OTHER) as opened:
        start = opened.read(4)
        if start == ZIP:
            _check_archive(opened, file)
        elif not _looks_pickled(start) or _is_tar(opened):
            raise CheckpointError(
                f"{file} is damaged, or of another kind: no archive of torch.save, no pickle; {OTHER}"
            )
    need = os.path.getsize(file)
    check_memory(need, f"{file}", OTHER, CheckpointError)
    numbers = torch.serialization.safe_globals(STAND_INS)  # of NumPy, whose own constructors take more than numbers
    try:
        with warnings.catch_warnings(), allocating(need, f"{file}", OTHER, CheckpointError), numbers:
            warnings.simplefilter("ignore")  # about pickle protocols: it loads, or it is refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # bytes that are no pickle can fail in any way
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"{file} is a pickle that would run code when loaded, so it was refused{_culprit(error)}"
                "; where it was made, save its tensors as safetensors (safetensors.torch.save_file) and give that file"
            ) from None
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if ADVICE.search(reason):
            reason = "torch cannot read it as tensors and plain containers"
        raise CheckpointError(f"{file} is damaged ({reason}); {OTHER}") from None


def _looks_pickled(start: bytes) -> bool:
    return start == ZIP or (start[:1] == b"\x80" and start[1:2] in PROTOCOLS)


def _is_tar(opened: BinaryIO) -> bool:
    """Whether it is the oldest form of torch.save, which begins with a name that may look like a pickle."""
    opened.seek(0)
    return tarfile.is_tarfile(opened)


def _culprit(error: Exception) -> str:
    """What torch says that it will not make, in brackets."""
    found = re.search(r"GLOBAL ([\w.]+)|(?:class|function) ([\w.]+\.[\w.]+)", str(error))
    return f" (it names {(found[1] or found[2]).rstrip('.'):.100})" if found else ""


def _check_archive(opened: BinaryIO, file: Path) -> None:
    """Raise CheckpointError for an archive that is damaged, unpacks to too much, or is a program."""
    stored = os.fstat(opened.fileno()).st_size
    try:
        with zipfile.ZipFile(opened) as archive:
            members = archive.infolist()
            whole = sum(member.file_size for member in members)
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
            if whole > stored * (MOST_TIMES if packed else 1):
                raise CheckpointError(f"{file} would unpack to {size(whole)}, and holds {size(stored)}; {OTHER}")
            check_memory(whole, f"{file}", OTHER, CheckpointError)
            names = {member.filename for member in members}
            if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
                raise CheckpointError(f"{file} is a TorchScript program; save the state_dict of the network instead")
            if len(names) < len(members):
                raise CheckpointError(f"{file} is damaged (two of its parts have one name); {OTHER}")
            checked = any(member.CRC for member in members)  # torch can be told to leave them 0
            if checked and (bad := archive.testzip()) is not None:
                raise CheckpointError(f"{file} is damaged (the checksum of {bad} is another); {OTHER}")
    except CheckpointError:
        raise
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged ({error or type(error).__name__}); {OTHER}") from None


class _Kind:
    """Stands for numpy.dtype: of numbers, and nothing else."""

    def __init__(self, name: str, *how: object):
        if not re.fullmatch("b1|[iu][1248]|f[248]", name):
            raise pickle.UnpicklingError(f"class numpy.dtype of {name:.20}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands for numpy.ndarray: no weights, so that nothing is kept of it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        pass


def _number(kind: _Kind, data: bytes) -> Any:
    """Stands for what makes a number of NumPy."""
    return np.frombuffer(data, kind.dtype, 1)[0].item()


def _array(*how: object) -> Any:
    """Stands for what makes an array of NumPy."""
    return ARRAY()


def _named(what: Any, module: str, name: str) -> Any:
    """A class or function that torch knows by another name."""
    if isinstance(what, type):
        return type(what)(name, (what,), {"__module__": module, "__qualname__": name})

    def called(*args: Any) -> Any:
        return what(*args)

    called.__module__, called.__name__, called.__qualname__ = module, name, name
    return called


ARRAY = _named(_Array, "numpy", "ndarray")
STAND_INS = [
    ARRAY,
    _named(_Kind, "numpy", "dtype"),
    *(_named(_number, f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *(_named(_array, f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
]
