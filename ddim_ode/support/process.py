"""State of the whole process that a computation needs otherwise, and that is afterwards as it was before."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

MOST_THREADS = 1024  # that anybody has recorded; many more take the memory of the machine
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without which torch has no deterministic products on a GPU


@contextmanager
def computing(threads: int | None = None, deterministic: bool = False) -> Iterator[None]:
    """Compute with so many threads (None: as many as there are) and, if asked for, torch's deterministic algorithms."""
    had, enabled = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn, workspace = torch.is_deterministic_algorithms_warn_only_enabled(), os.environ.get(WORKSPACE)
    changed = deterministic and not enabled  # to say what holds already would cost two seconds of imports
    try:
        torch.set_num_threads(threads or had)
        if changed:
            os.environ.setdefault(WORKSPACE, ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=warn)
        yield
    finally:
        torch.set_num_threads(had)
        if changed:
            torch.use_deterministic_algorithms(False, warn_only=warn)
            if workspace is None:
                os.environ.pop(WORKSPACE, None)
