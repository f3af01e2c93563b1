"""`python -m ddim_ode` is `ddim-ode`."""

import sys

from ddim_ode.cli import main

if __name__ == "__main__":
    sys.exit(main())
