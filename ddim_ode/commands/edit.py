"""`ddim-ode edit`: images that have been changed, and how: parse, call, print. `cli` registers it."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.types import (
    BatchSize,
    Count,
    Deterministic,
    Device,
    Dtype,
    EtaScale,
    GridText,
    Guidance,
    GuidanceRange,
    Images,
    Json,
    LabelsText,
    MaxNfe,
    ModelName,
    On,
    Out,
    Overwrite,
    Png,
    Precision,
    Resize,
    Tol,
    arguments,
    given,
)
from ddim_ode.support.outputs import new_folder

if TYPE_CHECKING:
    from ddim_ode.commands.shared.augmenting import Made
    from ddim_ode.commands.shared.edits import Edited
    from ddim_ode.commands.shared.input_images import InputImages

FILES = {
    "samples": "samples.safetensors",
    "latent": "latent.safetensors",
    "manifest": "manifest.json",
    "grid": "grid.png",
    "picture": "edit.png",
}
LEVELS = ("strength", "sigma", "strengths")
NOISE = (*LEVELS, "label", "seeds", "eta", "per_image")  # what SDEdit is told
TRANSLATION = ("from_label", "from_guidance", "window", "back", "deterministic")
RESUMED = ("strengths", "seeds", "count", "png", "overwrite")  # what augmentation is not told


def edit(
    context: typer.Context,
    *,
    model: ModelName,
    out: Out,
    images: Images = None,
    count: Count = None,
    resize: Resize = False,
    strength: Annotated[
        float | None, typer.Option(help="How much is drawn anew, between 0 and 1: 0.5 is as much noise as image.")
    ] = None,
    sigma: Annotated[float | None, typer.Option(help="The noise itself, instead of a strength.")] = None,
    strengths: Annotated[
        str | None, typer.Option(metavar="LIST", help="Several strengths side by side, as in 0.2,0.4,0.6.")
    ] = None,
    label: LabelsText = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="SEEDS", help="Of the noise, one an image: 0-15, or 0,5,9.", show_default="0, 1, ..."),
    ] = None,
    eta: EtaScale = None,
    per_image: Annotated[
        int | None,
        typer.Option(metavar="N", help="Augment a folder: N edits of each image, in folders as the images were."),
    ] = None,
    to_label: Annotated[
        str | None,
        typer.Option(metavar="LABELS", help="Translate instead: encode as it is, decode as this class."),
    ] = None,
    from_label: Annotated[
        str | None,
        typer.Option(metavar="LABELS", help="What the images are now.", show_default="none, or the package's own"),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(metavar="LOW:HIGH", help="Sigmas at which the new class holds; the old one does outside."),
    ] = None,
    back: Annotated[bool, typer.Option("--back", help="Go back from the translation, and say what returns.")] = False,
    method: Annotated[
        str | None,
        typer.Option(help="Solver; `ddim-ode methods` lists them.", show_default="adams3; exact_heun to translate"),
    ] = None,
    nfe: Annotated[
        int | None,
        typer.Option(
            help="Most evaluations a sample may cost; of a translation while encoding, and with --guidance the way down"
            " costs up to twice that.",
            show_default="20",
        ),
    ] = None,
    tol: Tol = None,
    max_nfe: MaxNfe = None,
    guidance: Guidance = 1.0,
    guidance_range: GuidanceRange = None,
    from_guidance: Annotated[
        float | None, typer.Option(help="Scale of guidance while encoding, to translate.", show_default="1")
    ] = None,
    grid: GridText = None,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    deterministic: Deterministic = False,
    device: On = Device.cpu,
    png: Png = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Edit images: by noise and sampling (--strength), or from a class to another and back (--to-label).

    DIR gets edit.png, before and after, and like that of `sample` the edited images and a manifest.json.

    With --per-image it gets a file for each edit, in folders as the images were, and a run that was stopped goes on.
    """
    told, translating = given(context), to_label is not None
    if stray := [told[name] for name in (NOISE if translating else TRANSLATION) if name in told]:
        context.fail(f"{stray[0]} and --to-label {'contradict' if translating else 'need'} each other")
    if not translating and len([name for name in LEVELS if name in told]) != 1:
        context.fail("give one of --strength, --sigma and --strengths, or --to-label to translate")
    if per_image is not None and (stray := [told[name] for name in RESUMED if name in told]):
        context.fail(f"{stray[0]} and --per-image contradict each other")
    if per_image is not None and len(images or ()) != 1:
        context.fail("--per-image needs IMAGES to be one folder")
    from ddim_ode.commands.shared import augmenting, edits, input_images, parsing

    network, _ = parsing.open_model(model, device.value, dtype.value)
    scales = parsing.parse_guidance_range(guidance_range)
    options = parsing.solve_options(
        method=parsing.parse_method(method or ("exact_heun" if translating else "adams3"), network),
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        guidance=(1.0 if from_guidance is None else from_guidance) if translating else guidance,
        guidance_range=None if translating else scales,
        eta=parsing.parse_eta(eta),
        grid=grid,
        final="sigma_min" if translating else "denoise",
        dtype=dtype.value,
        batch_size=batch_size,
    )
    if per_image is not None:
        assert images
        originals = augmenting.originals(network, images[0], label, resize)
        made = augmenting.augment_folder(
            out, network, originals, options, (strength, sigma), per_image, arguments(context)
        )
        _report_made(out, made, as_json)
        return
    chosen = input_images.gather(network, images, count, from_label if translating else label, resize)
    with new_folder(out, overwrite) as folder:
        if translating:
            found = edits.translated(
                network,
                chosen,
                options,
                edits.Target(parsing.parse_labels(to_label, len(chosen.x)), guidance, scales),
                window=parsing.parse_window(window),
                deterministic=deterministic,
                back=back,
            )
        else:
            several = {} if strengths is None else parsing.parse_numbers("strengths", strengths, float)
            if twice := [share for share, many in Counter(several).items() if many > 1]:
                context.fail(f"--strengths names {twice[0]} more than once; give each once")
            levels: edits.Levels = {str(share): (share, None) for share in several}
            levels = levels or {"after": (strength, sigma)}
            found = edits.noised(network, chosen, options, levels, parsing.parse_seeds(seeds, len(chosen.x)))
        edits.write(folder, network, chosen, found, arguments(context), png)
    _report(out, chosen, found, as_json)


def _report(out: Path, chosen: "InputImages", found: "Edited", as_json: bool) -> None:
    """What was made of the images, and what it cost."""
    from ddim_ode.support.counts import spread

    nfe, short = spread(found.nfe), int((~found.converged).sum())
    files = {name: str(out / file) for name, file in FILES.items() if (out / file).is_file()}
    if as_json:
        record: dict[str, Any] = {"out": str(out), **files, "count": len(found.x), **found.facts}
        display.print_json({**record, "nfe": nfe.model_dump(), "not_converged": short, "seconds": found.seconds})
    else:
        display.say(files.get("picture", out))
        what = display.many(len(chosen.x), chosen.what)
        print(f"{what} edited, measured NFE {display.cost(nfe)}, {found.seconds:.2f} s")
        display.say(*found.words)
    display.warn_short(short, len(found.x))


def _report_made(out: Path, made: "Made", as_json: bool) -> None:
    """How many edits there are now, and what those cost that were made."""
    if as_json:
        display.print_json({"out": str(out), "picture": str(out / "edit.png"), **asdict(made)})
        return
    display.say(out / "edit.png")
    earlier = f", {made.earlier} were there already" if made.earlier else ""
    spent = f", measured NFE {made.nfe:.4g} on average" if made.nfe else ""
    print(f"{display.many(made.made, 'images')} made{earlier}{spent}, {made.seconds:.2f} s")
