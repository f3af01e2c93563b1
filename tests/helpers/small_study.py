"""A study of a mixture that takes a second, and what two runs of one have in common."""

import json
from typing import Any

from ddim_ode.study.comparison import Study
from tests.helpers.mixtures import labelled
from tests.helpers.tables import PATHS

MIXTURE = labelled((1, 12, 12))
MODEL = MIXTURE.denoiser(PATHS["linear"])
SMALL: dict[str, Any] = {
    "methods": ["ddim", "adams4", "adaptive", "exact_heun"],
    "nfe": [4, 9],
    "seeds": range(6),
    "labels": [0, 1, 2] * 2,
}


def timeless(study: Study) -> dict[str, Any]:
    """Its results without what no two runs share."""
    record = json.loads(json.dumps(study.results))
    del record["timing"]
    for row in record["rows"]:
        row.pop("timing")
    return record
