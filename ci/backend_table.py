"""Write the README's table of backends from what the conformance kit finds; `--check` only says whether it is stale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nmf_xp.testing import Backend, Outcome, check_backend

if TYPE_CHECKING:
    from nmf_xp.testing import Report

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- backends -->", "<!-- /backends -->"
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
            rows.append(f"| {meaning} | [see the report](docs/gpu-report.md) | |")
            continue
        reason = backend.missing()
        if reason is not None:
            sys.exit(f"the table needs every backend that runs on a CPU: {backend.value}: {reason}")
        report = check_backend(backend.target())
        rows.append(f"| {meaning} | {verdict(report, 'float32')} | {verdict(report, 'float64')} |")
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
    """Rewrite the table, or with --check compare it."""
    if arguments not in ([], ["--check"]):
        print(f"usage: backend_table.py [--check], got {' '.join(arguments)}", file=sys.stderr)
        return 2
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    new = f"\n{table()}\n"
    if arguments:
        if old != new:
            print("the README's table of backends is stale: python ci/backend_table.py", new, file=sys.stderr)
        return int(old != new)
    README.write_text(f"{before}{BEGIN}{new}{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
