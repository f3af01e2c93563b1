"""How many images there are, against how many there should be: a number in a table stands for all that were asked for.

49,984 images of 50,000, or some of them twice, move an FID by more than methods differ.
"""

from dataclasses import replace

import numpy as np

from ddim_ode.image_sets import ImageSet
from ddim_ode.metrics.checks import MetricError
from ddim_ode.metrics.evaluation.result import Counted
from ddim_ode.metrics.evaluation.shards import WIDTH, digests
from ddim_ode.metrics.evaluation.statistics import Statistics
from ddim_ode.metrics.evaluation.totals import Gathered
from ddim_ode.support.processes import Processes

BLOCK = 250  # images read at once


class CountError(MetricError):
    """There are more or fewer samples than were asked for, or some of them are equal."""


def check_asked(images: ImageSet, asked: int | None, here: Processes) -> Counted:
    """The count of samples, without how many are distinct.

    Raises CountError, in every process, where they are not as many as were asked for; the first has then counted the
    distinct ones too.
    """
    counted = Counted(images.name, len(images) if asked is None else asked, len(images), None)
    if counted.asked != counted.found:
        _refuse(replace(counted, distinct=here.shared("distinct", lambda: _distinct(images, here))))
    return counted


def check_distinct(counted: Counted, found: Gathered, repeats: bool) -> Counted:
    """The whole count. Raises CountError where samples are equal, unless they may be."""
    counted = replace(counted, distinct=found.distinct)
    if not repeats and found.distinct < found.count:
        _refuse(counted)
    return counted


def copies(found: Gathered, real: Gathered | None) -> int | None:
    """How many different images are in both sets; None without real images."""
    return None if real is None else len(np.intersect1d(found.different, real.different))


def count_of(name: str, real: Gathered | Statistics) -> Counted:
    """Of real images nobody asks for a number."""
    if isinstance(real, Statistics):
        return Counted(name, None, real.about.count, None)
    return Counted(name, None, real.count, real.distinct)


def _distinct(images: ImageSet, here: Processes) -> int:
    found = []
    for start in range(0, len(images), BLOCK):
        here.check()
        found.append(digests(images[start : start + BLOCK]).numpy().tobytes())
    return len(np.unique(np.frombuffer(b"".join(found), f"S{WIDTH}")))


def _refuse(counted: Counted) -> None:
    asked, found, distinct = counted.asked, counted.found, counted.distinct
    assert asked is not None
    assert found is not None
    if found < asked:
        remedy = f"make {asked - found:,} more, or measure what there are with -n {found}"
    elif found > asked:
        remedy = f"take {found - asked:,} away, or measure all with -n {found}"
    else:
        remedy = "leave out those that are there again, or allow them with --repeats"
    raise CountError(f"{counted.name}: {asked:,} samples asked for, {found:,} found, {distinct:,} distinct; {remedy}")
