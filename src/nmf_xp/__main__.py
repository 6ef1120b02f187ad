"""`python -m nmf_xp`: the command line."""

import sys

from nmf_xp.cli import main

sys.exit(main())
