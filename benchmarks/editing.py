"""Edit real test images, go back, and measure both: translation from class to class, and SDEdit by strength.

    python benchmarks/editing.py [--json FILE] [--plot PNG] [--images 256]

Translation, of every image into another class (the next one, the one after that, ...):

    choice      which guidance and window: on the first half of the images, at 20 evaluations; the share that the
                shipped classifier recognises as the new class, and the RMS distance to the image
    trips       A -> B -> A by exact_heun and as DDIM would: what comes back, at 20 and 50 evaluations; and from the
                image in B alone, its pair of states forgotten
    chosen      of the second half, by what was chosen: the closest to the image of those that at least 90% recognise

SDEdit, at ten strengths: the RMS distance to the image, and the squared Frechet distance to the 10,000 test images, in
the features of the shipped classifier. It needs those images (Debian's dataset-fashion-mnist).

With --json, results are saved after every row; an interrupted run goes on where it stopped.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ddim_ode
from ddim_ode import data
from ddim_ode.editing import Side, Translation, decode_under, sdedit, sigma_of_strength, translate
from ddim_ode.inversion import decode, encode
from ddim_ode.latents import Latent
from ddim_ode.metrics import load_fashion_features, quality

MODEL = "fashion"
GUIDANCE = (1.0, 1.5, 2.0, 3.0)  # of the target
WINDOWS = (((0.3, None), 1.5), ((1.0, None), 1.5), ((0.0, 100.0), 1.5), ((0.3, None), 2.0))  # and the guidance in them
WANTED = 0.9  # share recognised, of what may be chosen
FEWER = 32  # images of the trips that are only to show what is lost
STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
OF_EDIT = 10  # evaluations
Rows = list[dict[str, Any]]
Window = tuple[float, float | None] | None
Measure = Callable[[float, Window], Mapping[str, Any]]


class Bench:
    """Images and their classes, the classes that they are to have, and the results so far."""

    def __init__(self, count: int, file: Path | None):
        self.model, self.net = ddim_ode.load(MODEL), load_fashion_features()
        images, labels = data.bundled_images()
        self.x, self.labels = images[:count], labels[:count]
        self.targets = (self.labels + 1 + torch.arange(count) % 9) % 10
        self.file, self.begin = file, time.perf_counter()
        self.stored: dict[str, Rows] = json.loads(file.read_text()) if file and file.exists() else {}

    def row(self, part: str, key: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """A row of a part by its key, measured unless it was."""
        rows = self.stored.setdefault(part, [])
        for known in rows:
            if all(known[name] == json.loads(json.dumps(value)) for name, value in key.items()):
                return known
        started = time.process_time()
        rows.append({**key, **measure(), "seconds": time.process_time() - started})
        words = ", ".join(f"{name} {value}" for name, value in rows[-1].items())
        print(f"{time.perf_counter() - self.begin:6.0f} s  {part}: {words}", file=sys.stderr, flush=True)
        if self.file:
            self.file.write_text(json.dumps({**self.stored, "made": [made()]}, indent=1))
        return rows[-1]

    # --- translation

    def choose(self) -> dict[str, Any]:
        """The edit of the first half that is closest to the images, of those that enough recognise."""
        half = len(self.x) // 2
        latents: list[Latent] = []

        def measure(guidance: float, window: Window) -> Mapping[str, Any]:
            if not latents:
                latents.append(encode(self.model, self.x[:half], nfe=20, labels=self.labels[:half]))
            target = Side(self.targets[:half], guidance=guidance)
            return self.looks(decode_under(self.model, latents[0], target, window=window), slice(half))

        rows = [self.edit("choice", guidance, None, measure) for guidance in GUIDANCE]
        rows += [self.edit("choice", guidance, window, measure) for window, guidance in WINDOWS]
        good = [row for row in rows if row["recognised"] >= WANTED] or rows
        return min(good, key=lambda row: row["distance"])

    def edit(self, part: str, guidance: float, window: Window, measure: Measure) -> dict[str, Any]:
        return self.row(part, {"guidance": guidance, "window": window}, lambda: measure(guidance, window))

    def looks(self, found: Translation, rows: slice) -> dict[str, Any]:
        """How often the target is recognised, and how far it is from the image."""
        shown = data.to_float(data.to_uint8(found.x))
        seen = self.net(shown).argmax(1) == self.targets[rows]
        return {
            "images": len(found.x),
            "nfe": float(found.nfe.double().mean()),
            "recognised": float(seen.double().mean()),
            "distance": float(rms(shown, data.to_float(self.x[rows])).mean()),
        }

    def report_chosen(self, chosen: Mapping[str, Any]) -> None:
        half = slice(len(self.x) // 2, len(self.x))

        def measure(guidance: float, window: Window) -> Mapping[str, Any]:
            target = Side(self.targets[half], guidance=guidance)
            found = translate(self.model, self.x[half], self.labels[half], target, nfe=20, window=window)
            return {**self.looks(found, half), **self.lost(found.back().x, self.x[half])}

        self.edit("chosen", chosen["guidance"], chosen["window"], measure)

    def trip(self, method: str, nfe: int, count: int) -> None:
        def measure() -> Mapping[str, Any]:
            rows = slice(count)
            found = translate(self.model, self.x[rows], self.labels[rows], self.targets[rows], method, nfe)
            return {**self.looks(found, rows), **self.lost(found.back().x, self.x[rows])}

        self.row("trips", {"method": method, "from": "its states", "budget": nfe, "images": count}, measure)

    def alone(self, method: str, nfe: int, count: int, dtype: torch.dtype) -> None:
        """The way back from the image in B alone, in some precision."""

        def measure() -> Mapping[str, Any]:
            rows = slice(count)
            x, labels, targets = self.x[rows], self.labels[rows], self.targets[rows]
            found = translate(self.model, x, labels, targets, method, nfe, dtype=dtype)
            latent = encode(self.model, found.x, method, nfe, labels=targets, dtype=dtype)
            back = decode(self.model, replace(latent, labels=labels))
            return {**self.looks(found, rows), **self.lost(back.x.float(), x)}

        what = f"the image in {str(dtype).removeprefix('torch.')}"
        self.row("trips", {"method": method, "from": what, "budget": nfe, "images": count}, measure)

    def lost(self, back: Tensor, x: Tensor) -> dict[str, Any]:
        """What did not come back: RMS in data units, PSNR in dB of the mean MSE on [0, 1], images of the same bytes."""
        mse = (back.double() - data.to_float(x).double()).square().mean() / 4
        return {
            "rms": float(2 * mse.sqrt()),
            "psnr": float(-10 * mse.log10()) if mse else None,  # None: the same bits
            "same_bits": int((back == data.to_float(x)).flatten(1).all(1).sum()),
            "same_bytes": int((data.to_uint8(back) == x).flatten(1).all(1).sum()),
        }

    # --- SDEdit

    def strengths(self) -> Rows:
        unedited = self.row("sdedit", {"strength": 0}, lambda: self.scores(data.to_float(self.x), 0.0, 0.0))
        return [unedited, *map(self.strength, STRENGTHS)]

    def strength(self, strength: float) -> dict[str, Any]:
        return self.row("sdedit", {"strength": strength}, lambda: self.edited(strength))

    def edited(self, strength: float) -> dict[str, Any]:
        found = sdedit(self.model, self.x, strength, nfe=OF_EDIT, labels=self.labels)
        return self.scores(found.x, sigma_of_strength(self.model, strength), float(found.nfe.double().mean()))

    def scores(self, x: Tensor, sigma: float, nfe: float) -> dict[str, Any]:
        score = quality(x, self.labels)
        far = float(rms(x, data.to_float(self.x)).mean())
        return {"sigma": sigma, "nfe": nfe, "distance": far, "frechet": score.frechet, "recognised": score.recognised}


def rms(a: Tensor, b: Tensor) -> Tensor:
    """(B,) root mean square of the difference of each image."""
    return (a - b).flatten(1).square().mean(1).sqrt()


def made() -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{platform.platform()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "command": " ".join(["python", *sys.argv]),
    }


def table(rows: Rows, columns: Mapping[str, str]) -> str:
    """A table for the documents: columns by name, with a format each."""
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = ["-" if row.get(name) is None else format(row[name], style) for name, style in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(stored: Mapping[str, Rows]) -> None:
    looks = {"images": "d", "nfe": "g", "recognised": ".3f", "distance": ".3f"}
    lost = {"rms": ".2g", "psnr": ".1f", "same_bits": "d", "same_bytes": "d"}
    for part in ("choice", "chosen"):
        rows = [{**row, "window": str(row["window"])} for row in stored[part]]
        print(table(rows, {"guidance": "g", "window": "s", **looks, **(lost if part == "chosen" else {})}), "\n")
    columns = {"method": "s", "from": "s", "budget": "d", "images": "d", "recognised": ".3f", **lost}
    print(table(stored["trips"], columns), "\n")
    columns = {"strength": "g", "sigma": ".3g", "distance": ".3f", "frechet": ".2f", "recognised": ".3f"}
    print(table(stored["sdedit"], columns))
    far = [row["distance"] for row in stored["sdedit"]]
    seconds = sum(row["seconds"] for part in ("choice", "chosen", "trips", "sdedit") for row in stored[part])
    print(f"\nthe distance grows with the strength: {far == sorted(far)}; {seconds:.0f} s of a core")


def plot(rows: Rows, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row["distance"] for row in rows], [row["frechet"] for row in rows], "o-", markersize=4)
    for row in rows:
        axes.annotate(f"{row['strength']:g}", (row["distance"], row["frechet"]), (3, -13), textcoords="offset points")
    axes.set(xlabel="RMS distance to the image: faithfulness", ylabel="squared Frechet distance: realism")
    axes.margins(0.08)
    axes.set_ylim(0, None)
    axes.set_title("SDEdit by strength (0: the images themselves)", fontsize=11)
    axes.grid(alpha=0.3)
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where results are kept as they come")
    parser.add_argument("--plot", type=Path, help="picture of SDEdit's curve")
    parser.add_argument("--images", type=int, default=256, help="at most 300")
    arguments = parser.parse_args()
    bench = Bench(arguments.images, arguments.json)
    bench.report_chosen(bench.choose())
    few = min(FEWER, arguments.images)
    for method, nfe in (("exact_heun", 20), ("ddim", 20), ("exact_heun", 50)):
        bench.trip(method, nfe, arguments.images)
    curve = bench.strengths()
    bench.trip("ddim", 50, few)
    for nfe, dtype in ((20, torch.float32), (50, torch.float32), (20, torch.float64)):
        bench.alone("exact_heun", nfe, few, dtype)
    report(bench.stored)
    if arguments.plot:
        plot(curve, arguments.plot)


if __name__ == "__main__":
    main()
