"""What is generated: the methods and the grids in methods.md, and the help of every command in commands.md."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from ddim_ode.cli import app
from ddim_ode.grids import GRIDS
from ddim_ode.solvers import METHODS, Method

KINDS: dict[str, Callable[[Method], bool]] = {  # a method is listed under the first that fits
    "Noise on the way": lambda method: not method.deterministic,
    "Adaptive": lambda method: method.adaptive,
    "Their own inverse": lambda method: method.invertible,
    "On a grid": lambda method: True,
}


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    for name, made in {"methods": methods, "grids": grids, "commands": commands}.items():
        if (marker := f"<!-- {name} -->") in markdown:
            markdown = markdown.replace(marker, made())
    return markdown


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def plain(text: str) -> str:
    """Text in which no sign is markup; what is in code stays as it is."""
    pieces = re.split(r"(`[^`]+`)", text)
    pieces[::2] = [re.sub(r"([|*_<])", r"\\\1", piece) for piece in pieces[::2]]
    return "".join(pieces)


def kind_of(method: Method) -> str:
    """What sets a method apart, in words."""
    words = {
        "adaptive": method.adaptive,
        "coupled": not method.per_sample,
        "draws noise": not method.deterministic,
        "bit-exact inverse": method.exact,
        "inverse up to rounding": method.invertible and not method.exact,
    }
    return ", ".join(word for word, holds in words.items() if holds) or "grid"


def methods() -> str:
    rows: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in reversed(KINDS)}
    for name, method in METHODS.items():
        kind = next(kind for kind, fits in KINDS.items() if fits(method))
        grid = f"[`{method.grid}`][ddim_ode.grids.{method.grid.partition(':')[0]}]" if method.grid else ""
        rows[kind].append((f"`{name}`", method.order, method.evaluations, kind_of(method), grid, plain(method.summary)))
    head = ("method", "order", "evaluations a step", "kind", "grid", "what it is")
    return "\n\n".join(f"## {kind}\n\n{table(head, found)}" for kind, found in rows.items())


def grids() -> str:
    rows = [(f"[`{name}`][ddim_ode.grids.{name}]", summary(rule)) for name, rule in GRIDS.items()]
    return table(("grid", "rule"), rows)


def summary(rule: Callable[..., Any]) -> str:
    return plain((rule.__doc__ or "").partition("\n")[0])


def commands() -> str:
    group = typer.main.get_command(app)
    root = group.make_context("ddim-ode", [], resilient_parsing=True)
    parts = list(part_of(group, root))
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        context = command.make_context(name, [], parent=root, resilient_parsing=True)
        parts += [f"## {name}", *part_of(command, context)]
    return "\n\n".join(parts)


def part_of(command: Any, context: Any) -> Iterator[str]:
    """A command's usage, its text and its arguments and options, as `--help` has them."""
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```"
    yield command.help
    records = [param.get_help_record(context) for param in command.get_params(context)]
    rows = [(f"`{names.strip()}`", plain(text)) for names, text in filter(None, records) if names != "--help"]
    if rows:
        yield table(("argument or option", "meaning"), rows)
