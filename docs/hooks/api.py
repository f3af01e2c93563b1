"""The API pages: complete, and made of docstrings as they are.

Every public name has a docstring and one place, a line `::: name` in docs/api/; what is missing is a warning, which a
strict build fails on. All of it is read off the sources, without importing them. `Docstrings` prepares them on the way
to Markdown:

    `name`           a public name becomes a link to where it is described
    x, y: text       an entry of several names becomes one of each
    x: text          sentences about a class's fields, or a function's arguments, become a list of them
    x: int  # text   the comment behind a field becomes its entry
    Raises:          errors that share a reason stay on one line, each a link
    (B, *shape)      an asterisk is an asterisk
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LISTED = (
    "ddim_ode",
    "ddim_ode.editing",
    "ddim_ode.image_sets",
    "ddim_ode.inverse",
    "ddim_ode.metrics",
    "ddim_ode.models.guidance",
    "ddim_ode.solvers",
)  # modules that say in __all__ what is public
OPEN = ("ddim_ode.paths", "ddim_ode.continuous", "ddim_ode.grids", "ddim_ode.data", "ddim_ode.gradients")
MORE = (
    "ddim_ode.integrations.diffusers.ODEScheduler",
    "ddim_ode.integrations.pipelines.PipelineModel",
    "ddim_ode.integrations.k_diffusion.sampler",
)
ERRORS = "<!-- errors -->"  # where all of them are listed

DIRECTIVE = re.compile(r"^::: *(\S+)", re.MULTILINE)
HEADER = re.compile(r"(Args|Raises|Returns|Yields|Attributes|Examples):$")
CODE = re.compile(r"(`[^`\n]+`)")
ENTRY = re.compile(r"`?\w+`?(?:, `?\w+`?)*: ")
SEVERAL = re.compile(r"^( *)(\w+(?:, \w+)+): (.*(?:\n\1 +.*)*)", re.MULTILINE)
COMMENT = re.compile(r"  # (.*)$", re.MULTILINE)
TITLE = '<p><span class="doc-section-title">Raises:</span></p>'  # as that of the other sections

log = logging.getLogger("mkdocs.hooks.api")


def on_config(config: MkDocsConfig) -> None:
    for problem in problems(ROOT):
        log.warning(problem)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if ERRORS not in markdown:
        return markdown
    short = "    options: {heading_level: 2, show_root_full_path: false}"
    return markdown.replace(ERRORS, "\n\n".join(f"::: {name}\n{short}" for name in error_names(loaded(ROOT))))


def problems(root: Path) -> list[str]:
    """What is missing in the repository at `root`, in sentences."""
    package = loaded(root)
    shown = shown_names(package, root)
    found = [f"docs/api has `::: {name}`, which does not exist" for name in shown if target(package, name) is None]
    places = Counter(item.path for name in shown if (item := target(package, name)))
    public = {name: target(package, name) for name in [*public_names(package), *error_names(package)]}
    for name, item in public.items():
        if item is None:
            found.append(f"{name} is public and cannot be found in the sources")
        elif not item.is_attribute and not item.docstring:
            found.append(f"{name} is public and has no docstring")
    for path, name in {item.path: name for name, item in public.items() if item}.items():
        if places[path] != 1:
            found.append(f"{name} is public and stands {places[path]} times in docs/api; write `::: {name}` once")
    return found


def loaded(root: Path) -> griffe.Module:
    package = griffe.load(
        "ddim_ode",
        search_paths=[str(root)],
        try_relative_path=False,  # or the folder of this name that one happens to stand beside
        allow_inspection=False,
        resolve_aliases=True,
    )
    assert isinstance(package, griffe.Module)
    return package


def target(package: griffe.Module, name: str) -> griffe.Object | None:
    """What a dotted name stands for, where it is defined."""
    try:
        found = package[name.split(".")[1:]] if "." in name else package
        return found.final_target if isinstance(found, griffe.Alias) else found
    except (KeyError, griffe.AliasResolutionError):
        return None


def shown_names(package: griffe.Module, root: Path) -> list[str]:
    """What docs/api has a place for, errors last."""
    pages = "\n".join(page.read_text() for page in sorted((root / "docs" / "api").glob("*.md")))
    return DIRECTIVE.findall(pages) + (error_names(package) if ERRORS in pages else [])


def public_names(package: griffe.Module) -> Iterator[str]:
    for module in LISTED:
        yield from (f"{module}.{name}" for name in target(package, module).exports or ())
    for module in OPEN:
        for name, item in target(package, module).members.items():
            defined = not item.is_alias and (item.is_function or item.is_class)
            if defined and not name.startswith("_") and not is_error(item):
                yield f"{module}.{name}"
    yield from MORE


def error_names(package: griffe.Module) -> list[str]:
    """Every `DDIMError` and every warning, the first of them first."""
    found = [item for item in objects(package) if is_error(item)]
    return [item.path for item in sorted(found, key=lambda item: (item.name != "DDIMError", item.name))]


def is_error(item: griffe.Object | griffe.Alias) -> bool:
    if not item.is_class:
        return False
    above = {item.name, *(base.name for base in item.mro()), *(str(base) for base in item.bases)}
    return bool(above & {"DDIMError", "UserWarning"})


def objects(item: griffe.Object) -> Iterator[griffe.Object]:
    """An object and all that is defined in it."""
    yield item
    for member in item.members.values():
        if not member.is_alias:
            yield from objects(member)


class Docstrings(griffe.Extension):
    """Prepares every docstring of the package when it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        griffe.DataclassesExtension().on_package(pkg=pkg)  # which would come later
        links = links_of(pkg, shown_names(pkg, ROOT))
        for item in objects(pkg):
            if isinstance(item, griffe.Class):
                settle_signature(item)
            if item.docstring:
                own = own_words(item)
                lead = {name: path for name, (path, it) in links.items() if it is not item and name not in own}
                item.docstring.value = with_comments(item, prepared(item, lead), lead)


def links_of(package: griffe.Module, shown: list[str]) -> dict[str, tuple[str, griffe.Object]]:
    """What a name in a docstring stands for, by all the ways to say it.

    A module, and what is a module's own word as `angle` of the grids is, must be said with the module's name.
    """
    links: dict[str, tuple[str, griffe.Object]] = {}
    for path in shown:
        if (item := target(package, path)) is None:
            continue
        links.setdefault(path, (path, item))
        within = path.removeprefix("ddim_ode.")
        if "." in within:
            links.setdefault(within, (path, item))
        module, _, name = path.rpartition(".")
        if item.is_class or (module in LISTED and not item.is_module):
            links.setdefault(name, (path, item))
    return links


def own_words(item: griffe.Object) -> set[str]:
    """What a name in an object's docstring means first: its arguments and members, and those of its class."""
    around = item.parent if isinstance(item.parent, griffe.Class) else item
    members = around.members if isinstance(around, griffe.Class) else ()
    return {parameter.name for parameter in getattr(item, "parameters", ())} | set(members)


def fields(item: griffe.Object) -> dict[str, griffe.Attribute]:
    """The annotated attributes of a class, in their order."""
    found = {name: member for name, member in item.members.items() if isinstance(member, griffe.Attribute)}
    return {name: it for name, it in found.items() if it.annotation and "property" not in it.labels}


def settle_signature(item: griffe.Class) -> None:
    """Named tuples and typed dictionaries get one, as dataclasses have; a field that a subclass takes back goes."""
    if {str(base) for base in item.bases} & {"NamedTuple", "TypedDict"}:
        kind = griffe.ParameterKind.positional_or_keyword
        found = fields(item).items()
        given = [griffe.Parameter(name, annotation=f.annotation, kind=kind, default=f.value) for name, f in found]
        item.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*given)))
    elif "dataclass" in item.labels and "__init__" in item.members:
        for name in [parameter.name for parameter in item.parameters]:
            first = next((above.members[name] for above in (item, *item.mro()) if name in above.members), None)
            if first is not None and "init=False" in str(getattr(first, "value", "")):
                del item.members["__init__"].parameters[name]


def with_comments(item: griffe.Object, text: str, links: Mapping[str, str]) -> str:
    """What the comments behind a class's fields say of them, before what the docstring does."""
    if not item.is_class:
        return text
    notes = {name: COMMENT.search(field.source) for name, field in fields(item).items()}
    lines = [f"    {name}: {prose(note[1], links)}" for name, note in notes.items() if note]
    if not lines:
        return text
    before, title, after = text.partition("Attributes:\n")
    return before + "\n".join([title.strip() or "\n\nAttributes:", *lines, after])


def prepared(item: griffe.Object, links: Mapping[str, str]) -> str:
    """A docstring as `mkdocstrings` wants it."""
    parts = []
    for block in re.split(r"\n{2,}", item.docstring.value.strip()):
        if block.startswith("    "):  # an equation or a table, after an empty line
            parts.append(block)
        elif block.startswith("Raises:\n"):
            parts.append(raises(block, links))
        elif HEADER.match(block.partition("\n")[0]):
            parts.append(prose(SEVERAL.sub(one_each, block), links))
        elif isinstance(item, griffe.Class):
            parts.append(prose(listed(block, "Attributes", set(fields(item)), 1), links))
        elif isinstance(item, griffe.Function):  # one alone may be a sentence about what is returned
            parts.append(prose(listed(block, "Args", {parameter.name for parameter in item.parameters}, 2), links))
        else:
            parts.append(prose(block, links))
    return "\n\n".join(parts)


def one_each(match: re.Match[str]) -> str:
    indent, names, text = match.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))


def listed(block: str, section: str, own: set[str], least: int) -> str:
    """A paragraph as a section, if it is a row of sentences that begin with an object's own names."""
    line = " ".join(block.split())
    entries = [
        (found, set(re.findall(r"\w+", found[0])))
        for found in ENTRY.finditer(line)
        if not found.start() or line[: found.start()].endswith(". ")
    ]
    entries = [(found, names) for found, names in entries if names <= own]
    if len(entries) < least or entries[0][0].start():
        return block
    ends = [found.start() for found, _ in entries[1:]] + [len(line)]
    lines = [
        f"    {name}: {line[found.end() : end].strip()}"
        for (found, _), end in zip(entries, ends, strict=True)
        for name in re.findall(r"\w+", found[0])
    ]
    return "\n".join([f"{section}:", *lines])


def raises(block: str, links: Mapping[str, str]) -> str:
    """As a list; `mkdocstrings` would look for errors among the names of the module, where they seldom are."""
    lines = [TITLE, ""]
    for entry in re.split(r"\n {4}(?! )", block)[1:]:
        names, _, text = " ".join(entry.split()).partition(": ")
        errors = ", ".join(f"`{name}`" for name in names.split(", "))
        lines.append(prose(f"- {errors} – {text}", links))
    return "\n".join(lines)


def prose(block: str, links: Mapping[str, str]) -> str:
    """With links for names in code, and asterisks that are no emphasis."""
    pieces = CODE.split(block)
    pieces[::2] = [piece.replace("*", "\\*") for piece in pieces[::2]]
    pieces[1::2] = [f"[{code}][{links[code[1:-1]]}]" if code[1:-1] in links else code for code in pieces[1::2]]
    return "".join(pieces)
