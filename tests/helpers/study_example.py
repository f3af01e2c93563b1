"""An invented study in the form of results.json: 10 methods, 5 budgets, adaptive rows by tolerance, a stochastic one, a
failed and some skipped cells. The pictures are images of the package with as much noise as a row's error.
"""

import io
import math
from typing import Any

import numpy as np
from PIL import Image

from ddim_ode.data import bundled_images

#: name, grid, evaluations a step, order, error at 10 evaluations
METHODS: list[tuple[str, str | None, int, int, float]] = [
    ("ddim", "uniform", 1, 1, 0.104),
    ("heun", "karras", 2, 2, 0.11),
    ("rk4", "trailing_angle", 4, 3, 0.071),
    ("dpmpp_2m", "log_snr", 1, 2, 0.042),
    ("dpm_solver_3", "log_snr", 3, 2, 0.079),
    ("unipc_2", "trailing", 1, 2, 0.021),
    ("deis_tab3", "trailing", 1, 2, 0.026),
    ("adams4", "trailing_angle", 1, 3, 0.019),
    ("exact_heun", "near_image", 1, 2, 0.058),
    ("adaptive", None, 1, 3, 0.016),
]
BUDGETS = (5, 10, 20, 50, 100)
REFERENCE = {"median": 8e-4, "rms": 1.4e-3}
SAMPLES = 8


def results() -> dict[str, Any]:
    """The whole of results.json; equal at every call."""
    rows = [_deterministic(*method, nfe) for method in METHODS for nfe in BUDGETS]
    rows += [_adaptive(tol) for tol in (0.1, 0.01, 0.001)]
    rows += [_stochastic(eta, nfe) for eta in (0.5, 1.0) for nfe in (20, 100)]
    rows.append(
        _unmeasured("sde_srk", "log_snr", 20, "failed", "non-finite output of the network at sigma = 80, step 1")
    )
    return {
        "format": 1,
        "model": {
            "name": "fashion",
            "fingerprint": "5d1f0c2a9be47783",
            "shape": [1, 28, 28],
            "classes": 10,
            "predicts": "velocity",
            "schedule": "cosine, 1000 timesteps",
            "sigma_min": 0.0064,
            "sigma_max": 20291.0,
            "parameters": 2_400_000,
        },
        "settings": {
            "methods": [*(name for name, *_ in METHODS), "sde_srk"],
            "nfe": list(BUDGETS),
            "tols": [0.001, 0.01, 0.1],
            "grids": ["own"],
            "own_grids": {name: grid for name, grid, *_ in METHODS if grid} | {"sde_srk": "log_snr"},
            "etas": [0.5, 1.0],
            "seeds": list(range(64)),
            "labels": [i % 10 for i in range(64)],
            "guidance": 1.0,
            "dtype": "float32",
            "batch_size": 64,
            "features": "fashion",
            "real": {"what": "Fashion-MNIST, test images", "count": 10000},
        },
        "versions": {"ddim_ode": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "command": "ddim-ode compare fashion --methods ddim,heun,adams4 --nfe 5,10,20,50,100 -n 64 --out study",
        "reference": {
            "method": "adaptive",
            "tol": 1e-4,
            "nfe_mean": 119.6,
            "dtype": "float64",
            "wanted": 1e-3,
            "agreed": True,
            "error": REFERENCE,
        },
        "rows": rows,
        "best": _best(rows),
        "timing": {
            "seconds": 431.0,
            "network_seconds": 402.0,
            "ratio": 1.072,
            "evaluations": 118_400,
            "date": "2026-11-25",
            "machine": "2 cores, x86_64",
            "threads": 2,
            "processes": 1,
            "devices": ["cpu"],
        },
    }


def strips(rows: list[dict[str, Any]], shape: tuple[int, int, int] = (1, 28, 28)) -> dict[str, bytes]:
    """A PNG strip for each row that is done, and for "reference"."""
    images, _ = bundled_images()
    pixels = images[:SAMPLES, 0].numpy()
    zoom = shape[1] // 28
    reference = np.concatenate([image.repeat(zoom, 0).repeat(zoom, 1) for image in pixels], 1).astype(float)
    reference = np.stack([reference] * shape[0], -1)
    noise = np.random.default_rng(0).standard_normal(reference.shape)

    def png(error: float) -> bytes:
        noisy = np.clip(np.rint(reference + 127.5 * error * noise), 0, 255).astype(np.uint8)
        written = io.BytesIO()
        Image.fromarray(noisy.squeeze(-1) if shape[0] == 1 else noisy).save(written, "PNG")
        return written.getvalue()

    made = {row["key"]: png(row["error"]["median"] if row["error"] else 0.3) for row in rows if row["status"] == "done"}
    return {"reference": png(0), **made}


def _deterministic(name: str, grid: str | None, cost: int, order: int, at_ten: float, nfe: int) -> dict[str, Any]:
    if nfe < 2 * cost:
        reason = f"nfe={nfe} is too small for {name!r}: it needs {cost} evaluations a step; use nfe >= {2 * cost}"
        return _unmeasured(name, grid, nfe, "skipped", reason)
    spent = nfe // cost * cost
    error = max(at_ten * (10 / spent) ** order, REFERENCE["median"])
    row = _row(name, grid, nfe, None, None, spent, error)
    if name in ("exact_heun", "ddim"):
        lost = 0.0 if name == "exact_heun" else 2.4 / nfe
        row["reconstruction"] = {"rms": lost, "bit_exact": float(lost == 0), "nfe_up": nfe, "nfe_down": nfe}
    return row


def _adaptive(tol: float) -> dict[str, Any]:
    spent = 14.1 * (0.01 / tol) ** 0.4
    row = _row("adaptive", None, None, tol, None, spent, tol)
    return row | {"kind": "adaptive"}


def _stochastic(eta: float, nfe: int) -> dict[str, Any]:
    row = _row("ddim", "uniform", nfe, None, eta, nfe, 0.1)
    return row | {"kind": "stochastic", "error": None, "psnr": None, "ssim": None, "consistency": None}


def _row(
    name: str, grid: str | None, nfe: int | None, tol: float | None, eta: float | None, spent: float, error: float
) -> dict[str, Any]:
    spread = 0 if nfe else 3
    ends = {"min": int(spent) - spread, "median": float(spent), "mean": float(spent), "max": math.ceil(spent) + spread}
    seconds = 64 * spent * 0.0124
    return {
        "key": _key(name, grid, nfe, tol, eta),
        "method": name,
        "grid": grid,
        "eta": eta,
        "nfe": nfe,
        "tol": tol,
        "kind": "invertible" if name == "exact_heun" else "",
        "status": "done",
        "reason": None,
        "measured_nfe": ends,
        "steps": float(spent),
        "grid_cost": None,
        "error": {
            "median": error,
            "median_low": error * 0.86,
            "median_high": error * 1.17,
            "rms": error * 1.7,
            "rms_low": error * 1.3,
            "rms_high": error * 2.2,
            "share": min(1.0, error * 4),
        },
        "resolved": error > 2 * REFERENCE["median"],
        "psnr": 20 * math.log10(2 / error),
        "ssim": 1 - error,
        "consistency": 1.7 * error,
        "distribution": {
            "frechet": 9 + 120 * error,
            "kid": 0.004 + error / 20,
            "kid_error": 0.001,
            "precision": max(0.0, 0.71 - error),
            "recall": max(0.0, 0.62 - error),
            "sliced_wasserstein": 0.05 + error,
        },
        "reconstruction": None,
        "timing": {"seconds": seconds, "images_per_second": 64 / seconds, "peak_memory_mb": 912.0},
    }


def _unmeasured(name: str, grid: str | None, nfe: int, status: str, reason: str) -> dict[str, Any]:
    row = dict.fromkeys(_row(name, grid, nfe, None, None, nfe, 1.0))
    key = _key(name, grid, nfe, None, None)
    return row | {"key": key, "method": name, "grid": grid, "nfe": nfe, "kind": "", "status": status, "reason": reason}


def _key(name: str, grid: str | None, nfe: int | None, tol: float | None, eta: float | None) -> str:
    return f"{name}|{grid}|{f'nfe={nfe}' if nfe else f'tol={tol}'}|eta={eta or 0}"


def _best(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    best = []
    for nfe in BUDGETS:
        within = [row for row in rows if row["error"] and row["measured_nfe"]["mean"] <= nfe]
        within.sort(key=lambda row: row["error"]["median"])
        first, *others = within
        high = first["error"]["median_high"]
        tied = [row["key"] for row in others if row["error"]["median_low"] <= high]
        best.append({"nfe": nfe, "key": first["key"], "tied": tied})
    return best
