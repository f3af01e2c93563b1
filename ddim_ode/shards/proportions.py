"""Classes for many samples in the proportions of data: the counts are as near to them as whole numbers can be.

By the method of largest remainders: class c of data with n_c of N labels has floor(q) of q = total n_c / N samples, and
those that are left go to the classes with the largest q - floor(q), the lower class first of equal ones.
"""

from collections import Counter
from collections.abc import Iterable

import torch

from ddim_ode.planning.inputs import SampleError
from ddim_ode.support.checks import whole

ORDER = 0  # seed of the order


def in_proportion(labels: Iterable[int], total: int) -> list[int]:
    """Classes (total,) for samples, as often as they occur among the labels of data, in an order that is always the
    same and has nothing to do with the class.

    Raises SampleError for no labels, or a total that is no count.
    """
    total, found = whole("total", total, SampleError), Counter(int(label) for label in labels)
    if not found:
        raise SampleError("labels are empty; give those of data")
    size = found.total()
    counts = {label: total * n // size for label, n in sorted(found.items())}
    rest = sorted(found, key=lambda label: (-(total * found[label] % size), label))
    for label in rest[: total - sum(counts.values())]:
        counts[label] += 1
    each = torch.tensor([label for label, n in counts.items() for _ in range(n)])
    order = torch.randperm(total, generator=torch.Generator().manual_seed(ORDER))
    return [int(label) for label in each[order]]
