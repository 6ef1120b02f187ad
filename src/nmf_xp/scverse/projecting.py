"""`project`: new cells on the components of others."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

import nmf_xp
from nmf_xp.files import in_line
from nmf_xp.scverse import adding, reading

LISTED = 5  # genes that are named


def project(
    adata: Any,
    reference: Any,
    *,
    layer: str | None = None,
    size_key: str | None = None,
    batch_key: str | None = None,
    key: str = "nmf",
    copy: bool = False,
    **options: Any,
) -> Any:
    """Find how much of each component of a reference is in new cells.

    Genes are matched by name. Those of the reference that the new cells lack count as unobserved, and a warning says
    how many there are; those that only the new cells have are left out.

    Parameters
    ----------
    adata : AnnData
        New cells, with counts like those of the reference.
    reference : AnnData
        With ``varm["nmf"]`` and ``uns["nmf"]``, as `nmf` and `consensus` write them.
    layer, size_key : str, optional
        As for `nmf`; by default those of the reference.
    batch_key : str, optional
        A column of `obs` with the batch of each cell, by default that of the reference. The effects of its batches
        are taken by label and by gene; those of other labels are found with W.
    key : str, default "nmf"
        Where the reference has its components, and where the loadings are written.
    copy : bool, default False
        Write into a copy, and return that.
    **options
        As for `nmf_xp.transform`; by default with the loss of the reference.

    Returns
    -------
    AnnData or None
        The copy where one was asked for. It or `adata` has ``obsm["X_nmf"]``, shape (cells, k), and ``uns["nmf"]``.
        With batches also ``varm["nmf_batch_effects"]`` with those of the new cells, and their "batch_labels", as `nmf`
        writes them.

    Raises
    ------
    TypeError, ValueError
        As for `nmf_xp.transform`; also where the reference has no components, or no gene in common, or a name is there
        twice.
    """
    reading.check_anndata("adata", adata)
    reading.check_anndata("reference", reference)
    adding.check_target(adata, key, copy=copy)
    if key not in reference.varm or "params" not in reference.uns.get(key, {}):
        msg = f"`reference` must have varm[{key!r}] and uns[{key!r}], as `nmf_xp.scverse.nmf` writes them"
        raise ValueError(msg)
    loadings, known = np.asarray(reference.varm[key]), reference.uns[key]
    params = known["params"]
    layer = params.get("layer") if layer is None else layer
    size_key = params.get("size_key") if size_key is None else size_key
    batch_key = params.get("batch_key") if batch_key is None else batch_key
    batches = reading.batches_of(adata, batch_key)
    ours, theirs = _shared(adata, reference, loadings)
    same = ours == list(range(adata.n_vars))
    values = reading.matrix(adata, layer, None if same else ours)
    effects = adding.known_effects(reference, key, theirs) if batches else {}
    with reading.said_of(layer):
        result = nmf_xp.transform(
            values,
            reading.like(values, loadings[theirs].T),
            **reading.sizes_of(adata, size_key, values),
            **{"beta_loss": adding.known_loss(reference, key, theirs), **batches, **effects, **options},
        )
    named = {"layer": layer, "size_key": size_key, "batch_key": batch_key}
    used = {"n_components": loadings.shape[1], **named, **options}
    into = adata.copy() if copy else adata
    adding.add_loadings(into, result, ours, key, adding.about(result, used) | {"n_genes": len(ours)})
    return into if copy else None


def _shared(adata: Any, reference: Any, loadings: Any) -> tuple[list[int], list[int]]:
    """Where the genes with loadings are in both, in the order of the reference, and a word about those that are not."""
    for name, names in (("adata", adata.var_names), ("reference", reference.var_names)):
        if not names.is_unique:
            twice = names[names.duplicated()][0]
            msg = f"`{name}` must have each gene once, got {twice!r} twice; see its method `var_names_make_unique`"
            raise ValueError(msg)
    with_loadings = np.flatnonzero((loadings > 0).any(axis=1))
    places = adata.var_names.get_indexer(reference.var_names[with_loadings])
    there = places >= 0
    if not there.any():
        msg = "`adata` must have genes of `reference`, got none of them; are the names of the same kind?"
        raise ValueError(msg)
    if not there.all():
        lacking = reference.var_names[with_loadings[~there]]
        more = f" and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
        share = loadings[with_loadings[~there]].sum() / loadings.sum()
        named = ", ".join(in_line(str(name)) for name in lacking[:LISTED])
        msg = (
            f"{len(lacking)} of {len(there)} genes of `reference`, with {share:.1%} of the loadings, are not in `adata`"
        )
        warnings.warn(f"{msg}, and count as unobserved: {named}{more}", UserWarning, stacklevel=3)
    return places[there].tolist(), with_loadings[there].tolist()
