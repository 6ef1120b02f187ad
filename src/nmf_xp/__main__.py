"""`python -m nmf_xp`: the command line."""

import sys

from nmf_xp.cli import main

if __name__ == "__main__":
    sys.exit(main())
