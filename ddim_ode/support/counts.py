"""Counts over many samples, in four numbers."""

import numpy as np
from torch import Tensor

from ddim_ode.support.validation import Record


class Spread(Record):
    """A count over the samples. The first manifests had no median and mean."""

    min: int
    median: float | None = None
    max: int
    mean: float | None = None


def spread(counts: Tensor) -> Spread:
    """The smallest, the largest, the median and the mean of counts (B,) int64."""
    n = counts.numpy()
    return Spread(min=int(n.min()), median=float(np.median(n)), max=int(n.max()), mean=float(n.mean()))
