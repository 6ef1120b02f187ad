"""`select_rank` of AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import nmf_xp
from nmf_xp.scverse import adding, reading

if TYPE_CHECKING:
    from collections.abc import Iterable


def select_rank(
    adata: Any,
    ranks: Iterable[int],
    *,
    layer: str | None = None,
    mask_var: Any = None,
    key_added: str = "nmf_rank",
    copy: bool = False,
    **options: Any,
) -> Any:
    """Compare numbers of components, and write which one is recommended and why.

    Parameters
    ----------
    adata, layer, mask_var, key_added, copy
        As for `nmf`.
    ranks : iterable of int
        The numbers of components to compare.
    **options
        As for `nmf_xp.select_rank`.

    Returns
    -------
    AnnData or None
        The copy where one was asked for. ``uns["nmf_rank"]`` of it, or of `adata`, has "rank", "rule", "doubts", and
        as "table" a frame with a row for each number.

    Raises
    ------
    TypeError, ValueError
        As for `nmf` and `nmf_xp.select_rank`.

    Notes
    -----
    Sizes of cells make no difference here, as W takes them up at each rank. Batches cannot be part of the comparison:
    entries that are held out are unobserved, beside which there are no effects of batches.
    """
    import pandas as pd

    reading.check_anndata("adata", adata)
    adding.check_target(adata, key_added, copy=copy)
    values = reading.matrix(adata, layer, reading.mask_of(adata, mask_var))
    with reading.said_of(layer):
        found = nmf_xp.select_rank(values, ranks, **options)
    into = adata.copy() if copy else adata
    into.uns[key_added] = {
        "rank": int(found.rank),
        "rule": found.rule,
        "doubts": np.asarray(found.doubts, dtype=object),
        "table": pd.DataFrame(found.table, index=[str(rank) for rank in found.table["rank"]]),
    }
    return into if copy else None
