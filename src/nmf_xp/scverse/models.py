"""`nmf` and `consensus` of AnnData."""

from __future__ import annotations

from typing import Any

import numpy as np

import nmf_xp
from nmf_xp.scverse import adding, reading


def nmf(
    adata: Any,
    k: int,
    *,
    layer: str | None = None,
    mask_var: Any = None,
    size_key: str | None = None,
    batch_key: str | None = None,
    key_added: str = "nmf",
    copy: bool = False,
    **options: Any,
) -> Any:
    """Factorize the counts of AnnData, cells by genes, and write the factors into it.

    Parameters
    ----------
    adata : AnnData
        With counts, or other non-negative numbers, in `X` or a layer: dense or sparse, in memory or in its file, from
        which it is then read block by block. `raw` is left alone.
    k : int
        Number of components.
    layer : str, optional
        The layer to factorize in the place of `X`.
    mask_var : str or array of bool, optional
        Genes that take part: a boolean column of `var`, such as "highly_variable", or one boolean for each gene.
    size_key : str, optional
        A column of `obs` with a size of each cell, such as its total count: the model is size * WH.
    batch_key : str, optional
        A column of `obs` with the batch of each cell: its effects on the genes are part of the model. It needs
        ``beta_loss="kullback-leibler"`` or `NegativeBinomial`; `batch_prior` may go with it. See
        :doc:`/how-to/batches`.
    key_added : str, default "nmf"
        The name under which the factors are written; what has it already is replaced.
    copy : bool, default False
        Write into a copy, and return that.
    **options
        As for `nmf_xp.nmf`, such as ``beta_loss="kullback-leibler"``, ``normalize="H"``, ``n_restarts=10`` or
        ``random_state=0``.

    Returns
    -------
    AnnData or None
        The copy where one was asked for. It or `adata` has

        - ``obsm["X_nmf"]``, shape (cells, k): W.
        - ``varm["nmf"]``, shape (genes, k): H transposed, 0 for genes that took no part.
        - ``uns["nmf"]``: "params", "divergence", "objective", "kkt_residual", "beta", "n_iter", "status", "solver",
          "history" and "version", as of `Result`.
        - With a `batch_key`, ``varm["nmf_batch_effects"]``, shape (genes, batches), 1 for genes that took no part, and
          ``uns["nmf"]["batch_labels"]``, the labels of its columns as text.
        - With ``beta_loss=NegativeBinomial("column")``, ``varm["nmf_dispersion"]``, shape (genes, 1), 1e-6 for genes
          that took no part.

    Raises
    ------
    TypeError, ValueError
        As for `nmf_xp.nmf`; also for a layer, mask or column that is not there.

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> import nmf_xp.scverse
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.poisson(rng.gamma(0.5, size=(60, 3)) @ rng.gamma(0.5, 20, size=(3, 40))).astype(float)
    >>> adata = anndata.AnnData(counts)
    >>> nmf_xp.scverse.nmf(adata, 3, beta_loss="kullback-leibler", random_state=0)
    >>> adata.obsm["X_nmf"].shape, adata.varm["nmf"].shape, adata.uns["nmf"]["status"]
    ((60, 3), (40, 3), 'CONVERGED')
    """
    reading.check_anndata("adata", adata)
    adding.check_target(adata, key_added, copy=copy)
    named = {"layer": layer, "mask_var": mask_var, "size_key": size_key, "batch_key": batch_key}
    values, mask, beside = _asked(adata, **named)
    with reading.said_of(layer):
        result = nmf_xp.nmf(values, k, **beside, **options)
    params = {"n_components": k, **named, **options}
    into = adata.copy() if copy else adata
    adding.add_factors(into, result, mask, key_added, adding.about(result, params))
    return into if copy else None


def consensus(
    adata: Any,
    k: int,
    *,
    layer: str | None = None,
    mask_var: Any = None,
    size_key: str | None = None,
    batch_key: str | None = None,
    key_added: str = "nmf",
    copy: bool = False,
    **options: Any,
) -> Any:
    """Factorize many times, and write the components that the factorizations agree on, as `nmf` writes those of one.

    Parameters
    ----------
    adata, k, layer, mask_var, size_key, batch_key, key_added, copy
        As for `nmf`.
    **options
        As for `nmf_xp.consensus_factors`, such as `n_restarts` and `max_distance`.

    Returns
    -------
    AnnData or None
        As for `nmf`. ``uns["nmf"]`` has besides "silhouette", "n_restarts", "n_dropped", the components that were left
        out as outliers, and "doubts". There are fewer than `k` components where groups were dropped.

    Raises
    ------
    TypeError, ValueError
        As for `nmf` and `nmf_xp.consensus_factors`.
    """
    reading.check_anndata("adata", adata)
    adding.check_target(adata, key_added, copy=copy)
    named = {"layer": layer, "mask_var": mask_var, "size_key": size_key, "batch_key": batch_key}
    values, mask, beside = _asked(adata, **named)
    with reading.said_of(layer):
        found = nmf_xp.consensus_factors(values, k, **beside, **options)
    params = {"n_components": k, **named, **options}
    agreement = {
        "silhouette": found.silhouette,
        "n_restarts": len(found.labels),
        "n_dropped": int((found.labels < 0).sum()),
        "doubts": np.asarray(found.doubts, dtype=object),
    }
    into = adata.copy() if copy else adata
    adding.add_factors(into, found.result, mask, key_added, adding.about(found.result, params) | agreement)
    return into if copy else None


def _asked(
    adata: Any, *, layer: str | None, mask_var: Any, size_key: str | None, batch_key: str | None
) -> tuple[Any, reading.Mask | None, dict[str, Any]]:
    """The matrix, the genes that take part, and what is known of the cells as options of the library."""
    mask, batches = reading.mask_of(adata, mask_var), reading.batches_of(adata, batch_key)
    values = reading.matrix(adata, layer, mask)
    return values, mask, {**reading.sizes_of(adata, size_key, values), **batches}
