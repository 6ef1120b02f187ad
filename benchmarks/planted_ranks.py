"""How often `select_rank` finds a planted rank: seeds for each noise and each rank from 3 to 12.

    python benchmarks/planted_ranks.py [--rule RULE] [--seeds N] [--processes N] [--write PATH]

V is 100 x 80, the product of two factors with gamma(1/2) entries, scaled to a mean of 10, with Poisson noise, with
gamma noise of shape 10, or with Gaussian noise of standard deviation 2 clipped at zero. The loss is that of the
noise. Ranks 2 to 14 are compared. The settings of the rule were chosen on seeds 100 to 107; the seeds here begin at 0.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NOISES = {"poisson": "kullback-leibler", "gamma": "itakura-saito", "gaussian": "frobenius"}
PLANTED, CANDIDATES = range(3, 13), range(2, 15)


class Case(NamedTuple):
    """A planted problem and the rule that is to solve it."""

    noise: str
    rank: int
    seed: int
    rule: str


class Answer(NamedTuple):
    """What was recommended."""

    case: Case
    rank: int
    weak: bool


def planted(noise: str, rank: int, seed: int, *, m: int = 100, n: int = 80) -> Any:
    """V with a planted rank."""
    rng = np.random.default_rng(seed)
    Y = rng.gamma(0.5, size=(m, rank)) @ rng.gamma(0.5, size=(rank, n))
    Y *= 10 / Y.mean()
    if noise == "poisson":
        return rng.poisson(Y).astype(float)
    if noise == "gamma":
        return np.maximum(rng.gamma(10.0, Y / 10), 1e-6)
    return np.maximum(rng.normal(Y, 2.0), 0.0)


def solve(case: Case) -> Answer:
    """The recommendation for one problem."""
    from nmf_xp import select_rank

    V = planted(case.noise, case.rank, case.seed)
    # The restarts of the whole V play no part in a rule that predicts.
    options: dict[str, Any] = {} if case.rule in ("cophenetic", "stability") else {"n_restarts": 2, "solver": "mu"}
    found = select_rank(V, CANDIDATES, rule=case.rule, beta_loss=NOISES[case.noise], random_state=case.seed, **options)
    return Answer(case, found.rank, found.weak)


def table(answers: list[Answer], seeds: int, rule: str) -> str:
    """Hits by noise and rank, then all misses."""
    hits = Counter((a.case.noise, a.case.rank) for a in answers if a.rank == a.case.rank)
    total = Counter(a.case.noise for a in answers if a.rank == a.case.rank)
    lines = [
        f"Rule {rule!r}: the planted rank was recommended in {sum(total.values())} of {len(answers)} problems"
        f" ({sum(total.values()) / len(answers):.1%}); {seeds} seeds for each noise and rank.\n",
        "| noise | " + " | ".join(f"rank {rank}" for rank in PLANTED) + " | all |",
        "|---|" + "---|" * (len(PLANTED) + 1),
    ]
    for noise in NOISES:
        share = total[noise] / (seeds * len(PLANTED))
        lines.append(f"| {noise} | " + " | ".join(str(hits[noise, r]) for r in PLANTED) + f" | {share:.1%} |")
    for right in (True, False):
        group = [a for a in answers if (a.rank == a.case.rank) == right]
        name = "right" if right else "wrong"
        lines.append(f"\nOf {len(group)} {name} answers {sum(a.weak for a in group)} were said to have weak evidence.")
    misses = [a for a in answers if a.rank != a.case.rank]
    lines.append("\n| miss: noise | planted | seed | recommended | said to be weak |\n|---|---|---|---|---|")
    lines += [
        f"| {a.case.noise} | {a.case.rank} | {a.case.seed} | {a.rank} | {'yes' if a.weak else 'no'} |" for a in misses
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Solve all problems and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rule", default="auto")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # the processes fill the cores
        os.environ[name] = "1"
    cases = [Case(*c, arguments.rule) for c in itertools.product(NOISES, PLANTED, range(arguments.seeds))]
    cases.sort(key=lambda case: case.seed)
    begin, answers, each = time.perf_counter(), [], len(NOISES) * len(PLANTED)
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for answer in pool.imap(solve, cases):
            answers.append(answer)
            if len(answers) % each:
                continue
            right = sum(a.rank == a.case.rank for a in answers)
            print(f"{right} of {len(answers)}, {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
            text = table(sorted(answers), len(answers) // each, arguments.rule)
            if arguments.write:
                arguments.write.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
