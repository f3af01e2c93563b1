"""The class that every error of this library descends from, and the words for a wrong name."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches


class DDIMError(ValueError):
    """Something that cannot be done as asked. The message is one line: the value, the rule and the remedy."""

    def __init__(self, *words: object):
        # The value may be an array, whose words are many lines.
        super().__init__(*(" ".join(word.split()) if isinstance(word, str) else word for word in words))


def unknown(kind: str, name: str, known: Mapping[str, object] | Sequence[str]) -> str:
    """The message for a name that is not in a table, with the closest one that is."""
    close = get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {kind} {name!r}; {hint}choose one of {', '.join(known)}"
