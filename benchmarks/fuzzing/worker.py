"""A process that is told names of inputs, a line each, and answers in JSON: python -m benchmarks.fuzzing.worker.

It answers each name with what the input is once it is made, and with a verdict once it was run. If it hangs where no
alarm is heard, it writes to stderr where it does, and is killed.
"""

import faulthandler
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path


def serve(root: Path, seconds: float) -> None:
    """Answer what stdin says, and write files below `root` only."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else writes to stdout
    from benchmarks.fuzzing import kinds
    from benchmarks.fuzzing.judge import judge
    from benchmarks.fuzzing.material import Material

    def answer(text: str) -> None:
        print(text, file=answers, flush=True)

    material, scratch = Material(root / "material"), root / "scratch"
    answer("ready")
    for line in sys.stdin:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        os.chdir(scratch)
        given = kinds.make(line.strip(), material, scratch)
        answer(json.dumps(given.what))
        faulthandler.dump_traceback_later(seconds + 2)
        found = judge(given, seconds)
        faulthandler.cancel_dump_traceback_later()
        answer(json.dumps(asdict(found)))


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]))
