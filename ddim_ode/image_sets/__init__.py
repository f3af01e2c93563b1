"""Sets of images on disk, of which a part is read at a time: whatever they are kept in, rows of bytes (n, C, H, W).

    images = open_images("samples")       a folder of image files, what `ddim-ode sample` wrote, an .npz, a name
    images.shape, len(images), images[2_000:3_000]

Memory does not grow with the number of images. What is damaged or of another shape is a `DataError` of one line that
names the file.
"""

from ddim_ode.image_sets.base import ImageSet
from ddim_ode.image_sets.opening import NAMED, open_images

__all__ = ["NAMED", "ImageSet", "open_images"]
