"""`ddim-ode comfyui`: the methods here as nodes of ComfyUI."""

from pathlib import Path
from typing import Annotated

import typer

from ddim_ode.commands.shared.display import print_json, say
from ddim_ode.commands.shared.types import Json


def comfyui(
    *,
    install: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="ComfyUI's folder, or its custom_nodes, to put the nodes into."),
    ] = None,
    uninstall: Annotated[Path | None, typer.Option(metavar="DIR", help="The same, to take the nodes out of.")] = None,
    as_json: Json = False,
) -> None:
    """Put samplers and sigmas of this library among ComfyUI's nodes, or take them away.

    It writes one small file into custom_nodes, which imports this library: install that for ComfyUI's own Python.
    """
    from ddim_ode.integrations.comfyui import install as nodes

    if (install is None) == (uninstall is None):
        raise nodes.InstallError("give either --install DIR or --uninstall DIR, with the folder of ComfyUI")
    where = nodes.install(install) if install is not None else nodes.uninstall(uninstall or "")
    if as_json:
        print_json({"folder": str(where), "installed": install is not None})
    elif install is not None:
        say(f"{where}: the nodes are there; restart ComfyUI and look for 'ODE Sampler'")
    else:
        say(f"{where}: the nodes are gone; restart ComfyUI")
