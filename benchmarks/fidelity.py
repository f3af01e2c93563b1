"""Our numbers beside torch-fidelity's, of the same features and of the same images.

    python benchmarks/fidelity.py [--count 5000] [--inception 64] [--json docs/fidelity.json]

Needs torch-fidelity (pip install torch-fidelity), whose torchvision is stood in for where it is not there: none of it
is used. Two comparisons:

- features of the shipped classifier, of so many Fashion-MNIST test and training images, given to both: the Frechet
  distance (in one pass, and merged from parts of 700), the kernel distance, precision, recall, Inception score;
- Inception V3 of random weights, as no weights are shipped: images through `metrics.evaluate` from end to end, against
  torch-fidelity's network and metrics. Of fewer images than features a covariance is singular; there torch-fidelity's
  eigenvalues of a product, which is not symmetric, are good to the root of the rounding alone.

Exit code 1 if a Frechet distance of the first kind differs by more than 1e-6, or a merged one by more than 1e-10.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping
from datetime import date
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ddim_ode import metrics
from ddim_ode.data import fashion_mnist
from ddim_ode.metrics import frechet, scores
from ddim_ode.metrics.evaluation.features import extractor
from ddim_ode.metrics.moments import merged, moments
from ddim_ode.support.versions import circumstances

FUNCTIONAL = "transforms.functional"
PART, SPLITS = 700, scores.SPLITS


class _Nothing(ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def stand_in_for_torchvision() -> bool:
    """Whether torchvision had to be stood in for."""
    if find_spec("torchvision") is not None:
        return False
    for name in ("torchvision", *(f"torchvision.{part}" for part in ("datasets", "transforms", FUNCTIONAL))):
        sys.modules[name] = _Nothing(name)
        above, _, last = name.rpartition(".")
        if above:
            setattr(sys.modules[above], last, sys.modules[name])
    return True


def theirs(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, float]:
    """torch-fidelity's numbers of features in float64, and of the logits of a, in their order."""
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    x, y = a["features"].double(), b["features"].double()
    statistics = [metric_fid.fid_features_to_statistics(each) for each in (x, y)]
    found = dict(metric_fid.fid_statistics_to_metric(*statistics, verbose=False))
    found |= metric_kid.kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=len(x), verbose=False)
    found |= metric_prc.prc_features_to_metric(x, y, verbose=False, save_cpu_ram=True)
    found |= metric_isc.isc_features_to_metric(a["logits"], SPLITS, shuffle=False)
    return {
        "frechet": found["frechet_inception_distance"],
        "kid": found["kernel_inception_distance_mean"],
        "precision": found["precision"],
        "recall": found["recall"],
        "inception_score": found["inception_score_mean"],
        "inception_score_error": found["inception_score_std"],
    }


def ours(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, float]:
    """The same by our functions, and the Frechet distance of moments that were merged."""
    x, y = a["features"], b["features"]
    parts = [reduce(merged, map(moments, each.double().split(PART))).gaussian for each in (x, y)]
    shares = metrics.precision_recall(x, y)
    score = scores.score(scores.sums(a["logits"], in_order(len(x))))
    return {
        "frechet": metrics.frechet_distance(x, y),
        "frechet merged": frechet.between(*parts),
        "kid": metrics.kid(x, y).value,
        "precision": shares.precision,
        "recall": shares.recall,
        "inception_score": score.value,
        "inception_score_error": score.error,
    }


def in_order(count: int) -> Tensor:
    """Parts as torch-fidelity cuts them where it does not shuffle."""
    found = torch.zeros(count, dtype=torch.int64)
    for part in range(SPLITS):
        found[part * count // SPLITS : (part + 1) * count // SPLITS] = part
    return found


def random_inception(file: Path) -> nn.Module:
    """torch-fidelity's network with random weights that keep the size of what passes, written to a file."""
    from torch_fidelity import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):  # type: ignore[misc]  # torch-fidelity has no types
        def load_state_dict(self, *arguments: Any, **options: Any) -> None:
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(layer.weight)

    torch.manual_seed(0)
    torch.save({}, file)
    net: nn.Module = Untrained("inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(file))
    torch.save(net.state_dict(), file)
    return net


def end_to_end(count: int) -> tuple[dict[str, float], dict[str, float]]:
    """Images through the whole of `evaluate`, and through torch-fidelity's network and metrics."""
    a, b = fashion_mnist("test")[0][:count], fashion_mnist("train")[0][:count]
    with tempfile.TemporaryDirectory() as folder:
        net = random_inception(Path(folder) / "weights.pth")
        row = metrics.evaluate(
            a,
            b,
            features="inception",
            weights=Path(folder) / "weights.pth",
            shard_size=32,
            batch_size=16,
            threads=torch.get_num_threads(),
        )
    outputs = []
    for images in (a, b):
        each = [net(batch.expand(-1, 3, -1, -1)) for batch in images.split(16)]
        features, logits = (torch.cat(parts) for parts in zip(*each, strict=True))
        outputs.append({"features": features, "logits": logits})
    there = theirs(*outputs)
    for name in ("inception_score", "inception_score_error"):  # ours are of parts at random
        del there[name]
    return {name: getattr(row, name) for name in there}, there


def compared(title: str, mine: Mapping[str, float], there: Mapping[str, float]) -> dict[str, Any]:
    """Print a table of both, with their relative differences."""
    print(f"\n{title}\n\n| | ours | torch-fidelity | relative difference |\n|---|---|---|---|")
    rows = {}
    for name, value in mine.items():
        other = there[name.removesuffix(" merged")]
        difference = abs(value - other) / max(abs(other), 1e-300)
        rows[name] = {"ours": value, "torch_fidelity": other, "relative_difference": difference}
        print(f"| {name} | {value:.12g} | {other:.12g} | {difference:.1e} |", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="images of each set, for the shipped features")
    parser.add_argument("--inception", type=int, default=64, help="images of each set, for Inception")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    stood_in = stand_in_for_torchvision()
    from torch_fidelity.version import __version__ as version

    extract = extractor((1, 28, 28))
    a, b = (extract(fashion_mnist(split)[0][: arguments.count]) for split in ("test", "train"))
    mine = ours(a, b)
    of_features = compared(f"{arguments.count:,} and as many images, 64 features", mine, theirs(a, b))
    of_images = compared(f"{arguments.inception} and as many images, 2048 features", *end_to_end(arguments.inception))
    between = abs(mine["frechet merged"] - mine["frechet"]) / mine["frechet"]
    print(f"\nmerged from parts of {PART} against one pass: {between:.1e}")
    if arguments.json:
        told = {
            "date": date.today().isoformat(),
            "command": shlex.join(["python", "benchmarks/fidelity.py", *sys.argv[1:]]),
            "torch_fidelity": version,
            "torchvision": "stood in for" if stood_in else "its own",
            "features": {"count": arguments.count, "rows": of_features, "merged_against_one_pass": between},
            "images": {"count": arguments.inception, "rows": of_images},
            **circumstances(),
        }
        arguments.json.write_text(json.dumps(told, indent=2) + "\n")
    wrong = of_features["frechet"]["relative_difference"] > 1e-6 or between > 1e-10
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
