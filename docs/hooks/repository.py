"""One text for the code host and for the site: README.md and its kin become pages, and links that leave docs/ go on.

A link is written for the code host, relative to its file. Here it is led to the page of the file that it names; a file
without one, such as a configuration or a module, gets a page that shows it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
KINDS = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".js": "javascript", ".css": "css"}

# Code, in which nothing is a link, or a link to a file.
CODE_OR_LINK = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1|`[^`\n]+`|\]\((?P<target>[^)\s#]+)", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """Headings get the anchors that code hosts give them."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")


def on_files(files: Files, config: MkDocsConfig) -> None:
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text()))
    for file in list(files.documentation_pages()):
        for path in targets(file.content_string, folder_of(file.src_uri)):
            if (uri := place(path)).startswith("source/") and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, content=shown(path), inclusion=InclusionLevel.NOT_IN_NAV))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri

    def lead(match: re.Match[str]) -> str:
        path = path_of(match, folder_of(here))
        return match[0] if path is None else f"]({relpath(place(path), dirname(here) or '.')}"

    return markdown if here.startswith("source/") else CODE_OR_LINK.sub(lead, markdown)


def folder_of(uri: str) -> str:
    """The folder, from the root of the repository, that a page's links start from."""
    if uri in PAGES.values():
        return ""
    return "examples" if uri.startswith("examples/") else dirname(f"docs/{uri}")


def place(path: str) -> str:
    """The page, or the file, that stands on the site for a file of the repository."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("examples/") and path.endswith(".ipynb"):
        return path.removesuffix("ipynb") + "md"
    return f"source/{path}.md"


def path_of(match: re.Match[str], folder: str) -> str | None:
    """Where a link leads, from the root of the repository; None where that is no file of it."""
    if match["target"] is None or ":" in match["target"]:
        return None
    path = normpath(join(folder, match["target"]))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def targets(markdown: str, folder: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    for match in CODE_OR_LINK.finditer(markdown):
        if (path := path_of(match, folder)) is not None:
            yield path


def shown(path: str) -> str:
    """A page of a file's text, or of what a folder holds; not one to be found by a search."""
    where = ROOT / path
    if where.is_dir():
        names = sorted(file.name for file in where.iterdir() if not file.name.startswith((".", "__pycache__")))
        body = "\n".join(f"- `{name}`" for name in names)
    else:
        body = f"~~~~~{KINDS.get(where.suffix, 'text')}\n{where.read_text().rstrip()}\n~~~~~"
    return f"---\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n{body}\n"
