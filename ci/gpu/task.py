"""One process of a stage: it takes its cases one by one, writes each at once, and begins none when its time is out."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.gpu import lines, plan

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES = {
    "machine": "probe", "here": "probe", "probe": "probe", "kit": "kit", "exact": "exact", "time": "timing",
    "tests": "suite", "variants": "variants", "profile": "profiling", "launch": "profiling",
}  # fmt: skip


class Run:
    """What a stage needs of its process: the task, the sizes, the time that is left, and where its lines go."""

    def __init__(self, task: plan.Task, out: Path, *, small: bool, workers: int, until: float) -> None:
        self.task, self.out, self.small, self.workers, self.until = task, out, small, workers, until

    @property
    def left(self) -> float:
        """Seconds in which something may still begin."""
        return self.until - time.time()

    def emit(self, **found: Any) -> None:
        """One line of this task."""
        backend = {"backend": self.task.column} if self.task.backend else {}
        lines.write(self.out, self.task.stage, **backend, **found)

    def attempt(self, what: str, function: Callable[[], dict[str, Any]]) -> bool:
        """The line that a function finds, or the error that it ends with; whether there was time for it."""
        if self.left <= 0:
            self.emit(what=what, not_run="no time was left")
            return False
        print(f"-- {what}", flush=True)
        try:
            found = function()
        except Exception as error:
            self.emit(what=what, error=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
        else:
            self.emit(what=what, **found)
        return True


def main() -> None:
    """Run the task that the driver gives as JSON."""
    task, settings = json.loads(sys.argv[1])
    until = float(os.environ.get("NMF_XP_GPU_UNTIL", "inf"))
    given = plan.Task(*task)
    run = Run(given, Path(settings["out"]), small=settings["small"], workers=settings["workers"], until=until)
    if given.backend.startswith("jax") and importlib.util.find_spec("jax") is not None:
        importlib.import_module("jax").config.update("jax_enable_x64", True)
    importlib.import_module(f"ci.gpu.{MODULES[given.stage]}").main(run)


if __name__ == "__main__":
    main()
