"""The command line of ci/gpu.sh."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from ci.gpu import plan
from ci.gpu.driver import Options, drive


def options(arguments: list[str]) -> Options:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="ci/gpu.sh", description="All that a machine with a GPU is asked, in stages.")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "gpu-out"), help="folder of results")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for all of it")
    parser.add_argument("--spent", type=float, default=0.0, help=argparse.SUPPRESS)  # of the budget, by ci/gpu.sh
    parser.add_argument("--stages", type=several(list(plan.STAGES)), default=list(plan.STAGES))
    parser.add_argument("--backends", type=several(list(plan.LIBRARIES)), default=list(plan.LIBRARIES))
    parser.add_argument("--small", action="store_true", help="a rehearsal on the CPU: small sizes, no report in docs/")
    parser.add_argument("--workers", type=int, default=max(2, min(10, (os.cpu_count() or 4) - 4)), help="for pytest")
    given = parser.parse_args(arguments)
    return Options(given.out, given.budget, given.spent, given.stages, given.backends, given.small, given.workers)


class several:  # noqa: N801 - argparse shows its name
    """Some of the known names, with commas between them."""

    def __init__(self, known: list[str]) -> None:
        self.known = known

    def __call__(self, text: str) -> list[str]:
        """The names in a text."""
        names = [name.strip() for name in text.split(",") if name.strip()]
        unknown = [name for name in names if name not in self.known]
        if unknown or not names:
            msg = f"{', '.join(unknown) or 'nothing'} is none of {', '.join(self.known)}"
            raise argparse.ArgumentTypeError(msg)
        return names


def main() -> int:
    """Run the stages; a signal ends what is running."""
    given = options(sys.argv[1:])
    given.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return drive(given)


if __name__ == "__main__":
    sys.exit(main())
