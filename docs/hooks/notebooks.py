"""The notebooks of examples/ as pages, with the outputs that they were saved with; nothing is run.

Their text and code become Markdown, so that links in them are checked as everywhere else, and need no other host.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SECTION = "Examples"  # of the navigation
ANSI = re.compile(r"\x1b\[[0-9;]*m")
Images = dict[str, bytes]  # by name


def notebooks() -> list[Path]:
    return sorted((ROOT / "examples").glob("*.ipynb"))


def on_config(config: MkDocsConfig) -> None:
    """Put them into the navigation, under the titles that they have."""
    for item in config.nav or []:
        if isinstance(item, dict) and SECTION in item:
            item[SECTION].extend(f"examples/{file.stem}.md" for file in notebooks())
    config.nav = [item for item in config.nav or [] if item != {SECTION: []}]


def on_files(files: Files, config: MkDocsConfig) -> None:
    for file in notebooks():
        markdown, images = page_of(json.loads(file.read_text()), file)
        files.append(File.generated(config, f"examples/{file.name}", abs_src_path=str(file)))
        files.append(File.generated(config, f"examples/{file.stem}.md", content=markdown))
        for name, image in images.items():
            files.append(File.generated(config, f"examples/{name}", content=image))


def page_of(notebook: dict[str, Any], file: Path) -> tuple[str, Images]:
    """Markdown of a notebook (nbformat 4), and the images in it."""
    parts: list[str] = []
    images: Images = {}
    for cell in notebook["cells"]:
        source = text_of(cell["source"]).strip("\n")
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source:
            parts.append(fenced(source, "python"))
            parts.extend(output_of(output, file.stem, images) for output in cell["outputs"])
    parts.append(
        f'This page is <a href="{file.name}" download>a notebook</a>, with the outputs that it was saved with.'
    )
    return "\n\n".join(part for part in parts if part) + "\n", images


def output_of(output: dict[str, Any], stem: str, images: Images) -> str:
    """What a cell has written, drawn or raised; of several forms the one that is best to look at."""
    if output["output_type"] == "stream":
        return fenced(text_of(output["text"]), "text .output")
    if output["output_type"] == "error":
        return fenced("\n".join(output["traceback"]), "text .output")
    data = output["data"]
    for kind, suffix in (("image/png", "png"), ("image/svg+xml", "svg")):
        if kind in data:
            content = text_of(data[kind])
            name = f"{stem}-{len(images) + 1}.{suffix}"
            images[name] = base64.b64decode(content) if suffix == "png" else content.encode()
            return f"![Output of the cell above]({name})"
    for kind in ("text/markdown", "text/html"):
        if kind in data:
            return text_of(data[kind])
    return fenced(text_of(data.get("text/plain", "")), "text .output")


def fenced(text: str, kind: str) -> str:
    text = ANSI.sub("", text).strip("\n")
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`{3,}", text)), 3)
    return f"{fence}{{ .{kind} }}\n{text}\n{fence}" if text else ""


def text_of(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)
