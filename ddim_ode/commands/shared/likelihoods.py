"""What a command says of likelihoods: rows of a table, means with their errors."""

import csv
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ddim_ode.commands.shared.display import cost, plus_minus, print_json, visible
from ddim_ode.likelihood import Likelihoods
from ddim_ode.support.counts import spread
from ddim_ode.support.files import replacing


def rows_of(names: Sequence[str], labels: Sequence[int] | None, found: Likelihoods) -> list[dict[str, Any]]:
    """A row an image."""
    classes: Sequence[int | None] = labels or [None] * len(names)
    return [
        {"image": name, "label": label, "bits_per_dim": bits, "nats": nats, "standard_error": error, "nfe": nfe}
        for name, label, bits, nats, error, nfe in zip(
            names,
            classes,
            found.bits_per_dim.tolist(),
            found.nats.tolist(),
            found.standard_error.tolist(),
            found.nfe.tolist(),
            strict=True,
        )
    ]


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV file. Raises OutputError."""
    text = StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with replacing(file) as new:
        new.write(text.getvalue().encode(errors="backslashreplace"))


def summary(found: Likelihoods, dimensions: int, seconds: float) -> dict[str, Any]:
    """Means over images with their standard errors: that over images has in it what the probes add."""
    count = len(found.nats)
    probes = float(found.standard_error.square().sum().sqrt()) / count
    return {
        "count": count,
        "dimensions": dimensions,
        "bits_per_dim": found.mean,
        "standard_error": found.mean_error,
        "standard_error_of_probes": probes / (math.log(2) * dimensions),
        "nats": float(found.nats.mean()),
        "nfe": spread(found.nfe).model_dump(),
        "seconds": seconds,
    }


def report(
    heading: str,
    method: str,
    found: Likelihoods,
    told: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    files: Mapping[str, str | None],
    as_json: bool,
) -> None:
    """Print a summary, and the files that were written."""
    if as_json:
        print_json({**told, **files, "images": rows})
        return
    count, sign, error, probes = told["count"], plus_minus(), told["standard_error"], told["standard_error_of_probes"]
    over_probes = f"; {sign} {probes:.4f} from the probes" if probes > 0 else ""  # NaN of one, 0 if exact
    print(f"{heading}, {method}, measured NFE {cost(spread(found.nfe))}, {told['seconds']:.2f} s")
    print(f"bits/dim  {found.mean:.4f}" + (f" {sign} {error:.4f}" if count > 1 else "") + over_probes)
    per_bit = math.log(2) * told["dimensions"]
    print(f"nats      {told['nats']:.2f}" + (f" {sign} {error * per_bit:.2f}" if count > 1 else ""))
    for file in files.values():
        if file is not None:
            print(visible(file))
