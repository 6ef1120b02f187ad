"""All runs of the corpus, or as many as there is time for, and a summary of what they violate."""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import random
import sys
import time

from tests.corpus.runs import Violation, in_time, runs

SHOWN = 5
"""Violations of each invariant that are printed; `--log` has all of them."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the corpus and count violations by invariant.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--seed", type=int, default=0, help="of the order in which the runs are made")
    parser.add_argument("--only", default="", help="words that must all be in a run's name, for example 'wine cd'")
    parser.add_argument("--log", help="a file for all violations, a line each")
    options = parser.parse_args()
    chosen = [run for run in runs() if all(word in str(run) for word in options.only.split())]
    random.Random(options.seed).shuffle(chosen)
    until = time.time() + 60 * options.minutes
    made, found = 0, list[Violation]()
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for part in pool.imap_unordered(in_time, [(run, until) for run in chosen], chunksize=4):
            made += part is not None
            found += part or []
    report(found, options.log)
    print(f"{made} of {len(chosen)} runs on {len({run.matrix for run in chosen})} matrices, {len(found)} violations")
    return 1 if found else 0


def report(found: list[Violation], log: str | None) -> None:
    """Violations by invariant and solver, the first ones in full."""
    if log:
        with open(log, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.writelines(f"{v.invariant} | {v.run} | {v.sentence}\n" for v in found)
    kinds = collections.defaultdict(list)
    for violation in found:
        kinds[violation.invariant].append(violation)
    for invariant, members in sorted(kinds.items(), key=lambda kind: -len(kind[1])):
        solvers = collections.Counter(v.run.solver for v in members)
        print(f"{invariant}: {len(members)} ({', '.join(f'{name} {n}' for name, n in solvers.most_common())})")
        for violation in members[:SHOWN]:
            print(f"    {violation.run}: {violation.sentence}")


if __name__ == "__main__":
    sys.exit(main())
