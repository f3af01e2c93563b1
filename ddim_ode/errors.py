"""The class that every error of this library descends from, and the words for a wrong name."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

LONGEST = 1000  # characters of a message, more than any of ours has


class DDIMError(ValueError):
    """Something that cannot be done as asked. The message is one line: the value, the rule and the remedy.

    passing: whether the same may be done another time, or elsewhere, as for want of memory or of a disk.
    """

    passing = False

    def __init__(self, *words: object):
        super().__init__(*(one_line(word) if isinstance(word, str) else word for word in words))


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text as a terminal can show it: one line, control characters as escapes, of a long one both ends."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.split()))
    return text if len(text) <= longest else f"{text[: longest * 2 // 3]} ... {text[-(longest // 4) :]}"


def unknown(kind: str, name: object, known: Mapping[str, object] | Sequence[str]) -> str:
    """The message for a name that is not in a table, with the closest one that is."""
    close = get_close_matches(name[:100], list(known), n=1) if isinstance(name, str) else []
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {one_line(repr(name), 80)}; {hint}choose one of {', '.join(known)}"
