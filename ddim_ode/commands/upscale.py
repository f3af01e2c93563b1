"""`ddim-ode upscale`: small images to larger ones, by a model that is told them or the later stages of a cascade."""

import time
from typing import Annotated, Any

import typer

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.types import (
    Augmentation,
    BatchSize,
    Count,
    Device,
    Dtype,
    Guidance,
    Images,
    Json,
    LabelsText,
    ModelName,
    Nfe,
    On,
    Out,
    Overwrite,
    Png,
    Precision,
    Resize,
    SeedsText,
    Tol,
    arguments,
)
from ddim_ode.support.outputs import finish, new_folder

PICTURE = "upscale.png"


def upscale(
    context: typer.Context,
    *,
    model: ModelName,
    out: Out,
    images: Images = None,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="IMAGES are of the size to be made: shrink them first, and compare.")
    ] = False,
    count: Count = None,
    resize: Resize = False,
    method: Annotated[
        str, typer.Option(help="Solver; `ddim-ode methods` lists them. FILE.json is one that was saved by `tune`.")
    ] = "ddim",
    nfe: Nfe = None,
    tol: Tol = None,
    seeds: SeedsText = None,
    label: LabelsText = None,
    guidance: Guidance = 1.0,
    augmentation: Augmentation = None,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    device: On = Device.cpu,
    png: Png = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make images larger: upscale.png shows each before and after and, with --shrink, the one that was shrunk.

    MODEL is one whose network is told an image, or a cascade, whose stages after the first are taken. Without IMAGES
    those of the package are shrunk.
    """
    import torch

    from ddim_ode.cascade import Cascade
    from ddim_ode.commands.shared import cascades, parsing, upscaling
    from ddim_ode.commands.shared.manifest import account, write_samples
    from ddim_ode.support.counts import spread

    chain, network = upscaling.open_chain(model)
    low, given, truth = upscaling.small_images(chain, images, count, label, resize, shrink)
    options = parsing.solve_options(
        method=parsing.parse_method(method),
        nfe=nfe,
        tol=tol,
        guidance=guidance,
        grid=None,
        dtype=dtype.value,
        batch_size=batch_size,
    )
    numbers = parsing.parse_seeds(seeds, len(low))
    levels = cascades.levels_of(chain, augmentation)
    chain = cascades.moved(Cascade(chain.stages, levels), parsing.pick_device(device.value), options.dtype)
    with new_folder(out, overwrite) as folder:
        started = time.perf_counter()
        with display.progress(len(low), what="upscaling") as update:
            found = chain.sample(options, numbers, labels=given.labels, image=low, callback=update)
        seconds, x = time.perf_counter() - started, found.x.cpu()
        tensors = {"x": x, "low": low, "seeds": torch.tensor(numbers), "nfe": found.nfe}
        if given.labels is not None:
            tensors["labels"] = torch.tensor(given.labels)
        write_samples(folder, tensors, images=png)
        cascades.one_above_another([low, x] if truth is None else [low, x, truth], folder / PICTURE)
        facts = upscaling.compared(x, low, truth)
        nfe_of = [spread(each) for each in found.nfe.unbind(1)]
        record: dict[str, Any] = {"nfe": [each.model_dump() for each in nfe_of], "augmentation": list(levels), **facts}
        record |= {"equivalents": float(found.equivalents.mean()), "seconds": seconds}
        finish(folder, "upscale", account(network, "upscale", arguments(context), **record))
    picture = str(out / PICTURE)
    if as_json:
        display.print_json({"out": str(out), "picture": picture, **display.files_in(out), "count": len(low), **record})
        return
    cost = " + ".join(map(display.cost, nfe_of))
    display.say(picture)
    print(f"{display.many(len(low), given.what)} upscaled by {method}, measured NFE {cost}, {seconds:.2f} s")
    display.say(*upscaling.in_words(facts))
