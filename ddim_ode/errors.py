"""The one class that every error of this library descends from."""


class DDIMError(ValueError):
    """Something that cannot be done as asked. The message is one line: the value, the rule and the remedy."""
