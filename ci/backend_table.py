"""Write the tables of backends and of arrays from what the conformance kit finds.

Both are in docs/backends.md. `--check` only says whether they are stale, and `--arrays`
leaves the first one alone, which takes minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nmf_xp.testing import Backend, Outcome, check_backend
from nmf_xp.testing.arrivals import ARRIVALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.testing import Report

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "backends.md"
ON_A_GPU = (Backend.CUPY, Backend.TORCH_CUDA, Backend.JAX_GPU)
MEANING = {
    Backend.NUMPY: "NumPy",
    Backend.NUMPY_READONLY: "NumPy, with inputs that cannot be written to",
    Backend.STRICT: "array-api-strict: the standard and nothing more",
    Backend.STRICTEST: "array-api-strict: the least that the standard allows",
    Backend.STRICT_DEVICE: "array-api-strict on a second device",
    Backend.JAX: "JAX",
    Backend.JAX_JIT: "JAX, everything inside `jax.jit`",
    Backend.TORCH: "torch",
    Backend.CUPY: "CuPy on a GPU",
    Backend.TORCH_CUDA: "torch on a GPU",
    Backend.JAX_GPU: "JAX on a GPU",
}


def table() -> str:
    """The table, a row a backend."""
    import jax

    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    rows = ["| backend | float32 | float64 |", "|---|---|---|"]
    for backend, meaning in MEANING.items():
        if backend in ON_A_GPU:
            rows.append(f"| {meaning} | [see the report](gpu-report.md) | |")
            continue
        reason = backend.missing()
        if reason is not None:
            sys.exit(f"the table needs every backend that runs on a CPU: {backend.value}: {reason}")
        report = check_backend(backend.target())
        rows.append(f"| {meaning} | {verdict(report, 'float32')} | {verdict(report, 'float64')} |")
    return "\n".join(rows)


def arrays(old: str) -> str:
    """The table of arrays, a row an array; of a library that is not installed the row that there was."""
    import jax

    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    known = {line.rsplit(" | ", 1)[0]: line for line in old.splitlines() if line.startswith("| ")}
    rows = ["| library | what you have | what happens |", "|---|---|---|"]
    for arrival in ARRIVALS:
        start = f"| {arrival.library} | {arrival.what}"
        if not arrival.missing():
            rows.append(f"{start} | {arrival.outcome()} |")
        elif start in known:
            rows.append(known[start])
    return "\n".join(rows)


def verdict(report: Report, dtype: str) -> str:
    """How many checks hold, fail, fail as expected, or say nothing on this backend."""
    words = {
        Outcome.PASSED: "hold",
        Outcome.FAILED: "FAIL",
        Outcome.EXPECTED_FAILURE: "fail, as known",
        Outcome.UNEXPECTED_PASS: "hold unexpectedly",
        Outcome.SKIPPED: "do not apply",
    }
    entries = [entry for entry in report.entries if entry.dtype == dtype]
    counts = {outcome: sum(entry.outcome is outcome for entry in entries) for outcome in words}
    return ", ".join(f"{count} {words[outcome]}" for outcome, count in counts.items() if count)


def main(arguments: list[str]) -> int:
    """Rewrite the tables, or with --check compare them."""
    if set(arguments) - {"--check", "--arrays"}:
        print(f"usage: backend_table.py [--check] [--arrays], got {' '.join(arguments)}", file=sys.stderr)
        return 2
    made: list[tuple[Path, str, Callable[[str], str]]] = [(PAGE, "arrays", arrays)]
    if "--arrays" not in arguments:
        made.append((PAGE, "backends", lambda _: table()))
    stale = 0
    for path, name, write in made:
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = path.read_text(encoding="utf-8").partition(begin)
        old, _, after = rest.partition(end)
        new = f"\n{write(old)}\n"
        if "--check" not in arguments:
            path.write_text(f"{before}{begin}{new}{end}{after}", encoding="utf-8")
        elif old != new:
            stale = 1
            print(f"the table of {name} in {path.name} is stale: python ci/backend_table.py", new, file=sys.stderr)
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
