"""How stable the grouping of V's columns is over restarts: consensus matrix, cophenetic correlation, dispersion.

These matrices are n x n or smaller than the factors, and are worked on by NumPy and SciPy on the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Matrix = np.ndarray[Any, Any]


def consensus_matrix(labels: Matrix) -> Matrix:
    """How often two columns are of one group: shape (n, n), for labels of shape (restarts, n).

    The mean connectivity matrix of Brunet et al. (2004), "Model selection".
    """
    import numpy as np

    restarts, n = labels.shape
    members = np.zeros((n, restarts, int(labels.max()) + 1))
    members[np.arange(n)[:, None], np.arange(restarts), labels.T] = 1.0
    members = members.reshape(n, -1)
    return members @ members.T / restarts


def dispersion(consensus: Matrix) -> float:
    """From 0, where every entry is 1/2, to 1, where all restarts agree (Kim & Park 2007, eq. 12)."""
    return float(4 * ((consensus - 0.5) ** 2).mean())


def cophenetic_correlation(consensus: Matrix) -> float:
    """Correlation of the distances 1 - C with those in their tree by average linkage (Brunet et al. 2004).

    It is 1 where all restarts agree, and where all distances are equal, for which a correlation is not defined.
    """
    hierarchy, distances = _tree(consensus)
    if distances.size < 2 or distances.min() == distances.max():
        return 1.0
    import scipy.cluster.hierarchy

    return float(scipy.cluster.hierarchy.cophenet(hierarchy, distances)[0])


def leaf_order(consensus: Matrix) -> Matrix:
    """The order of the columns in that tree, in which groups stand together."""
    import scipy.cluster.hierarchy

    if len(consensus) == 1:
        import numpy as np

        return np.zeros(1, dtype=int)
    return scipy.cluster.hierarchy.leaves_list(_tree(consensus)[0])


def _tree(consensus: Matrix) -> tuple[Matrix, Matrix]:
    """Average linkage, and the distances above the diagonal on which it stands."""
    import numpy as np
    import scipy.cluster.hierarchy

    distances = 1 - consensus[np.triu_indices(len(consensus), 1)]
    if not distances.size:
        return np.zeros((0, 4)), distances
    return scipy.cluster.hierarchy.linkage(distances, method="average"), distances
