"""The results as Markdown tables, which a terminal shows as well."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from benchmarks.per_iteration import COMPARED, PRODUCTS, READ
from benchmarks.protocol import NOT_INSTALLED
from benchmarks.time_to_divergence import OUT_OF_BOUNDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Row = dict[str, Any]
NOTHING = "(not measured)"


def tables(found: dict[str, Any]) -> dict[str, str]:
    """Each table by the name of its file."""
    rows: dict[str, list[Row]] = {}
    for row in found["rows"]:
        rows.setdefault(row["view"], []).append(row)
    return {
        "machine": machine(found["runs"]),
        "per-iteration": per_iteration(rows.get("per-iteration", [])),
        "time-to": time_to(rows.get("time-to", [])),
        "time-to-cases": cases(rows.get("time-to", [])),
        "fixed": fixed(rows.get("fixed", [])),
        "memory": memory(rows.get("memory", [])),
    }


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table with columns of equal width; the first is text, the others are numbers."""
    lines = [list(head), *(list(line) for line in body)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    written = ["| " + " | ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)) + " |" for line in lines]
    written.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(written)


def sections(parts: dict[str, str]) -> str:
    """Tables under their titles. The titles are no headings, so that a page can include them at any depth."""
    return "\n\n".join(f"**{title}**\n\n{text}" for title, text in parts.items()) if parts else NOTHING


def machine(runs: list[Row]) -> str:
    """What each run ran on, and with."""
    when: dict[str, list[str]] = {}
    for run in runs:
        on = run["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        text = (
            f"- {on['cpu']}, {on['cores']} cores, {on['memory_gib']} GiB, {on['system']}; {'; '.join(on['blas'])}; "
            f"{versions}; commit {run['commit'] or 'unknown'}. Ended (load before the run): "
        )
        when.setdefault(text, []).append(f"{run['date'][:16]} ({run['load_before']})")
    return "\n".join(text + ", ".join(dates) for text, dates in when.items()) or NOTHING


def per_iteration(rows: list[Row]) -> str:
    """Milliseconds, and how they compare."""
    parts = {}
    for loss in _distinct(rows, "loss"):
        of_loss = [row for row in rows if row["loss"] == loss]
        compared = [x for x in COMPARED if any(x in row.get("relative", {}) for row in of_loss)]
        head = ["data", "side", "ms", *(f"over {x}" if x in (PRODUCTS, READ) else f"x {x}" for x in compared)]
        body = []
        for data in _distinct(of_loss, "data"):
            of_data = [row for row in of_loss if row["data"] == data]
            first = _described(of_data[0])
            for row in sorted(of_data, key=lambda row: row.get("seconds", math.inf)):
                relative = row.get("relative", {})
                ratios = [(_number(relative[x] if x in (PRODUCTS, READ) else 1 / relative[x]) if x in relative else "")
                          for x in compared]  # fmt: skip
                ms = row["error"] if "error" in row else _number(row["seconds"] * 1e3)
                body.append([first, _side([row]), ms, *ratios])
                first = ""
        parts[f"{_title(loss)}: time of an iteration; x: times faster than; over: times as long as"] = table(head, body)
    return sections(parts)


def time_to(rows: list[Row]) -> str:
    """Geometric means over data sets and seeds, and the worst case."""
    parts = {}
    for loss in _distinct(rows, "loss"):
        for kind in _distinct(rows, "input"):
            chosen = [row for row in rows if row["loss"] == loss and row["input"] == kind]
            targets = _targets(chosen)
            body = []
            for side in _distinct(chosen, "side"):
                of_side = [row for row in chosen if row["side"] == side]
                means = [geometric([row for row in of_side if row["target"] == t]) for t in targets]
                share = f"{sum('error' in row for row in of_side)} of {len(of_side)}"
                body.append([_side(of_side), *means, geometric(of_side), worst(of_side), share])
            if chosen:
                head = ["side", *(f"to iteration {t}" for t in targets), "all", "worst case", "failed"]
                title = f"{_title(loss)}, {kind} input: times faster than {chosen[0]['reference']}, geometric means"
                parts[title] = table(head, body)
    return sections(parts)


def cases(rows: list[Row]) -> str:
    """Each data set: geometric mean over its seeds, least and greatest."""
    parts = {}
    for loss in _distinct(rows, "loss"):
        for kind in _distinct(rows, "input"):
            chosen = [row for row in rows if row["loss"] == loss and row["input"] == kind]
            targets = _targets(chosen)
            body = []
            for data in _distinct(chosen, "data"):
                first = data
                for side in _distinct(chosen, "side"):
                    case = [row for row in chosen if row["data"] == data and row["side"] == side]
                    if case:
                        cells = [_case([row for row in case if row["target"] == t]) for t in targets]
                        body.append([first, _side(case), *cells])
                        first = ""
            if chosen:
                title = f"{_title(loss)}, {kind} input: times faster than {chosen[0]['reference']}, each data set"
                parts[title] = table(["data", "side", *(f"to iteration {t}" for t in targets)], body)
    return sections(parts)


def fixed(rows: list[Row]) -> str:
    """Small calls."""
    parts = {}
    for data in _distinct(rows, "data"):
        for loss in _distinct(rows, "loss"):
            for backend, base in (("numpy", "plain loop"), ("jax", "bare program")):
                chosen = [row for row in rows if [row[x] for x in ("data", "loss", "backend")] == [data, loss, backend]]
                stacks = any(row["side"].endswith(", stack") for row in chosen)
                body = [
                    [row["side"], row["error"], "", ""]
                    if "error" in row
                    else [row["side"], *(_number(x) for x in (row["seconds"] * 1e3, row["ratio"], row["over"] * 1e3))]
                    for row in chosen
                ]
                if chosen:
                    second = "JAX" if stacks else "JAX, second call"
                    title = f"{data}, {_title(loss)}, {'NumPy' if backend == 'numpy' else second}"
                    head = ["side", "ms a member", "over the stack", "ms more"]
                    parts[title] = table(head if stacks else ["side", "ms a call", f"over {base}", "ms more"], body)
    return sections(parts)


def memory(rows: list[Row]) -> str:
    """Peak beyond V and the factors."""
    body = [
        [row["data"], row["side"], row["error"], ""]
        if "error" in row
        else [row["data"], row["side"], f"{row['resident']:.1%}", f"{row['traced']:.1%}"]
        for row in rows
    ]
    return table(["data", "side", "resident memory, share of V", "allocated (tracemalloc)"], body) if rows else NOTHING


def geometric(rows: list[Row]) -> str:
    """Geometric mean of the cases that did not fail; nothing where there is no case."""
    if not rows:
        return ""
    values = [row["times_faster"] for row in rows if "error" not in row]
    if values:
        return _number(math.exp(sum(map(math.log, values)) / len(values)))
    return NOT_INSTALLED if any(row["error"] == NOT_INSTALLED for row in rows) else "failed"


def worst(rows: list[Row]) -> str:
    """A failure if there is one, else the least."""
    failures = [row for row in rows if "error" in row]
    if failures:
        row = failures[0]
        if row["error"] == NOT_INSTALLED:
            return ""
        return f"failed: {row['data']}, seed {row['seed']}, to {row['target']}"
    row = min(rows, key=lambda row: row["times_faster"])
    return f"{_number(row['times_faster'])}: {row['data']}, seed {row['seed']}, to {row['target']}"


def _case(rows: list[Row]) -> str:
    values = [row["times_faster"] for row in rows if "error" not in row]
    failures = [row["error"] for row in rows if "error" in row]
    if not values:  # the usual reason is said beside the tables
        return ", ".join(dict.fromkeys("failed" if x == OUT_OF_BOUNDS else x for x in failures))
    text = geometric(rows) + (f" ({_number(min(values))} to {_number(max(values))})" if len(values) > 1 else "")
    return text + (f", {len(failures)} of {len(rows)} failed" if failures else "")


def _distinct(rows: list[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _targets(rows: list[Row]) -> list[int]:
    return sorted({row["target"] for row in rows})


def _side(rows: list[Row]) -> str:
    """Its name, and what "auto" stood for."""
    stood_for = _distinct([row for row in rows if "solver" in row], "solver")
    name: str = rows[0]["side"]
    return f"{name} (= {', '.join(stood_for)})" if name.endswith(" auto") and stood_for else name


def _described(row: Row) -> str:
    m, n = row["shape"]
    return row["data"] if "rank" in row["data"] else f"{row['data']}, {m} x {n}, rank {row['rank']}"


def _title(loss: str) -> str:
    return "Kullback-Leibler" if loss == "kullback-leibler" else "Frobenius"


def _number(x: float) -> str:
    return f"{x:.3g}" if abs(x) < 999 else f"{x:.0f}"
