"""What a set of images comes to, from one pass over the shards of its features; they are added in their order, so that
it does not matter who made which.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from ddim_ode.metrics import scores
from ddim_ode.metrics.checks import choice_of
from ddim_ode.metrics.evaluation.features import FEATURES, LOGITS, SPATIAL
from ddim_ode.metrics.evaluation.shards import DIGESTS, WIDTH, FeatureShards
from ddim_ode.metrics.moments import Moments, merged, moments

Digests = np.ndarray[tuple[int], np.dtype[np.bytes_]]


@dataclass(frozen=True)
class Gathered:
    """count, and sorted `different` digests; moments of features and of spatial ones, features of a part of the images
    (n, D), float64, and what an Inception score needs; None where there are none.
    """

    count: int
    different: Digests
    images: str  # a digest of all, in their order
    features: Moments
    spatial: Moments | None
    part: Tensor
    score: scores.Sums | None

    @property
    def distinct(self) -> int:
        return len(self.different)


def gather(shards: FeatureShards, most: int, seed: int, check: Callable[[], None] = lambda: None) -> Gathered:
    """Of shards that are all there. The part are `most` of the images, by chance, or all of fewer.

    Raises MetricError for a shard that is damaged.
    """
    count = len(shards.images)
    rows = choice_of(count, most, seed).sort().values if most < count else torch.arange(count)
    parts = scores.parts(count, seed) if count >= scores.SPLITS else None
    names, chosen, sums = [], [], []
    found: dict[str, Moments] = {}
    for number in range(len(shards)):
        check()
        shard, place = shards.read(number), shards.rows(number)
        names.append(shard[DIGESTS].numpy().tobytes())
        inside = rows[torch.searchsorted(rows, place.start) : torch.searchsorted(rows, place.stop)] - place.start
        chosen.append(shard[FEATURES].double()[inside])
        if LOGITS in shard and parts is not None:
            sums.append(scores.sums(shard[LOGITS], parts[place.start : place.stop]))
        for name in {FEATURES, SPATIAL} & shard.keys():
            more = moments(shard[name].double())
            found[name] = merged(found[name], more) if name in found else more
    digests = b"".join(names)
    return Gathered(
        count=count,
        different=np.unique(np.frombuffer(digests, f"S{WIDTH}")),
        images=hashlib.sha256(digests).hexdigest(),
        features=found[FEATURES],
        spatial=found.get(SPATIAL),
        part=torch.cat(chosen),
        score=reduce(scores.added, sums) if sums else None,
    )
