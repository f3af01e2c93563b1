"""A set of images against another, whatever number of them, on disk, over processes, and counted.

evaluating  the public function: opens, makes, measures
work        what is compared, and by what: from the sets to their numbers
job         the folder that it is done in, and goes on in
features    images to all that they are compared by
shards      features on disk, a part of the images at a time
totals      what the features of a set come to, from one pass
counts      how many images there are, against how many there should be
numbers     the distances and scores
statistics  mean and covariance of features in files
result      the row of a table
"""

from ddim_ode.metrics.evaluation.counts import CountError
from ddim_ode.metrics.evaluation.evaluating import evaluate, open_real
from ddim_ode.metrics.evaluation.result import Counted, Evaluation
from ddim_ode.metrics.evaluation.statistics import Statistics, load_statistics, save_statistics

__all__ = [
    "CountError",
    "Counted",
    "Evaluation",
    "Statistics",
    "evaluate",
    "load_statistics",
    "open_real",
    "save_statistics",
]
