"""What `ddim-ode sample` does with a cascade."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ddim_ode.commands.shared.display import progress
from ddim_ode.support.outputs import new_folder

if TYPE_CHECKING:
    from ddim_ode.cascade import Cascade
    from ddim_ode.commands.shared.cascades import CascadeSettings

#: what a cascade is told by the options of `sample`
TAKEN = {"model", "out", "method", "nfe", "tol", "stages", "augmentation", "count", "seeds", "label", "guidance"}
TAKEN |= {"dtype", "batch_size", "device", "images", "manifest", "overwrite", "as_json"}
ONLY = ("stages", "augmentation")  # which other models are not told


def refuse_stray(context: typer.Context, told: Mapping[str, str], of_cascade: bool) -> None:
    """A usage error for an option that a cascade does not take, or that nothing else takes."""
    stray = [written for name, written in told.items() if (name not in TAKEN if of_cascade else name in ONLY)]
    if stray:
        what = "a cascade takes no" if of_cascade else "only a cascade takes"
        context.fail(f"{what} {', '.join(stray)}; leave that out")


def sample_cascade(context: typer.Context) -> None:
    """Draw samples through all stages into a folder, as the parameters of `sample` in the context say."""
    from ddim_ode.cascade import Cascade
    from ddim_ode.commands.shared import cascades

    asked: dict[str, Any] = context.params
    record = None
    if asked["manifest"] is not None:
        cascade, record = cascades.recall(asked["manifest"])
        settings = record.arguments
    else:
        cascade = Cascade.load(asked["model"])
        settings = _settings(context, cascade)
    out: Path = asked["out"]
    with new_folder(out, asked["overwrite"]) as folder:
        with progress(len(settings.seeds)) as update:
            drawn = cascades.draw(cascade, settings, record, update)
        record = cascades.write(folder, cascade, settings, drawn, asked["images"])
    cascades.report(out, record, asked["as_json"])


def _settings(context: typer.Context, cascade: "Cascade") -> "CascadeSettings":
    from ddim_ode.commands.shared import cascades, parsing

    asked = context.params
    if asked["stages"] is not None and (asked["nfe"] is not None or asked["tol"] is not None):
        context.fail("--stages says how each stage is solved; leave --nfe and --tol out")
    same = cascades.StageSettings(method=asked["method"], nfe=asked["nfe"], tol=asked["tol"])
    settings = cascades.CascadeSettings(
        model=cascades.named(asked["model"]),
        stages=cascades.parse_stages(asked["stages"], len(cascade.stages), same),
        seeds=parsing.parse_seeds(asked["seeds"], asked["count"]),
        label=parsing.parse_label(asked["label"]),
        guidance=asked["guidance"],
        augmentation=cascades.levels_of(cascade, asked["augmentation"]),
        dtype=asked["dtype"].value,
        batch_size=asked["batch_size"],
        device=parsing.pick_device(asked["device"].value),
    )
    assert settings.options  # which are checked before anything is drawn
    return settings
