"""The Inception score: how sure a classifier is of each image, and how many classes it sees in all.

    IS = exp E_x KL(p(y|x) || p(y)),    E_x KL = E_x sum_y p log p - sum_y m log m,    m = E_x p(y|x)

Salimans et al. 2016, arXiv:1606.03498, section 4: the mean over SPLITS parts of the samples, and their spread. Both
expectations are sums, so what is counted of parts of the samples adds up.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ddim_ode.metrics import checks

SPLITS = 10


class InceptionScore(NamedTuple):
    """value: 1 to the number of classes. error: the standard deviation over the parts, as it is published."""

    value: float
    error: float


class Sums(NamedTuple):
    """Over the samples of each part: their count (P,), p (P, K) and sum_y p log p (P,); float64."""

    counts: Tensor
    p: Tensor
    p_log_p: Tensor


def inception_score(logits: Tensor, seed: int = 0) -> InceptionScore:
    """Of the class logits (N, K) of samples; `seed` cuts them into parts.

    Raises MetricError unless N >= 10 and every value is finite.
    """
    logits = checks.features("logits", logits, least=SPLITS)
    return score(sums(logits, parts(len(logits), seed)))


def parts(total: int, seed: int) -> Tensor:
    """The part 0..SPLITS-1 of each of so many samples, int64, at random and equally large. Raises TooFewError."""
    if total < SPLITS:
        raise checks.TooFewError(f"{total} samples are too few for an Inception score; it needs {SPLITS}")
    found = torch.empty(total, dtype=torch.int64)
    for part, rows in enumerate(torch.randperm(total, generator=checks.generator(seed, "parts")).tensor_split(SPLITS)):
        found[rows] = part
    return found


def sums(logits: Tensor, part: Tensor) -> Sums:
    """Of logits (N, K), each in its part, int64 (N,)."""
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    zeros = log_p.new_zeros(SPLITS)
    return Sums(
        zeros.index_add(0, part, torch.ones_like(log_p[:, 0])),
        log_p.new_zeros(SPLITS, logits.shape[1]).index_add(0, part, p),
        zeros.index_add(0, part, torch.special.entr(p).sum(1).neg()),
    )


def added(a: Sums, b: Sums) -> Sums:
    """Of the samples of both."""
    return Sums(a.counts + b.counts, a.p + b.p, a.p_log_p + b.p_log_p)


def score(found: Sums) -> InceptionScore:
    """The score of the samples; there is one in each part."""
    mean = found.p / found.counts[:, None]
    each = (found.p_log_p / found.counts + torch.special.entr(mean).sum(1)).exp()
    return InceptionScore(float(each.mean()), float(each.std(correction=0)))
