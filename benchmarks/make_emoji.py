"""Draw the images that the bundled model "emoji" is trained on: a folder of PNG files, in a folder for each class.

    pip install resvg-py
    python benchmarks/make_emoji.py OUT [--size 32] [--cache FOLDER]

A class is a drawing style and a group of Unicode's emoji: 4 styles of 3 groups, in folders that sort as label =
3 style + group. The pictures come from four npm packages of a version and digest written below (32 MB), which may be
shared, changed and used to train:

    fluent-3d    Fluent Emoji, Microsoft, MIT               @lobehub/fluent-emoji-3d
    fluent-flat  Fluent Emoji, Microsoft, MIT               @iconify-json/fluent-emoji-flat
    noto         Noto Emoji, Google, Apache 2.0             @iconify-json/noto
    twemoji      Twemoji, X and contributors, CC-BY 4.0     @iconify-json/twemoji

Groups are those of unicode-emoji-json (MIT) that a network of two million weights learns to draw in two hours of one
CPU core; of people, animals, places and objects it made blobs. Pictures are drawn on white; but for symbols they come
mirrored, too.
"""

import argparse
import base64
import hashlib
import io
import json
import sys
import tarfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

REGISTRY = "https://registry.npmjs.org"
PACKAGES = {  # name -> (version, sha512 in base64, as the registry calls it)
    "@lobehub/fluent-emoji-3d": (
        "1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    ),
    "@iconify-json/fluent-emoji-flat": (
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
    "@iconify-json/noto": (
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "@iconify-json/twemoji": (
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
    ),
    "unicode-emoji-json": (
        "0.9.0",
        "HdrQW/7SdbXUsTd8uTATv7LvQJkCSgbAgRCDCtOhQ6xn3EAx+xZHQtRniOXWJK3ywIqPegkNhP4U4EbuFsiQng==",
    ),
}
STYLES = {
    "fluent-3d": "@lobehub/fluent-emoji-3d",
    "fluent-flat": "@iconify-json/fluent-emoji-flat",
    "noto": "@iconify-json/noto",
    "twemoji": "@iconify-json/twemoji",
}
GROUPS = {
    "Smileys & Emotion": "smileys",
    "Food & Drink": "food",
    "Symbols": "symbols",
}
SIDED = {"symbols"}  # groups that are not mirrored
JOINERS = {"fe0f", "200d"}  # which some packages leave out of names
LARGE = 128  # pixels that a picture is drawn with, before it is made small


def package(name: str, cache: Path) -> tarfile.TarFile:
    """The package, fetched once. Exits with a line where it is another than the one that was trained on."""
    version, digest = PACKAGES[name]
    file = cache / f"{name.replace('/', '-').strip('@')}-{version}.tgz"
    if not file.exists():
        with urllib.request.urlopen(f"{REGISTRY}/{name}/-/{name.split('/')[-1]}-{version}.tgz", timeout=60) as answer:
            content = answer.read()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    found = base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
    if found != digest:
        sys.exit(f"{file}: its sha512 is {found}, expected {digest}; remove it")
    return tarfile.open(file)


def read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(f"package/{name}")
    assert member is not None
    return member.read()


def drawings(style: str, cache: Path) -> Iterator[tuple[str, bytes]]:
    """Each picture of a style: its code points, 1f600 or 1f44b-1f3fb, and the bytes of an image of any kind."""
    archive = package(STYLES[style], cache)
    if style == "fluent-3d":
        for name in sorted(archive.getnames()):
            if name.endswith(".webp"):
                yield Path(name).stem, read(archive, name.removeprefix("package/"))
        return
    from resvg_py import svg_to_bytes

    icons, chars = (json.loads(read(archive, f"{part}.json")) for part in ("icons", "chars"))
    known: dict[str, Any] = icons["icons"]
    parents = {alias: told["parent"] for alias, told in icons.get("aliases", {}).items()}
    for code, name in sorted(chars.items()):
        icon = known[parents.get(name, name)]
        width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
        box = f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}"'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box} width="{LARGE}" height="{LARGE}">{icon["body"]}</svg>'
        yield code, bytes(svg_to_bytes(svg_string=svg))


def group_of(archive: tarfile.TarFile) -> dict[str, str]:
    """The group of each emoji, by its bare code points."""
    return {
        bare(emoji["emoji"]): GROUPS[group["name"]]
        for group in json.loads(read(archive, "data-by-group.json"))
        if group["name"] in GROUPS
        for emoji in group["emojis"]
    }


def bare(emoji: str) -> str:
    """Code points without joiners, by which packages agree on an emoji."""
    return "-".join(code for code in (f"{ord(c):x}" for c in emoji) if code not in JOINERS)


def small(picture: bytes, size: int) -> Image.Image:
    """RGB on white."""
    with Image.open(io.BytesIO(picture)) as found:
        drawn = found.convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)
    return white.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--cache", type=Path, default=Path("emoji-packages"), help="where the packages are kept")
    args = parser.parse_args()

    groups, count = group_of(package("unicode-emoji-json", args.cache)), Counter[str]()
    for number, style in enumerate(STYLES):
        for place, group in enumerate(GROUPS.values()):
            (args.out / f"{len(GROUPS) * number + place:02}-{style}-{group}").mkdir(parents=True, exist_ok=True)
        for code, picture in drawings(style, args.cache):
            parts = (part.lstrip("0") for part in code.lower().split("-"))
            group = groups.get("-".join(part for part in parts if part not in JOINERS))
            if group is None:
                continue
            place = list(GROUPS.values()).index(group)
            folder = args.out / f"{len(GROUPS) * number + place:02}-{style}-{group}"
            image = small(picture, args.size)
            image.save(folder / f"{code}.png")
            count[style] += 1
            if group not in SIDED:
                ImageOps.mirror(image).save(folder / f"{code}-mirrored.png")
                count[style] += 1
        print(f"{style}: {count[style]} pictures")


if __name__ == "__main__":
    main()
