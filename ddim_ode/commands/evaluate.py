"""The command that measures a set of images against another: parse, call, print. `cli` registers it."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.types import Device, Json, On

if TYPE_CHECKING:
    from ddim_ode.metrics import Evaluation


class ResizeName(str, Enum):
    legacy = "legacy"
    clean = "clean"
    bytes = "bytes"


def evaluate(
    *,
    samples: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="Samples: a folder of images, one that `ddim-ode sample` wrote, or an .npz.",
            show_default=False,
        ),
    ],
    real: Annotated[
        str,
        typer.Option(
            "--real",
            metavar="PATH",
            help="Real images likewise, 'fashion-mnist', 'fashion-mnist-train' or 'bundled'; or an .npz of their"
            " statistics, mu and sigma.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="EVAL",
            help="Folder of the evaluation; one that was cut short goes on.",
            show_default=False,
        ),
    ],
    count: Annotated[
        int | None,
        typer.Option("-n", metavar="N", help="How many samples there must be.", show_default="what DIR says, or has"),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Where to measure: fashion, pixels or inception.",
            show_default="fashion for 28 x 28 grey, pixels up to 32 x 32 in colour",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of Inception.", show_default="where torch-fidelity keeps them"),
    ] = None,
    resize: Annotated[
        ResizeName | None,
        typer.Option(
            "--resize",
            help="How images become Inception's 299 x 299: as published FIDs do, as clean-fid, or by bytes.",
            show_default="legacy",
        ),
    ] = None,
    repeats: Annotated[bool, typer.Option("--repeats", help="Let samples be equal to each other.")] = False,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Write the samples' mu and sigma too, not the real images' alone.")
    ] = False,
    most: Annotated[
        int,
        typer.Option(help="Images of each set in KID, precision and recall, chosen at random where there are more."),
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Of what is chosen at random.")] = 0,
    shard_size: Annotated[int, typer.Option(help="Images that a process takes at once.")] = 1000,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in the network at once.", show_default="250, or 50 of Inception")
    ] = None,
    threads: Annotated[int, typer.Option(help="Of torch in each process.")] = 1,
    device: On = Device.cpu,
    as_json: Json = False,
) -> None:
    """Measure samples against real images: FID, sFID, KID, precision, recall, Inception score; and count them.

    Fewer samples than asked for, more, or the same one twice make no row. Under torchrun all processes share the work.
    """
    from ddim_ode.commands.shared.overall import overall
    from ddim_ode.commands.shared.parsing import pick_device
    from ddim_ode.image_sets import open_images
    from ddim_ode.metrics import Statistics, open_real
    from ddim_ode.metrics import evaluate as measure
    from ddim_ode.support.processes import processes

    here, ours, theirs = processes(), open_images(samples), open_real(real)
    images = theirs.examples if isinstance(theirs, Statistics) else theirs
    total = len(ours) + (len(images) if images is not None else 0)
    with overall(here, total, what="evaluating", unit="images") as shown:
        found = measure(
            ours,
            theirs,
            features=features,
            weights=weights,
            resize=None if resize is None else resize.value,
            count=count,
            repeats=repeats,
            out=out,
            statistics=statistics,
            seed=seed,
            most=most,
            shard_size=shard_size,
            batch_size=batch_size,
            device=pick_device(device.value),
            threads=threads,
            callback=shown.update,
            idle=shown.idle,
            here=here,
        )
        shown.finished("evaluated")
    if not here.main:
        return
    if as_json:
        display.print_json({"out": str(out), **found.record})
    else:
        _print_row(found)
        display.say(out)


def _print_row(found: "Evaluation") -> None:
    settings, real, samples = found.settings, found.real, found.samples
    values = {
        "samples": f"{found.samples.found:,}",
        "FID" if settings["features"] == "inception" else "Frechet": _text(found.frechet),
        "sFID": _text(found.spatial_frechet),
        "KID": _text(found.kid, found.kid_error),
        "precision": _text(found.precision),
        "recall": _text(found.recall),
        "IS": _text(found.inception_score, found.inception_score_error),
    }
    display.print_table(tuple(values), [values])
    resized = f", resized as {settings['resize']!r}" if settings["resize"] else ""
    display.say(f"features {settings['features']!r}{resized}")
    display.say(f"{samples.name}: {samples.found:,} of {samples.asked:,} samples, {samples.distinct:,} distinct")
    if real.found is None:
        display.say(f"against {real.name}, statistics of images that it does not count")
    else:
        distinct = "" if real.distinct is None else f", {real.distinct:,} distinct"
        display.say(f"against {real.name}: {real.found:,} real images{distinct}")
    if found.unsaid:
        display.warn(found.unsaid)
    if found.copies:
        display.warn(f"{found.copies:,} of the samples are real images, to the last byte")
    _say_parts(settings["of"])
    for reason in dict.fromkeys(found.missing.values()):
        names = [name for name, why in found.missing.items() if why == reason]
        display.say(f"no {', '.join(names)}: {reason}")


def _say_parts(parts: dict[str, Any]) -> None:
    if parts:
        (a, b), (c, _) = parts["kid"], parts["precision_recall"]
        display.say(f"KID of {a:,} and {b:,} images, precision and recall of {c:,} each")


def _text(value: float | None, error: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" + ("" if error is None else f" {display.plus_minus()} {error:.2g}")
