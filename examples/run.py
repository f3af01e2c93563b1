"""Run the notebooks of this folder and store their outputs: python examples/run.py [NOTEBOOK ...]

What is stored says nothing of the machine: no times and no versions. They run on one thread, because a network may
round differently with another number of them.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
UNWANTED = ("MPLBACKEND", "PYTHONWARNINGS")  # the first would keep pictures out of the notebook


def executed(file: Path, timeout: int = 600) -> NotebookNode:
    """The notebook with new outputs, by the Python that runs this, whatever kernels are installed.

    Raises:
        CellExecutionError: a cell fails.
        CellTimeoutError: a cell takes longer than `timeout` seconds.
    """
    notebook = nbformat.read(file, as_version=4)
    environment = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    with TemporaryDirectory() as scratch:  # for all that the kernel writes, its sockets included
        manager = AsyncKernelManager(
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=f"{scratch}/kernel.json",
            transport="ipc",
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=timeout,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": scratch}},
        )
        client.execute(cleanup_kc=True, env=environment | {"IPYTHONDIR": scratch, "OMP_NUM_THREADS": "1"})
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def main(files: list[Path]) -> None:
    for file in files or sorted(Path(__file__).parent.glob("*.ipynb")):
        print(file)
        nbformat.write(executed(file), file)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
