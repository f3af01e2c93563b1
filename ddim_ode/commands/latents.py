"""The commands that lead from images to latents and back: parse, call, print. `cli` registers them."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddim_ode.commands.shared import display
from ddim_ode.commands.shared.display import progress
from ddim_ode.commands.shared.types import (
    BatchSize,
    Count,
    Deterministic,
    Device,
    Dtype,
    Fast,
    GridText,
    GridUpText,
    Guidance,
    Images,
    Json,
    LabelsText,
    MaxNfe,
    MethodName,
    ModelName,
    Nfe,
    On,
    Out,
    Overwrite,
    OverwriteFile,
    Png,
    Precision,
    Resize,
    Tol,
    arguments,
)
from ddim_ode.support.outputs import finish, new_file, new_folder

if TYPE_CHECKING:
    from ddim_ode.solvers import Solution


LOUD = 3.0  # standard deviation of latents, which should be near 1


def encode(
    *,
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write.", show_default=False)],
    images: Images = None,
    count: Count = None,
    resize: Resize = False,
    method: MethodName = "exact_heun",
    nfe: Nfe = None,
    tol: Tol = None,
    max_nfe: MaxNfe = None,
    label: LabelsText = None,
    guidance: Guidance = 1.0,
    grid: GridUpText = None,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    deterministic: Deterministic = False,
    device: On = Device.cpu,
    fast: Fast = False,
    overwrite: OverwriteFile = False,
    as_json: Json = False,
) -> None:
    """Encode images: follow the probability flow up to their latents, and write them for `decode`.

    exact_heun and leapfrog come back to the last bit, other methods up to an error: see reconstruct.
    """
    from ddim_ode import inversion
    from ddim_ode.commands.shared import input_images, parsing
    from ddim_ode.commands.shared.quick import Batches, quickened
    from ddim_ode.support.counts import spread

    network, _ = parsing.open_model(model, device.value, dtype.value)
    options = parsing.solve_options(
        method=parsing.parse_method(method, network),
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        guidance=guidance,
        grid=grid,
        final="sigma_min",
        dtype=dtype.value,
        batch_size=batch_size,
    )
    given = input_images.gather(network, images, count, label, resize)
    with (
        new_file(out, overwrite) as file,
        quickened(network, fast, len(given.x), Batches.of(options), deterministic=deterministic) as network,
        progress(len(given.x), what="encoding") as update,
    ):
        started = time.perf_counter()
        latent = inversion.encode_with(
            network, given.x, options, labels=given.labels, deterministic=deterministic, callback=update
        )
        seconds = time.perf_counter() - started
        latent.save(file)
    z, spent = latent.noise.double(), spread(latent.nfe)
    mean, std = float(z.mean()), float(z.std(correction=0))
    if as_json:
        record = {"out": str(out), "count": len(latent), "images": given.names, "labels": given.labels}
        record |= {"method": method, "guidance": guidance, "tol": latent.options.tol, "nfe": spent.model_dump()}
        record |= {"not_converged": len(latent) - int(latent.converged.sum())}
        record |= {"sigmas": latent.sigmas.tolist(), "latent_mean": mean, "latent_std": std, "seconds": seconds}
        display.print_json(record)
    else:
        display.say(out)
        what = display.many(len(latent), given.what)
        print(f"{what} encoded by {method}, measured NFE {display.cost(spent)}, {seconds:.2f} s")
        print(f"latents: mean {mean:.4f}, standard deviation {std:.4f}")
    if not std < LOUD:
        display.warn(f"latents of standard deviation {std:.3g}: {method} has blown up; use exact_heun")
    display.warn_short(len(latent) - int(latent.converged.sum()), len(latent))


def decode(
    context: typer.Context,
    *,
    model: ModelName,
    latent: Annotated[Path, typer.Argument(metavar="LATENT", help="A file of `ddim-ode encode`.", show_default=False)],
    out: Out,
    images: Png = False,
    deterministic: Deterministic = False,
    device: On = Device.cpu,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Decode latents: follow back the way that they came, into a folder as that of `sample`."""
    from ddim_ode import inversion
    from ddim_ode.checkpoints import load, sha256
    from ddim_ode.commands.shared import parsing
    from ddim_ode.commands.shared.manifest import account, write_samples
    from ddim_ode.commands.shared.quick import Batches, quickened
    from ddim_ode.latents import OPTIONS, Latent
    from ddim_ode.models.identity import fingerprint
    from ddim_ode.support.counts import spread

    stored = Latent.load(latent)
    network = load(model)
    place = parsing.pick_device(device.value)
    if fingerprint(network.fast() if stored.fast else network) != stored.model:  # as `encode` had it
        network = network.to(dtype=stored.options.dtype)
    network = network.to(place)
    if network.device.type != stored.device:
        display.warn(f"encoded on {stored.device} and decoded on {network.device.type}, so that bits may differ")
    with (
        new_folder(out, overwrite) as folder,
        quickened(
            network, stored.fast, len(stored), Batches.of(stored.options), stored.threads, deterministic
        ) as network,
        progress(len(stored), what="decoding") as update,
    ):
        started = time.perf_counter()
        solution = inversion.decode(network, stored, deterministic=deterministic, callback=update)
        seconds = time.perf_counter() - started
        labels = {} if stored.labels is None else {"labels": stored.labels}
        tensors = {"x": solution.x.cpu(), "nfe": solution.nfe, "sigmas": stored.sigmas, **labels}
        write_samples(folder, tensors, images=images)
        how: dict[str, Any] = {name: getattr(stored.options, name) for name in OPTIONS}
        how |= {"threads": stored.threads, "fast": stored.fast}
        record = account(
            network,
            "decode",
            arguments(context),
            latent={"sha256": sha256(latent), **how},
            labels=None if stored.labels is None else stored.labels.tolist(),
            sigmas=stored.sigmas.tolist(),
            nfe=spread(solution.nfe).model_dump(),
            seconds=seconds,
        )
        finish(folder, "decode", record)
    _report(out, f"decoded by {stored.options.method}", solution, seconds, as_json)


def interpolate(
    context: typer.Context,
    *,
    model: ModelName,
    out: Out,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGES", help="Image files to go between, 2 or 4.", show_default=False),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="SEEDS", help="Noise to go between, instead: 0,1, or 0-3.", show_default=False)
    ] = None,
    frames: Annotated[int, typer.Option(min=2, help="How many from end to end, both included.")] = 11,
    resize: Resize = False,
    method: MethodName = "adams3",
    nfe: Nfe = None,
    tol: Tol = None,
    max_nfe: MaxNfe = None,
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Class of all frames.", show_default="the null class")
    ] = None,
    guidance: Guidance = 1.0,
    grid: GridText = None,
    dtype: Precision = Dtype.float32,
    batch_size: BatchSize = None,
    device: On = Device.cpu,
    png: Png = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Go from one latent to another on the great circle, and sample each: a row of frames, or a square between four.

    The latents are noise from seeds, or what images are encoded to: those come back up to the method's error.

    That holds for exact_heun and leapfrog too: what makes them exact has no in-between, and is left out.
    """
    if images and seeds is not None:
        context.fail("--seeds and IMAGES contradict each other; give one of them")
    if not images and seeds is None:
        context.fail("give --seeds, such as 0,1, or IMAGES to go between")
    from ddim_ode import inversion
    from ddim_ode.commands.shared import input_images, parsing
    from ddim_ode.commands.shared.manifest import account, write_samples
    from ddim_ode.data import to_float
    from ddim_ode.interpolation import between
    from ddim_ode.planning.inputs import SampleError, seeded_noise
    from ddim_ode.sampling import sample_with
    from ddim_ode.support.counts import spread

    network, _ = parsing.open_model(model, device.value, dtype.value)
    options = parsing.solve_options(
        method=parsing.parse_method(method, network),
        nfe=nfe,
        tol=tol,
        max_nfe=max_nfe,
        guidance=guidance,
        grid=grid,
        dtype=dtype.value,
        batch_size=batch_size,
    )
    classes = parsing.parse_labels(label, 1)
    given = input_images.gather(network, images, resize=resize) if images else None
    noise = given.x if given else seeded_noise(parsing.parse_seeds(seeds, None), network.shape)
    ends = len(noise)
    if ends not in (2, 4):
        raise SampleError(f"there is nothing between {ends} of them; give 2 for a row of frames, or 4 for a square")
    of_all = classes and classes[0]
    total = frames if ends == 2 else frames**2
    with new_folder(out, overwrite) as folder:
        started = time.perf_counter()
        if given:
            with progress(ends, what="encoding") as update:
                up_options = replace(options, final="sigma_min")
                latent = inversion.encode_with(network, given.x, up_options, labels=of_all, callback=update)
            noise, options = latent.noise, replace(latent.options, grid=latent.sigmas.tolist())  # back as it came
        with progress(total, what="sampling") as update:
            frames_of = between(noise, frames)
            solution = sample_with(network, options, noise=frames_of, labels=of_all, callback=update)
        seconds = time.perf_counter() - started
        off = up = None
        if given:
            found = solution.x[[0, -1] if ends == 2 else [0, frames - 1, -frames, -1]].cpu()
            off = (found - to_float(given.x)).flatten(1).square().mean(1).sqrt().tolist()
            up = float(latent.nfe.double().mean())
        tensors = {"x": solution.x.cpu(), "nfe": solution.nfe, "sigmas": solution.sigmas}
        write_samples(folder, tensors, columns=frames, images=png)
        facts = {"ends_off": off, "nfe_up": up, "nfe": spread(solution.nfe).model_dump(), "seconds": seconds}
        record = account(network, "interpolate", arguments(context), **facts)
        finish(folder, "interpolate", record)
    errors = " and ".join(f"{error:.3g}" for error in off or ())
    words = [f"encoded at NFE {up:g}; ends are off by {errors} (RMS, of images in [-1, 1])"] if off else []
    _report(out, f"sampled by {method}", solution, seconds, as_json, words, ends_off=off, nfe_up=up)


def _report(
    out: Path, how: str, solution: "Solution", seconds: float, as_json: bool, words: Sequence[str] = (), **facts: Any
) -> None:
    """What a folder of images holds, and what they cost."""
    from ddim_ode.support.counts import spread

    nfe, count = spread(solution.nfe), len(solution.nfe)
    short = count - int(solution.converged.sum())
    files = display.files_in(out)
    if as_json:
        display.print_json(
            {
                "out": str(out),
                **files,
                "count": count,
                **facts,
                "nfe": nfe.model_dump(),
                "not_converged": short,
                "seconds": seconds,
            }
        )
    else:
        display.say(files.get("grid", out))
        print(f"{display.many(count, 'images')} {how}, measured NFE {display.cost(nfe)}, {seconds:.2f} s")
        display.say(*words)
    display.warn_short(short, count)
