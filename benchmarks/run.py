"""nmf_xp against scikit-learn, torchnmf, nmf-torch, tensorly and a plain NumPy loop.

    python benchmarks/run.py                  everything; an hour or two
    python benchmarks/run.py --quick          the small real data sets, one seed; minutes
    python benchmarks/run.py --view time-to --data digits faces --loss kullback-leibler --seeds 5
    python benchmarks/run.py --render A.json B.json --output docs/benchmarks

Tables are printed and written as Markdown, with a file of results (JSON) and a plot (PNG). With --render nothing is
run: the given files of results are merged, where the last one counts, and shown. docs/benchmarks.md says what is
measured.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # this folder is not to be searched: its modules have names that packages have too
    sys.path[0] = str(ROOT)

from benchmarks import figure, fixed_cost, memory, ours, per_iteration, results, tables, time_to_divergence  # noqa: E402
from benchmarks.competitors import OTHERS  # noqa: E402
from benchmarks.datasets import DATASETS, REAL  # noqa: E402
from benchmarks.protocol import LOSSES  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

VIEWS = ("per-iteration", "time-to", "fixed", "memory")
QUICK = ("digits", "faces", "reuters", "leukemia")
INPUTS = ("dense", "csr")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--view", nargs="+", choices=VIEWS, default=VIEWS, help="what to measure (default: all)")
    p.add_argument("--data", nargs="+", choices=DATASETS, metavar="NAME", help=f"data sets: {'; '.join(DATASETS)}")
    p.add_argument("--loss", nargs="+", choices=LOSSES, default=LOSSES)
    p.add_argument("--input", nargs="+", choices=INPUTS, default=INPUTS, help="time-to: V dense, as CSR, or both")
    p.add_argument("--solvers", nargs="+", choices=ours.solvers(), default=ours.solvers(), help="of nmf_xp")
    p.add_argument("--backends", nargs="+", choices=ours.BACKENDS, default=ours.BACKENDS, help="per-iteration only")
    p.add_argument("--targets", type=int, nargs="+", help="time-to: iterations of scikit-learn (default: 50 200 1000)")
    p.add_argument("--seeds", type=int, help="time-to: starts of each data set (default: 5; 1 with --quick)")
    p.add_argument("--other-seeds", type=int, default=1, help="time-to: of these, starts for the other libraries too")
    p.add_argument("--rounds", type=int, default=3, help="interleaved repetitions, of which the median counts")
    p.add_argument("--budget", type=float, help="seconds after which a side is not repeated (default: 20; 3 if quick)")
    p.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}; one seed, no target 1000")
    p.add_argument("--output", type=Path, default=ROOT / "build" / "benchmarks", help="folder (default: %(default)s)")
    p.add_argument("--render", type=Path, nargs="+", metavar="JSON", help="run nothing; merge and show these files")
    return p


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All that was asked for, view by view."""
    names = options.data or (QUICK if options.quick else list(DATASETS))
    backends = [x for x in options.backends if ours.side("auto", x).installed]
    limits = {"rounds": options.rounds, "budget": options.budget or (3.0 if options.quick else 20.0)}
    targets = tuple(options.targets or ((50, 200) if options.quick else time_to_divergence.TARGETS))
    if "fixed" in options.view:
        yield from fixed_cost.measure(solvers=options.solvers)
    if "memory" in options.view:
        yield from memory.measure(solvers=options.solvers)
    for name in names if "per-iteration" in options.view else ():
        for loss in options.loss:
            if loss in DATASETS[name].losses:
                few = {"solvers": options.solvers, "backends": backends, "seconds": 0.3 if options.quick else 1.0}
                yield from per_iteration.measure(name, DATASETS[name], loss, **few, **limits)
    # The large ones take hours in this view, and are in it only by name.
    for name in (options.data or [x for x in names if x in REAL]) if "time-to" in options.view else ():
        kinds = [x for x in options.input if x == "csr" or not DATASETS[name].sparse]
        cases = [(loss, kind) for loss in options.loss if loss in DATASETS[name].losses for kind in kinds]
        for loss, kind in cases:
            for seed in range(options.seeds or (1 if options.quick else 5)):
                sparse = kind == "csr"
                others = OTHERS if seed < options.other_seeds else []
                few = {"sparse": sparse, "solvers": options.solvers, "targets": targets, "others": others}
                yield from time_to_divergence.measure(name, DATASETS[name], loss, seed, **few, **limits)


def line(row: dict[str, Any]) -> str:
    """A row as a line of progress."""
    named = [str(row[x]) for x in ("view", "loss", "data", "input", "seed", "target", "side") if x in row]
    if "error" in row:
        return ", ".join([*named, row["error"]])
    units = {"seconds": "s", "times_faster": "times faster", "ratio": "times the base", "resident": "of V"}
    return ", ".join([*named, *(f"{row[x]:.3g} {unit}" for x, unit in units.items() if x in row)])


def show(found: dict[str, Any], folder: Path) -> None:
    """Print and write the tables; draw the plot."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = tables.tables(found)
    print("\n\n".join(parts.values()))
    drawn = figure.draw(found, folder / "time-to.png")
    parts["figure"] = "![Times faster than scikit-learn](time-to.png)" if drawn else tables.NOTHING
    for name, text in parts.items():
        (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    if drawn:
        print(f"The plot is {folder / 'time-to.png'}")


def measured(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """What there is to be known. Written every minute, so that a run that ends early leaves something."""
    done: list[dict[str, Any]] = []
    load = results.load()
    if load is not None and load > 0.5:
        print(f"The load is {load}: other processes slow libraries down, and not all of them equally.")
    written = time.monotonic()
    try:
        for row in rows(options):
            print(line(row), flush=True)
            done.append(row)
            if time.monotonic() > written + 60:
                results.write(results.results(results.describe(load), done), path)
                written = time.monotonic()
    except KeyboardInterrupt:
        print("Interrupted: what was measured so far is written.")
    return results.results(results.describe(load), done)


def main(arguments: list[str] | None = None) -> None:
    """Run, write and show."""
    options = parser().parse_args(arguments)
    path = options.output / "results.json"
    if options.render:
        found = results.merged([results.read(x) for x in options.render])
    else:
        warnings.simplefilter("ignore")  # the other libraries' own; ours would be seen in the tests
        found = measured(options, path)
    results.write(found, path)
    show(found, options.output)
    print(f"The results are {path}")


if __name__ == "__main__":
    main()
