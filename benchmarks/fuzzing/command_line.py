"""Command lines of each command, one to three of whose arguments are changed; run by `ddim_ode.cli.main`."""

import contextlib
import io
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import typer

from benchmarks.fuzzing.inputs import CLEAN, FINE, FOREIGN, Fault, Input
from benchmarks.fuzzing.judge import LONGEST
from benchmarks.fuzzing.material import Material
from benchmarks.fuzzing.odd import TEXTS, odd_paths
from ddim_ode import cli

Part = tuple[str, ...]  # an option with its value, a flag, or a positional argument


def parts(text: str) -> list[Part]:
    """What belongs together on a command line, in which options begin with -- and -n has a value."""
    found: list[Part] = []
    for word in text.split():
        before = found[-1] if found else ("",)
        if len(before) == 1 and before[0].startswith("-") and not word.startswith("-"):
            found[-1] = (*before, word)
        else:
            found.append((word,))
    return found


#: valid lines; {m}, {i} and so on are files of the material
LINES = {
    "models": "models --json",
    "info": "info {m}",
    "methods": "methods --json",
    "sample": "sample {m} --method ddim --nfe 3 -n 2 --label 1 --guidance 2 --grid karras --out out",
    "encode": "encode {m} {i} --method exact_heun --nfe 3 -n 2 --label 1 --out latent.safetensors",
    "decode": "decode {m} {l} --device cpu --out out",
    "reconstruct": "reconstruct {m} {i} -n 2 --method exact_heun,ddim --nfe 3 --out out",
    "interpolate": "interpolate {m} --seeds 0,1 --frames 3 --nfe 3 --label 2 --out out",
    "likelihood": "likelihood {m} {i} -n 1 --method heun --nfe 8 --seed 3 --out out.csv",
    "convert": "convert {m} out --to diffusers",
    "compare": "compare {m} --methods ddim --nfe 2 -n 2 --label 1 --reference-tol 0.5 --out out",
    "evaluate": "evaluate {i} --real {i} --seed 3 --most 8 --shard-size 3 --statistics --repeats --out out",
    "recommend": "recommend {m} --nfe 2 -n 2 --label 1",
    "train": "train {t} --data {i} --out out",
    "manifest": "sample --manifest {r} --out out",
}
SUBJECTS = tuple(LINES)

#: of any command; --fast is left out, as compiling takes longer than an input may
VALUES = {
    "--method": ("adams3", "adaptive", "exact_heun", "sde_srk"),
    "--tol": ("0.1",),
    "--max-nfe": ("8",),
    "--grid": ("uniform", "80,10,1"),
    "--dtype": ("float64",),
    "--eta": ("0.5", "ddpm_large"),
    "--nfe": ("4",),
    "--guidance-range": ("0.1:10",),
    "--eta-range": (":5",),
    "--batch-size": ("1",),
    "--final": ("sigma_min",),
    "--label": ("each", "none"),
    "--seeds": ("0-1",),
    "--features": ("pixels",),
    "--resize": ("clean",),
    "--real": ("bundled",),
    "--grids": ("auto,karras",),
    "--etas": ("0,1",),
    "--tols": ("0.1",),
    "--probes": ("2",),
    "--frames": ("2",),
    "--to": ("ddim_ode",),
}
KEPT_OUT = ("--fast", "--help")


@cache
def options() -> tuple[str, ...]:
    """Every option of every command."""
    commands = typer.main.get_command(cli.app).commands.values()
    found = {name for command in commands for option in command.params for name in option.opts}
    return tuple(sorted(name for name in found if name.startswith("-") and name not in KEPT_OUT))


def make(subject: str, name: str, rng: random.Random | None, material: Material, scratch: Path) -> Input:
    """A command line with one to three changes, about copies of the files that it names."""
    given = scratch / "given"
    for letter, folder in zip("mitlr", material.named, strict=True):
        shutil.copytree(folder, given / letter)
    paths = odd_paths(scratch / "odd", given / "m", given / "i/0.png")
    files = {
        "m": given / "m",
        "i": given / "i",
        "l": given / "l/x.safetensors",
        "t": given / "t/train.yaml",
        "r": given / "r/manifest.json",
    }
    line = [tuple(word.format_map(files) for word in part) for part in parts(LINES[subject])]
    for _ in range(rng.randint(1, 3) if rng else 0):
        assert rng
        rng.choices(CHANGES, WEIGHTS)[0](line, rng, paths)
    words = [word for part in line for word in part]
    return Input(name, " ".join(words)[:2000], lambda: run(words), refusals=(), quiet=False)


def odd(rng: random.Random, paths: Sequence[str]) -> str:
    return rng.choice(paths if rng.random() < 0.25 else TEXTS)


def replace_value(line: list[Part], rng: random.Random, paths: Sequence[str]) -> None:
    if len(line) > 1:
        at = rng.randrange(1, len(line))
        line[at] = (*line[at][:-1], odd(rng, paths))


def drop_part(line: list[Part], rng: random.Random, paths: Sequence[str]) -> None:
    if len(line) > 1:
        del line[rng.randrange(1, len(line))]


def drop_value(line: list[Part], rng: random.Random, paths: Sequence[str]) -> None:
    at = rng.randrange(len(line))
    line[at] = line[at][:1] if at else line[at]


def repeat(line: list[Part], rng: random.Random, paths: Sequence[str]) -> None:
    part = rng.choice(line)
    line.insert(rng.randint(1, len(line)), (*part[:-1], odd(rng, paths)) if rng.random() < 0.5 else part)


def swap_values(line: list[Part], rng: random.Random, paths: Sequence[str]) -> None:
    if len(line) > 2:
        a, b = rng.sample(range(1, len(line)), 2)
        line[a], line[b] = (*line[a][:-1], line[b][-1]), (*line[b][:-1], line[a][-1])


def add_option(line: list[Part], rng: random.Random, paths: Sequence[str]) -> None:
    option = rng.choice(options())
    value = rng.choice(VALUES[option]) if option in VALUES and rng.random() < 0.6 else odd(rng, paths)
    line.insert(rng.randint(1, len(line)), (option, value) if rng.random() < 0.8 else (option,))


def add_word(line: list[Part], rng: random.Random, paths: Sequence[str]) -> None:
    line.insert(rng.randint(0, len(line)), (odd(rng, paths),))


def add_valid(line: list[Part], rng: random.Random, paths: Sequence[str]) -> None:
    option = rng.choice(list(VALUES))
    line.append((option, rng.choice(VALUES[option])))


Change = Callable[[list[Part], random.Random, Sequence[str]], None]
CHANGES: tuple[Change, ...] = (
    *(replace_value, drop_part, drop_value, repeat, swap_values),
    *(add_option, add_word, add_valid),
)
WEIGHTS = (8, 1, 1, 2, 2, 4, 1, 4)


def run(words: list[str]) -> str:
    """Run a command line, its outputs encoded as a terminal's would be; returns the outcome or raises `Fault`."""
    out, err = io.BytesIO(), io.BytesIO()
    stdout = io.TextIOWrapper(out, "utf-8", write_through=True)
    stderr = io.TextIOWrapper(err, "utf-8", errors="backslashreplace", write_through=True)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = cli.main(words)
        sys.stdout.flush()
    return check(code, out.getvalue().decode(), err.getvalue().decode())


def check(code: int, out: str, err: str) -> str:
    """The outcome of what a command has printed. Raises `Fault` for what a stranger should not see."""
    lines = err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    seen = f"code {code}\n--- stdout\n{out[-1500:]}\n--- stderr\n{err[-1500:]}"
    hidden = [c for c in out + err if not c.isprintable() and c not in "\n\t"]
    wrong = {
        f"code {code}": code not in (0, 1, 2),
        "a traceback is printed": "Traceback" in err,
        "control characters are printed": bool(hidden),
        f"a line over {LONGEST} characters": any(len(line) > LONGEST for line in lines),
        "nothing is printed": code == 0 and not out.strip(),
        "an error, and code 0": code == 0 and bool(errors),
        "a warning of other code": code != 2 and any("Warning: " in line for line in lines),
        "code 2 without one line of error": code == 2 and len(errors) != 1,
        "code 2 and other lines": code == 2 and any(not line.startswith(("error: ", "warning: ")) for line in lines),
    }
    for sort, is_so in wrong.items():
        if is_so:
            raise Fault(FOREIGN, sort, seen, "the command line")
    return CLEAN if code == 2 else FINE
