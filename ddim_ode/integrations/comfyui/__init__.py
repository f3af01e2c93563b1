"""Nodes of ComfyUI: samplers for its KSAMPLER, and sigmas on our grids.

All that it needs in its `custom_nodes` is a link to this folder, or what `ddim-ode comfyui --install` writes there.
ComfyUI itself is imported when a node runs.
"""

from ddim_ode.integrations.comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
