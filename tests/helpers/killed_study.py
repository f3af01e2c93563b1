"""A study of a slow model, to be killed: python -m tests.helpers.killed_study FOLDER RESULTS.

Under torchrun each process tells its results, in RESULTS.0 and so on.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

from ddim_ode.study.comparison import compare
from ddim_ode.support.processes import rank, world_size
from tests.helpers.small_study import MODEL, SMALL, timeless

net = MODEL.net


def slow(*inputs):
    time.sleep(0.02)
    return net(*inputs)


study = compare(dataclasses.replace(MODEL, net=slow), **SMALL, out=sys.argv[1])
results = sys.argv[2] if world_size() == 1 else f"{sys.argv[2]}.{rank()}"
Path(results).write_text(json.dumps(timeless(study)))
