"""What is wrong with a model on disk, and what has been assumed of it."""

from ddim_ode.errors import DDIMError


class CheckpointError(DDIMError):
    """A model that cannot be loaded; the message names the file and what is wrong with it."""


class CheckpointWarning(UserWarning):
    """Something about a model that was assumed, or that its files say and its network belies."""
