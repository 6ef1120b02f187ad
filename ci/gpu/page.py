"""docs/gpu-report.md, made of the lines of results: what was found, and "not run" for each thing that was not.

`python3 -m ci.gpu.page` makes the page anew from the results that are kept beside it; `python3 -m ci.gpu.page FILE ...`
keeps the results in these files in place of those, and makes the page of them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.gpu import lines, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Row = dict[str, Any]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gpu-report.md"
KEPT = ROOT / "docs" / "benchmarks" / "gpu.jsonl"
NOT_RUN = "not run"
BAD_CHECKS = ("failed", "unexpected_pass")
HEAD = """# GPU report

What `bash ci/gpu.sh` found on a machine with a GPU, from the lines that it wrote until its time was out. What it had
not found until then says so: "not run".
"""


class Found:
    """The lines by what they are about; of two about the same thing the later one counts."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.starts = [row for row in rows if row["stage"] == "start"]
        self.small = bool(self.starts and self.starts[-1].get("small"))
        asked = [backend for row in self.starts for backend in row.get("backends", ())]
        self.backends = list(dict.fromkeys(asked)) or plan.backends(list(plan.LIBRARIES), small=False)
        self.by_name: dict[tuple[str, str, str], Row] = {}
        for row in rows:
            name = (row["stage"], row.get("backend", ""), row.get("what", ""))
            if "not_run" not in row or name not in self.by_name:  # what was once found stays
                self.by_name[name] = row

    def __call__(self, stage: str, backend: str, what: str) -> Row:
        """The line; empty where there is none."""
        return self.by_name.get((stage, backend, what), {})

    def of(self, stage: str, backend: str = "") -> list[Row]:
        """The lines of a stage, in their order; of one backend on request."""
        return [row for (s, b, _), row in self.by_name.items() if s == stage and backend in ("", b)]

    def why(self, stage: str, backend: str) -> str:
        """That nothing was run, and the reason where one was given."""
        reasons = [self("here", backend.split(",")[0], "backend").get("missing"), self(stage, "", "all").get("not_run")]
        reasons += [row.get("not_run") for row in self.of(stage, backend)]
        reason = next((reason for reason in reasons if reason), "")
        return f"{NOT_RUN}: {reason}" if reason else NOT_RUN


def render(rows: Sequence[Row]) -> str:
    """The page."""
    found = Found(rows)
    text = [HEAD, *machine(found), "", *backends(found), "", *kit(found), ""]
    text += [*exact(found), "", *times(found), "", *tests(found), "", *variants(found), "", *profile(found), ""]
    text += ["## What failed or was ended", "", *(failures(rows) or ["Nothing of what was run." if rows else NOT_RUN])]
    return "\n".join([*text, ""])


def table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """A table."""
    rows = [heads, ["---"] * len(heads), *body]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]


def machine(found: Found) -> list[str]:
    """Date, chip, versions and commit."""
    text = ["## Where", ""]
    date = " and ".join(dict.fromkeys(row["date"] for row in found.starts)) or NOT_RUN
    text.append(f"- date: {date}{', a rehearsal on the CPU' if found.small else ''}")
    unknown = "unknown" if found.starts else NOT_RUN
    text += [f"- {what}: {found('machine', '', what).get('text', unknown)}" for what in ("chip", "commit")]
    versions = found("machine", "", "versions").get("found", {})
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [*text, f"- versions: {named or NOT_RUN}"]


def backends(found: Found) -> list[str]:
    """What each backend is on, and its first factorization."""
    text = ["## Backends", ""]
    body = []
    for backend in found.backends:
        here, first = found("here", backend, "backend"), found("probe", backend, "first factorizations")
        kernel = found("probe", backend, "first kernel")
        device = here.get("device") or found.why("here", backend)
        worst = max(first["differences"].values()) if "differences" in first else None
        taken = {True: "yes", False: f"no: {kernel.get('why')}"}.get(kernel.get("taken", ""), NOT_RUN)
        taken = taken if backend.startswith("jax") else "none are for it"
        off = cell(first) if worst is None else f"{worst:.1e}"
        body.append([backend, device, off, number(first, "seconds"), taken])
    heads = ("backend", "device", "first divergences, off NumPy's by at most", "in seconds", "kernels")
    return [*text, *table(heads, body)]


def kit(found: Found) -> list[str]:
    """The verdict of the conformance kit."""
    text = ["## Conformance kit", ""]
    body, bad = [], []
    for backend in found.backends:
        rows = [row for row in found.of("kit", backend) if "outcome" in row]
        plans = [row for row in found.rows if row["stage"] == "kit" and row.get("backend") == backend]
        planned = {check for row in plans for check in row.get("checks", ())}
        counts = [sum(row["outcome"] in names for row in rows) for names in (("passed",), BAD_CHECKS, ("skipped",))]
        left = sorted(planned - {row["what"] for row in rows})
        verdict = "FAILS" if counts[1] else "conforms" if rows and not left else found.why("kit", backend)
        body.append([backend, verdict, *map(str, counts), str(len(left)) if planned else NOT_RUN])
        bad += [f"- {backend}, {check}: {NOT_RUN}" for check in left]
    heads = ("backend", "verdict", "passed", "failed", "skipped", NOT_RUN)
    return [*text, *table(heads, body), *(["", *bad] if bad else [])]


def exact(found: Found) -> list[str]:
    """Errors against float64."""
    text = ["## Against float64", ""]
    text += ["One iteration of `mu` for the Kullback-Leibler divergence: the larger error of W and H in the norm.", ""]

    def error(row: Row) -> str:
        sign = "" if row.get("right") else "WRONG: "
        with_kernels = " (kernels)" if row.get("kernels") else ""
        return f"{sign}{worst(row):.1e}{with_kernels}"

    names = [case.what for case in plan.exact_cases(small=found.small)]
    return [*text, *matrix(found, "exact", found.backends, names, "norm", error)]


def worst(row: Row) -> float:
    """The largest error of a line; not a number where one of them is none."""
    errors = [float(error) for error in row["norm"]]
    return next((error for error in errors if error != error), max(errors))


def times(found: Found) -> list[str]:
    """Milliseconds, memory and waits of an iteration."""
    columns = [*found.backends, *(["jax:gpu, no kernels"] if "jax:gpu" in found.backends else [])]
    cases = {column: [case.what for case in plan.timed_cases(column, small=found.small)] for column in columns}
    names = list(dict.fromkeys(name for column in columns for name in cases[column]))
    shapes = plan.sizes(small=found.small)
    about = ", ".join(f"{name} is {m} x {n}" for name, (m, n) in shapes.items())
    drawn = f"{plan.entries(small=found.small)} entries drawn"
    text = [
        "## Time",
        "",
        f"Milliseconds of an iteration, float32: {about}, with {drawn}. `{plan.COPY}` reads V and writes it.",
    ]
    text += [
        f"A `{plan.PLAIN}` is what one writes by hand with the same library, for JAX compiled; all in full precision.",
        "",
    ]
    text += matrix(found, "time", columns, names, "ms", lambda row: f"{row['ms']:.4g}", cases)
    solvers = [name for name in names if name != plan.COPY]
    text += ["", "The most memory on the device, over the size of V, which is part of it.", ""]
    text += matrix(found, "time", columns, solvers, "peak", lambda row: f"{row['peak']:.3g}", cases)
    torch = [column for column in columns if column.startswith("torch")]
    if not torch:
        return text
    own = [name for name in solvers if not name.startswith((plan.PLAIN, plan.TORCHNMF))]
    text += ["", "How often an iteration waits for the device; only torch says it here, and the profile for all.", ""]
    return [*text, *matrix(found, "time", torch, own, "waits", lambda row: str(row["waits"]), cases)]


def matrix(
    found: Found,
    stage: str,
    columns: Sequence[str],
    names: Sequence[str],
    field: str,
    show: Callable[[Row], str],
    cases: dict[str, list[str]] | None = None,
) -> list[str]:
    """A table of cases and backends; empty where a case is not for a backend."""

    def one(column: str, name: str) -> str:
        if cases is not None and name not in cases[column]:
            return ""
        row = found(stage, column, name)
        return show(row) if row.get(field) is not None else cell(row, field)

    return table(("", *columns), [[name, *(one(column, name) for column in columns)] for name in names])


def cell(row: Row, field: str = "") -> str:
    """What a table says where there is no number."""
    if "error" in row:
        return "error"
    return "not counted" if field and row and "not_run" not in row else NOT_RUN


def number(row: Row, field: str) -> str:
    """A number of a line."""
    return f"{row[field]:.3g}" if field in row else cell(row)


def tests(found: Found) -> list[str]:
    """How far the tests came."""
    body = []
    for backend in found.backends:
        row = found("tests", backend, "so far")
        end = "to the end" if row.get("ended") else "until it was ended"
        end = f"stopped: {row['stopped']}" if row.get("stopped") else end
        counts = [str(row.get(outcome, NOT_RUN)) for outcome in ("passed", "failed", "skipped")]
        body.append([backend, *counts, end if row else found.why("tests", backend)])
    return ["## Tests", "", *table(("backend", "passed", "failed", "skipped", "how far"), body)]


def variants(found: Found) -> list[str]:
    """Other kernels."""
    text = ["## Other kernels", "", "Milliseconds of (V / WH) H^T, along the rows and along the columns.", ""]
    body = []
    for backend in found.backends:
        rows = [row for row in found.of("variants", backend) if "along" in row or "error" in row]
        for row in rows:
            numbers = [number(row, field) for field in ("along", "across", "norm")]
            body.append([backend, row["what"], *numbers])
        if not rows:
            body.append([backend, found.why("variants", backend), NOT_RUN, NOT_RUN, NOT_RUN])
    return [*text, *table(("backend", "kernel", "along, ms", "across, ms", "error"), body)]


def profile(found: Found) -> list[str]:
    """Calls of CUDA."""
    body = []
    for backend in found.backends:
        for case in plan.profiled_cases(small=found.small):
            name = plan.profiled_name(case)
            row = found("profile", backend, name)
            body.append([backend, name, *(number(row, field) for field in ("launches", "waits", "copies"))])
    text = ["## Calls of an iteration", "", *table(("backend", "solver", "launches", "waits", "copies"), body)]
    ncu = [f"- ncu: {line}" for row in found.of("profile") for line in row.get("lines", ())]
    return [*text, *(["", *ncu] if ncu else [])]


def failures(rows: Sequence[Row]) -> list[str]:
    """What failed, was wrong, was ended at its limit, or found no time, a line each."""
    found = []
    for row in Found(rows).by_name.values():
        name = " ".join(str(row[key]) for key in ("stage", "backend", "what") if row.get(key))
        if row["stage"] == "end":
            how = str(row.get("how", ""))
            if how not in ("", "exit 0"):
                found.append(f"- {row['what']}: {how} after {row['seconds']:.0f} of {row['limit']:.0f} s")
        elif "error" in row:
            found.append(f"- {name}: {row['error']}")
        elif row.get("right") is False:
            found.append(f"- {name}: wrong by {worst(row):.1e}")
        elif row.get("outcome") in BAD_CHECKS:
            found.append(f"- {name}: {row['detail']}")
        elif row.get("not_run") == "no time was left":
            found.append(f"- {name}: {row['not_run']}")
        elif row.get("status", 0) != 0:
            found.append(f"- {name}: exit {row['status']}")
    tests = [row for row in rows if row["stage"] == "tests" and row.get("what") == "failure"]
    return found + [f"- {row['test']} ({row['when']}): {row['why'][-300:]}" for row in tests]


def keep(paths: Sequence[Path]) -> None:
    """The results beside the page, and the page of them."""
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    KEPT.write_text(text, encoding="utf-8")
    PAGE.write_text(render(lines.read([KEPT])), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """The page, from the kept results or from those that are given."""
    if arguments:
        keep([Path(argument) for argument in arguments])
    else:
        PAGE.write_text(render(lines.read([KEPT])), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
