"""Damage to what JSON, YAML and the headers of safetensors files say."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Damage = Callable[[Path, random.Random], str]

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 1.5, -0.0, 1e308, 1e-320, float("nan"), float("inf")),
    *(2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 10**400, "", "a", "1", "nan", "ddim", "x" * 5000, "a\nb\x1b[31m"),
    *("\ud800", "\u202e", [], {}, [[]], [0], [None], ["a"], {"a": {"b": []}}, [1] * 1000, [1, 8, 8], [3, 2**40, 2**40]),
    *([32] * 40, "float32", "adaptive", "/dev/zero", "../../..", "2026-01-01", "cuda", "each"),
)


def slots(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a value of dicts and lists."""
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    found = [(value, key) for key in keys]
    for key in keys:
        if isinstance(value[key], dict | list):
            found += slots(value[key])
    return found


def disturb(value: Any, rng: random.Random) -> str:
    """Change something inside a value of dicts and lists, in place."""
    places = slots(value)
    if not places:
        return "nothing"
    inside, key = rng.choice(places)
    sort = rng.choice(("replace", "replace", "replace", "drop", "nest", "add", "swap", "nudge"))
    was = f"{str(key)[:50]}: {sort}"
    if sort == "replace":
        inside[key] = copy.deepcopy(rng.choice(ODD))
        return f"{was} by {inside[key]!r:.60}"
    if sort == "drop":
        del inside[key]
    elif sort == "nest":
        inside[key] = rng.choice(([inside[key]], {"a": inside[key]}, str(inside[key])))
    elif sort == "add" and isinstance(inside, dict):
        inside[rng.choice(("", "extra", "x" * 5000, "a\nb", "\x1b", "__class__", "command"))] = copy.deepcopy(
            rng.choice(ODD)
        )
    elif sort == "add":
        inside.extend(inside * rng.choice((1, 100)))
    elif sort == "swap":
        other, at = rng.choice(places)
        inside[key], other[at] = other[at], inside[key]
    else:
        inside[key] = _nudged(inside[key], rng)
    return was


def _nudged(value: Any, rng: random.Random) -> Any:
    """Almost the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, -value, value * 10, float(value), str(value)))
    return value[:-1] if isinstance(value, str | list) else value


def _written(values: Any, file: Path, as_json: bool) -> None:
    """As JSON or YAML; what has become a circle is written as far as it goes."""
    try:
        text = json.dumps(values, indent=1) if as_json else yaml.safe_dump(values, allow_unicode=True)
    except (ValueError, RecursionError, yaml.YAMLError):  # a circle, or a lone surrogate for YAML
        text = str(values)
    file.write_bytes(text.encode("utf-8", "surrogatepass"))


def json_values(file: Path, rng: random.Random) -> str:
    values = json.loads(file.read_text())
    done = "; ".join(disturb(values, rng) for _ in range(rng.choice((1, 1, 2))))
    _written(values, file, as_json=True)
    return done


def yaml_values(file: Path, rng: random.Random) -> str:
    values = yaml.safe_load(file.read_text())
    done = "; ".join(disturb(values, rng) for _ in range(rng.choice((1, 1, 2))))
    _written(values, file, as_json=False)
    return done


TEXTS_OF_JSON = {
    "nested deep": "[" * 100_000,
    "nested deep, closed": '{"a":' * 5000 + "1" + "}" * 5000,
    "an integer of 5,000 digits": "9" * 5000,
    "with a mark of byte order": "\ufeff{}",
    "two values": "{} {}",
    "a list": "[]",
    "a text": '"a"',
    "null": "null",
    "NaN": "NaN",
    "a million keys": "{" + ",".join(f'"k{i}":0' for i in range(100_000)) + "}",
}


def json_text(file: Path, rng: random.Random) -> str:
    what, text = rng.choice(list(TEXTS_OF_JSON.items()))
    file.write_text(text)
    return what


def json_twice(file: Path, rng: random.Random) -> str:
    """Keys of the top level that are there twice, with another value first or last."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in json.loads(file.read_text()).items()]
    key = rng.choice(lines).partition(": ")[0]
    lines.insert(rng.randint(0, len(lines)), f"{key}: {json.dumps(rng.choice((None, 1, 'a', [])))}")
    file.write_text("{" + ",\n".join(lines) + "}")
    return f"{key} twice"


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]" for n in range(1, 12)]
)
TEXTS_OF_YAML = {
    "a bomb of aliases": BOMB,
    "an alias of itself": "&a [*a]",
    "a mapping in itself": "&a {network: *a}",
    "an unknown alias": "network: *nothing",
    "a tag that would run code": "!!python/object/apply:os.system ['touch ran']",
    "a tag of a Namespace": "!!python/object:argparse.Namespace {a: 1}",
    "a list as a key": "? [a, b]\n: 1",
    "a mapping as a key": "{{a: 1}: 2}",
    "merge keys": "base: &b {steps: 1}\n<<: *b",
    "a merge of a number": "<<: 3",
    "a date": "2026-01-01",
    "a date that is none": "2026-99-99",
    "dates": "steps: 2026-01-01\nmodel: 2026-01-01 10:00:00",
    "a number of base 60": "steps: 1:30:00",
    "an integer of 5,000 digits": "steps: " + "9" * 5000,
    "a binary": "steps: !!binary aGVsbG8=",
    "a binary that is none": "steps: !!binary a",
    "a set": "!!set {a, b}",
    "pairs": "!!pairs [a: 1, a: 2]",
    "an omap": "!!omap [a: 1]",
    "a float that is none": "steps: !!float abc",
    "an int that is none": "steps: !!int abc",
    "nested deep": "[" * 3000,
    "two documents": "a: 1\n---\nb: 2",
    "a tab": "a:\n\t- b",
    "control characters": "a: \x07",
    "nothing": "",
    "a null": "~",
}


def yaml_text(file: Path, rng: random.Random) -> str:
    what, text = rng.choice(list(TEXTS_OF_YAML.items()))
    file.write_text(text)
    return what


def yaml_more(file: Path, rng: random.Random) -> str:
    """A valid file with an odd value of YAML's in place of one of its own."""
    lines = file.read_text().splitlines()
    at = rng.randrange(len(lines))
    odd = ("2026-01-01", "0o17", "1:30", ".nan", ".inf", "!!binary aGk=", "*x", "&x 1", "yes", "{a: 1}", "9" * 5000)
    lines[at] = f"{lines[at].partition(':')[0]}: {rng.choice((*odd, *odd, '!!timestamp 1', '!!set {a}', '? x'))}"
    file.write_text("\n".join(lines))
    return f"{lines[at]!r:.80}"


def header(file: Path, rng: random.Random) -> str:
    """The header of a safetensors file with something else in it."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    values = json.loads(data[8 : 8 + size])
    told = values.get("__metadata__", {})
    inner = [key for key, text in told.items() if text.startswith(("{", "["))]
    if inner and rng.random() < 0.4:
        key = rng.choice(inner)
        facts = json.loads(told[key])
        done = f"{key}: {disturb(facts, rng)}" if facts else "nothing"
        told[key] = json.dumps(facts)
    elif rng.random() < 0.5:
        done = disturb(values, rng)
    else:
        done = _tensor(values, rng)
    text = json.dumps(values).encode("utf-8", "surrogatepass")
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    return done


def _tensor(values: dict[str, Any], rng: random.Random) -> str:
    names = [name for name in values if name != "__metadata__"]
    name = rng.choice(names)
    entry = values[name]
    sort = rng.choice(("dtype", "shape", "flat", "offsets", "same bytes", "renamed"))
    if sort == "dtype":
        same = {"F16": ("BF16", "I16", "U16"), "F32": ("I32", "U32"), "I64": ("F64", "U64"), "F64": ("I64", "U64")}
        entry["dtype"] = rng.choice((*same.get(entry["dtype"], ()), "BOOL", "F8_E4M3", "C64", "Q4", "", "F4"))
    elif sort == "shape":
        entry["shape"] = rng.choice(
            ([], [0], [2**62], [2**40, 2**40], [-1], [1, *entry["shape"]], entry["shape"][::-1])
        )
    elif sort == "flat":
        count = 1
        for side in entry["shape"]:
            count *= side
        entry["shape"] = rng.choice(([count], [1, count], [count, 1]))
    elif sort == "offsets":
        entry["data_offsets"] = rng.choice(([0, 0], [2**62, 2**63], [8, 0], [-8, 8], entry["data_offsets"][:1]))
    elif sort == "same bytes":
        entry["data_offsets"] = values[rng.choice(names)]["data_offsets"]
    else:
        values[rng.choice(("", "x", "a\nb", f"{name} ", "x" * 5000))] = values.pop(name)
    return f"{name}: {sort}"


def header_length(file: Path, rng: random.Random) -> str:
    data = file.read_bytes()
    length = rng.choice((0, 1, 2, 8, 2**20, 2**31, 2**40, 2**63, 2**64 - 1))
    file.write_bytes(length.to_bytes(8, "little") + data[8:])
    return f"a header of {length} bytes"


def contents(file: Path, rng: random.Random) -> str:
    """Numbers after the header that are NaN, infinite, zero or large."""
    data = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    pattern = rng.choice((b"\xff\x7f", b"\x00\x7c", b"\x00\x00", b"\xff\xff", b"\xff\x7b", b"\x7f\x7f"))
    at = rng.randrange(start, max(start + 1, len(data)))
    count = rng.choice((1, 64, len(data)))
    data[at : at + 2 * count] = (pattern * count)[: len(data) - at]
    file.write_bytes(data)
    return f"{pattern.hex()} from byte {at}"


JSON: tuple[Damage, ...] = (json_values, json_values, json_values, json_values, json_text, json_twice)
YAML: tuple[Damage, ...] = (yaml_values, yaml_values, yaml_values, yaml_text, yaml_text, yaml_more)
SAFETENSORS: tuple[Damage, ...] = (header, header, header, header_length, contents)
