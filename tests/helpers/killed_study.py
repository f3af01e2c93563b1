"""A study of a slow model, to be killed: python -m tests.helpers.killed_study FOLDER RESULTS."""

import dataclasses
import json
import sys
import time
from pathlib import Path

from ddim_ode.study.comparison import compare
from tests.helpers.small_study import MODEL, SMALL, timeless

net = MODEL.net


def slow(*inputs):
    time.sleep(0.02)
    return net(*inputs)


study = compare(dataclasses.replace(MODEL, net=slow), **SMALL, out=sys.argv[1])
Path(sys.argv[2]).write_text(json.dumps(timeless(study)))
