"""Writing so that a kill or a full disk leaves either the old file or the new one, never half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A temporary file beside `file` that takes its place on success and vanishes on failure."""
    tmp = file.with_name(f".{file.name}.{uuid4().hex[:12]}.tmp")
    with open(tmp, "xb") as new:
        mode = os.fstat(new.fileno()).st_mode & 0o777  # what the umask leaves
    tmp.unlink()  # so that a writer that writes nothing is found out
    try:
        yield tmp
        with open(tmp, "rb+") as f:
            os.fsync(f.fileno())
        tmp.chmod(mode)  # safetensors writes 0600
        os.replace(tmp, file)
    finally:
        tmp.unlink(missing_ok=True)
