"""The matrix in AnnData that is meant, and what is said where it is none that can be factorized."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.data import tables
from nmf_xp.data.kinds import Kind, kind_of
from nmf_xp.data.naming import text
from nmf_xp.run.door import NEGATIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    Mask = np.ndarray[Any, np.dtype[np.bool_]]

LISTED = 5  # names that an error lists


def check_anndata(name: str, x: Any) -> None:
    """Refuse what is no AnnData."""
    if not any(c.__module__.partition(".")[0] == "anndata" and c.__qualname__ == "AnnData" for c in type(x).__mro__):
        msg = f"`{name}` must be AnnData, got {type(x).__name__}; `nmf_xp.nmf` takes arrays and tables"
        raise TypeError(msg)


def matrix(adata: Any, layer: str | None, columns: Any = None) -> Any:
    """`X` or a layer of AnnData, of these columns or all."""
    source = adata if columns is None else adata[:, columns]
    return tables.arrived("adata", source, layer=layer).values


def mask_of(adata: Any, mask_var: Any) -> Mask | None:
    """Which genes take part: those of a boolean column of `var`, or of an array; None for all."""
    import numpy as np

    if mask_var is None:
        return None
    if isinstance(mask_var, str):
        if mask_var not in adata.var:
            msg = (
                f"`mask_var` must be a column of `adata.var`, which are {_listed(adata.var.columns)}, got {mask_var!r}"
            )
            raise ValueError(msg)
        mask_var = adata.var[mask_var]
    mask = np.asarray(mask_var)
    if mask.dtype == object and all(isinstance(x, bool | np.bool_) for x in mask.ravel()):
        mask = mask.astype(bool)
    if mask.dtype != bool or mask.shape != (adata.n_vars,):
        msg = f"`mask_var` must be {adata.n_vars} booleans, one for each gene, got {mask.dtype} of shape {mask.shape}"
        raise ValueError(msg)
    if not mask.any():
        msg = "`mask_var` must be true for some of the genes, got none"
        raise ValueError(msg)
    return mask


def sizes_of(adata: Any, size_key: str | None, values: Any) -> dict[str, Any]:
    """The sizes of the cells as the exposure of `values`; nothing without a key."""
    import numpy as np

    if size_key is None:
        return {}
    if size_key not in adata.obs:
        msg = f"`size_key` must be a column of `adata.obs`, which are {_listed(adata.obs.columns)}, got {size_key!r}"
        raise ValueError(msg)
    sizes = np.asarray(adata.obs[size_key])
    if sizes.dtype.kind not in "iuf" or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        msg = f"`size_key` must name positive numbers, one for each cell; `adata.obs[{size_key!r}]` holds others"
        raise ValueError(msg)
    return {"exposure": like(values, sizes.astype(np.float64)[:, None])}


def batches_of(adata: Any, batch_key: str | None) -> dict[str, Any]:
    """The labels of the cells' batches, as text, which is what a file keeps of them; nothing without a key."""
    if batch_key is None:
        return {}
    if not isinstance(batch_key, str) or batch_key not in adata.obs:
        msg = f"`batch_key` must be a column of `adata.obs`, which are {_listed(adata.obs.columns)}, got {batch_key!r}"
        raise ValueError(msg)
    column = adata.obs[batch_key]
    lacking = int(column.isna().sum())
    if lacking:
        msg = (
            f"`batch_key` must name a label for each cell, and {lacking} have none in `adata.obs[{batch_key!r}]`; "
            "leave them out, or give them a label of their own"
        )
        raise ValueError(msg)
    return {"batch": [text(label) for label in column]}


def like(values: Any, x: np.ndarray[Any, Any]) -> Any:
    """A NumPy array of floats in the dtype in which `values` are factorized, and in their library."""
    import numpy as np

    name = libraries.dtype_name(getattr(values, "X", values).dtype)  # AnnData in its file stands for itself
    x = np.asarray(x, dtype="float32" if name in ("float16", "float32", "bfloat16") else "float64", order="C")
    if not libraries.is_foreign(values) or kind_of(values) is not Kind.WHOLE:
        return x
    xp = libraries.array_namespace(values)
    return transfer.from_host(x, xp=xp, dtype=getattr(xp, x.dtype.name), device=libraries.device(values))


@contextlib.contextmanager
def said_of(layer: str | None) -> Iterator[None]:
    """Errors about V are about `X` or the layer, and those about `batch` about its key.

    Where V is negative, a layer of counts is what should be passed.
    """
    try:
        yield
    except ValueError as error:
        message = str(error)
        whose = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
        remedy = "; scaled or centred data are no counts: pass `layer=...` that holds them"
        said = message.partition(";")[0] + remedy if message.startswith(NEGATIVE) else message
        if said.startswith(("`V`", "`batch")):
            raise ValueError(said.replace("`V`", f"`{whose}`").replace("`batch`", "`batch_key`")) from None
        raise


def _listed(names: Any) -> str:
    known = [repr(str(name)) for name in names]
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return (", ".join(known[:LISTED]) or "none") + more
