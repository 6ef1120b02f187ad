"""Which leukemia samples end in a group of others: nmf_xp, and the algorithm of Brunet et al. (2004) as nimfa runs it.

    python benchmarks/leukemia_groups.py [--restarts 50] [--seeds 3] [--only nmf_xp | nimfa]

nimfa runs the paper's updates and its end (no sample has changed its group in 40 checks, or 2000 iterations). nmf_xp
runs `mu` with its own end, `tol=1e-4`. A sample is in the group of its largest loading; nimfa's users compare loadings
as they are, and nmf_xp after the columns of W were scaled to sum to 1. Each consensus of 50 restarts is cut as a tree
by average linkage. Some seeds show how far the answers depend on the starts.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def example() -> Any:
    """The example that reads the data and counts."""
    spec = importlib.util.spec_from_file_location("leukemia", ROOT / "examples" / "leukemia.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(V: Any, restarts: int, seed: int) -> dict[int, tuple[Any, float]]:
    """For ranks 2 and 3 the consensus and its cophenetic correlation."""
    from nmf_xp import select_rank

    options: dict[str, Any] = {"beta_loss": "kullback-leibler", "solver": "mu", "max_iter": 1000}
    found = select_rank(V, [2, 3], rule="cophenetic", n_restarts=restarts, random_state=seed, **options)
    return {rank: (found.consensus[rank], float(found.table["cophenetic"][i])) for i, rank in enumerate((2, 3))}


def theirs(V: Any, restarts: int, seed: int) -> dict[int, tuple[Any, float]]:
    """Likewise, by nimfa."""
    import nimfa

    from nmf_xp.selection.consensus import cophenetic_correlation

    if not hasattr(np, "mat"):
        setattr(np, "mat", np.asmatrix)  # noqa: B010  # nimfa 1.4 needs it, and NumPy 2 has no such name
    np.random.seed(seed)  # noqa: NPY002  # nimfa draws from it
    options = {"update": "divergence", "objective": "conn", "conn_change": 40, "test_conv": 10, "max_iter": 2000}
    found = {}
    for rank in (2, 3):
        agreed = np.zeros((V.shape[1], V.shape[1]))
        for _ in range(restarts):
            agreed += np.asarray(nimfa.Nmf(V, rank=rank, seed="random", **options)().fit.connectivity())
        found[rank] = agreed / restarts, cophenetic_correlation(agreed / restarts)
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=["nmf_xp", "nimfa"])
    arguments = parser.parse_args()
    module = example()
    V, names = module.data()
    print("| side | seed | rank | cophenetic correlation | misplaced | which |\n|---|---|---|---|---|---|")
    for side, run in {"nmf_xp": ours, "nimfa": theirs}.items():
        for seed in range(arguments.seeds) if arguments.only in (None, side) else ():
            for rank, (consensus, correlation) in run(V, arguments.restarts, seed).items():
                wrong = module.misplaced(module.groups(consensus, rank), names, rank)
                which = ", ".join(wrong) or "none"
                print(f"| {side} | {seed} | {rank} | {correlation:.4f} | {len(wrong)} | {which} |", flush=True)


if __name__ == "__main__":
    main()
