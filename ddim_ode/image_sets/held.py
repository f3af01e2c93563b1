"""Images that are in memory already, as those of a small data set."""

from hashlib import sha256

from torch import Tensor

from ddim_ode.data import DataError
from ddim_ode.image_sets.base import ImageSet, digest
from ddim_ode.support.checks import described, of_kind


class HeldImages(ImageSet):
    """Images uint8 (N, C, H, W) and their labels, int64 (N,). Raises DataError for what are none."""

    def __init__(self, name: str, images: Tensor, labels: Tensor | None = None):
        of_kind("images", images, Tensor, "a tensor of bytes (N, C, H, W)")
        if str(images.dtype) != "torch.uint8" or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise DataError(f"images are {images.dtype}, {described(images)}; give torch.uint8 (N, 1 or 3, H, W)")
        if not images.numel():
            raise DataError(f"{name}: {described(images)} holds no image; give at least one")
        if labels is not None and labels.shape != images.shape[:1]:
            raise DataError(f"labels are {described(labels)}; give one an image, ({len(images)},)")
        self.name, self.images, self.labels = name, images.cpu(), labels
        channels, height, width = images.shape[1:]
        self.shape = (channels, height, width)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, rows: range) -> Tensor:
        return self.images[rows.start : rows.stop]

    def identity(self) -> str:
        return digest(self.name, self.shape, sha256(self.images.contiguous().numpy().data).hexdigest())
