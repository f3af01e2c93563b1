"""What a user is told of an error, in one line: of ours its message, of other libraries and the system what it is."""

import errno
import re
from typing import Any

from ddim_ode.errors import DDIMError, one_line
from ddim_ode.support.checks import shown
from ddim_ode.support.resources import FAILURES, size

UNWRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF}  # files that are named aside: standard output
OVERFLOWED = "Storage size calculation overflowed"  # torch's, of more memory than can be numbered
LESS = "use a smaller --batch-size (or batch_size in a config), or a smaller -n"


def explain(error: Exception) -> str | None:
    """What to tell the user, or None when the error is a bug."""
    if hasattr(error, "format_message"):  # a usage error of click, which newer versions of typer bring along
        return _usage(error)
    if isinstance(error, OSError):
        return _refused(error)
    if isinstance(error, DDIMError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU, and torch may not have been imported
        return f"out of memory; {LESS}"
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in (*FAILURES, OVERFLOWED))
    ):
        return f"out of memory{_asked(str(error))}; {LESS}"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"torch.compile failed ({reason}); leave --fast out, or set compile: false in a config"
    if type(error).__name__ == "UnpicklingError":  # torch's advice is to run whatever code a file holds
        return "a file of weights is damaged, or holds more than weights, which could run code; give another"
    return None


def _refused(error: OSError) -> str:
    """What the system refuses, and of which file; of one without a name all that is known."""
    if error.filename is None:
        what = "the output cannot be written" if error.errno in UNWRITTEN else "the system refuses to go on"
        return f"{what}: {error.strerror}" if error.strerror else str(error) or type(error).__name__
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' -> '.join(names)}: {error.strerror}"


def _asked(words: str) -> str:
    """How much memory was asked for, in the words of torch or NumPy."""
    if found := re.search(r"allocate (\d+) bytes", words):
        return f": {size(int(found[1]))} were asked for"
    if found := re.search(r"allocate ([\d.]+ \w+) for an array", words):
        return f": {found[1]} were asked for"
    return ""


def _usage(error: Any) -> str:
    message = one_line(error.format_message().replace("Value error, ", "").rstrip("."), 400)
    if hasattr(error.__context__, "errors"):  # pydantic's, which does not name the value
        value = shown(error.__context__.errors()[0]["input"])
        message += f", found {value}" if value not in message else ""
    context = getattr(error, "ctx", None)
    return f"{message} (see {context.command_path} --help)" if context else message
