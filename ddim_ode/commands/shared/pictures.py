"""Pictures of a run, drawn with matplotlib's Agg and none of its global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from torch import Tensor

from ddim_ode.data import to_uint8
from ddim_ode.inversion import Reconstruction
from ddim_ode.solvers import Solution, get_method
from ddim_ode.support.drawing import caption, save_figure


def save_trace(solution: Solution, method: str, file: Path) -> None:
    """The steps that an adaptive method has chosen: a PNG of their sizes in atan sigma against sigma.

    One line a sample, or a batch if that shares its steps; each step is a dot at the sigma where it begins.
    """
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log")
    for converged, color in ((False, "tab:red"), (True, "tab:blue")):
        nodes = np.unique(solution.sigmas[solution.converged == converged].nan_to_num(nan=-1), axis=0)
        paths = [steps_of(row[row >= 0]) for row in nodes]
        if not paths:
            continue
        alpha = min(0.9, max(0.05, 4 / len(nodes) ** 0.7))
        axes.add_collection(LineCollection(paths, colors=color, alpha=alpha, linewidth=1))
        axes.plot(*np.concatenate(paths).T, ".", color=color, alpha=alpha, markersize=4)
        if not converged:
            label = f"{int((~solution.converged).sum())} not converged: the last step (x) is one of DDIM"
            axes.plot(*np.stack([path[-1] for path in paths]).T, "x", color=color, label=label)
            axes.legend(loc="best")
    axes.set(xlabel="sigma where the step begins", ylabel="step in atan sigma (radians)")
    axes.set_title(_title(solution, method))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    save_figure(figure, file)


def save_reconstruction(found: Reconstruction, title: str, file: Path, rows: int = 8) -> None:
    """The first images, a row each: original, latent, reconstruction, and ten times the error about a middle grey."""
    count = min(rows, len(found.x))
    x, y = found.x[:count].double(), found.solution.x[:count].double().cpu()
    columns = {
        "original": x,
        "latent, -3 to 3": found.latent.noise[:count].double().cpu() / 3,
        "reconstruction": y,
        "10 x error, 0 is grey": 10 * (y - x),
    }
    worst = zip(found.bit_exact[:count], found.max_error[:count], strict=True)
    beside = ["bit exact" if exact else f"max {float(error):.2g}" for exact, error in worst]
    save_columns(columns, title, file, beside=beside)


def save_columns(
    columns: Mapping[str, Tensor], title: str, file: Path, rows: int = 8, beside: Sequence[str] = ()
) -> None:
    """The first images of several sets (B, C, H, W), a row each and a column a set, with words beside the rows."""
    count = min(rows, *map(len, columns.values()))
    figure = Figure(figsize=(max(1.8 * len(columns), 5.0), 1.6 * count + 1.0), dpi=100, layout="constrained")
    figure.suptitle(caption(title, 100), fontsize=11, wrap=True)
    grid = figure.subplots(count, len(columns), squeeze=False)
    for axes, (what, images) in zip(grid.T, columns.items(), strict=True):
        axes[0].set_title(what, fontsize=10)
        for cell, pixels in zip(axes, to_uint8(images[:count].cpu()).movedim(1, -1).numpy(), strict=True):
            shade = {"cmap": "gray", "vmin": 0, "vmax": 255} if pixels.shape[-1] == 1 else {}
            cell.imshow(pixels.squeeze(-1) if shade else pixels, interpolation="nearest", **shade)
            cell.set(xticks=[], yticks=[])
    for cell, words in zip(grid[:, -1], beside, strict=False):
        cell.yaxis.set_label_position("right")
        cell.set_ylabel(words, fontsize=9)
    save_figure(figure, file)


def steps_of(sigmas: np.ndarray) -> np.ndarray:
    """(N, 2): where each of the N steps between N + 1 decreasing sigmas begins, and its size in atan sigma."""
    return np.column_stack([sigmas[:-1], -np.diff(np.arctan(sigmas))])


def _title(solution: Solution, method: str) -> str:
    low, high, count = int(solution.nfe.min()), int(solution.nfe.max()), len(solution.nfe)
    spent = f"{low}" if low == high else f"{low} to {high}"
    shared = "" if get_method(method).per_sample else ", steps shared by a batch"
    return f"{caption(method)}, tol {solution.tol:.4g}: {count} samples, NFE {spent}{shared}"
