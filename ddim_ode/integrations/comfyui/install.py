"""The folder that ComfyUI finds the nodes by: one file in its `custom_nodes`, written and taken away."""

import os
from pathlib import Path

from ddim_ode.errors import DDIMError
from ddim_ode.support.checks import as_path
from ddim_ode.support.files import replacing
from ddim_ode.support.reading import read_text

FOLDER = "ddim-ode"  # no name that Python could take for the package
MARK = "# Written by `ddim-ode comfyui --install`"
STUB = f'''{MARK}; `ddim-ode comfyui --uninstall` takes it away.
"""The samplers and sigmas of ddim_ode as nodes of ComfyUI."""

import sys

try:
    from ddim_ode.integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
except ModuleNotFoundError as error:
    if error.name != "ddim_ode":
        raise
    raise ImportError(f"no ddim_ode for ComfyUI's Python; run {{sys.executable}} -m pip install ddim_ode") from error

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
'''


class InstallError(DDIMError):
    """A folder that nodes cannot be put into, or taken out of."""


def install(folder: str | os.PathLike[str]) -> Path:
    """Write the nodes' folder into ComfyUI's, or into its `custom_nodes`; returns it. One of ours is written anew.

    Raises:
        InstallError: the folder is not ComfyUI's, or something else is in the place.
    """
    place = nodes_of(folder) / FOLDER
    if place.is_symlink() or (place.exists() and not is_ours(place)):
        raise InstallError(f"{place} is not one that this command has written; move it away first")
    place.mkdir(exist_ok=True)
    with replacing(place / "__init__.py") as file:
        file.write(STUB.encode())
    return place


def uninstall(folder: str | os.PathLike[str]) -> Path:
    """Take away what `install` has written, and what Python has compiled of it; returns where it was.

    Raises:
        InstallError: the folder is not ComfyUI's, or nothing of ours is there. Other files in it stay.
    """
    place = nodes_of(folder) / FOLDER
    if place.is_symlink() or not is_ours(place):
        raise InstallError(f"{place} is not one that this command has written; nothing was taken away")
    compiled = place / "__pycache__"
    for file in (place / "__init__.py", *compiled.glob("__init__.*.pyc")):
        file.unlink()
    for left in (compiled, place):
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()
    return place


def nodes_of(folder: str | os.PathLike[str]) -> Path:
    """ComfyUI's `custom_nodes`, given that or the folder it is in. Raises InstallError for any other folder."""
    given = as_path("folder", folder, "folder")
    for nodes in (given / "custom_nodes", given):
        beside = [nodes.absolute().parent / name for name in ("comfy", "models")]  # the desktop program has no comfy
        if nodes.name == "custom_nodes" and nodes.is_dir() and any(other.is_dir() for other in beside):
            return nodes
    raise InstallError(
        f"{given} is not ComfyUI's; give the folder that has its custom_nodes, and comfy or models beside that"
    )


def is_ours(place: Path) -> bool:
    """Whether a folder has the file that `install` writes."""
    file = place / "__init__.py"
    return file.is_file() and read_text(file, InstallError).startswith(MARK)
