"""`ddim-ode`, and `python -m ddim_ode`. All that takes time to import is imported where an interrupt is one line."""

import sys

from ddim_ode.support.interrupts import watch


def main() -> int:
    """Run the command line of this process; returns the exit code."""
    watch()
    from ddim_ode.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
