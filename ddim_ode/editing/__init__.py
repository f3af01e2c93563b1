"""Editing images along the flow: what an edit keeps is in the noise that it starts from.

    strength       SDEdit: noise of a seed on the image, and down again; more noise, more that is new
    translation    up under one condition and down under another, and back to the same bits
    augmentation   many edits of each image of a set, with its label

`sides` holds what the ends of a translation are told, and the models that tell it.
"""

from ddim_ode.editing.augmentation import Augmented, augment
from ddim_ode.editing.sides import Side
from ddim_ode.editing.strength import EditError, sdedit, sigma_of_strength
from ddim_ode.editing.translation import Translation, between_edits, decode_under, translate

__all__ = [
    "Augmented",
    "EditError",
    "Side",
    "Translation",
    "augment",
    "between_edits",
    "decode_under",
    "sdedit",
    "sigma_of_strength",
    "translate",
]
