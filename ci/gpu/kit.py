"""The conformance kit on a backend, a line a check."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ci.gpu.task import Run

REHEARSED = 12  # of so many checks a rehearsal runs one


def main(run: Run) -> None:
    """The checks of this part."""
    from nmf_xp.testing import Backend, conformance

    target = Backend(run.task.backend).target()
    step = run.task.parts * (REHEARSED if run.small else 1)
    chosen = conformance.cases()[run.task.part :: step]
    run.emit(what="planned", checks=[f"{check.__name__} {dtype}" for check, dtype in chosen])
    with target.active():
        for case in chosen:
            name = f"{case[0].__name__} {case[1]}"
            if run.left <= 0:
                run.emit(what="stopped", not_run="no time was left")
                return
            print(f"-- {name}", flush=True)
            begin = time.perf_counter()
            entry = conformance.outcome(case, target)
            seconds = time.perf_counter() - begin
            run.emit(what=name, outcome=entry.outcome.name.lower(), detail=entry.detail, seconds=seconds)
