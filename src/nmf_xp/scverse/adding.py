"""What was found, put into AnnData under a key: `obsm["X_key"]`, `varm["key"]` and `uns["key"]`.

All of it can be written to .h5ad: arrays on the host, numbers and text. What has the key already is replaced.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp.arrays import transfer

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp import Result
    from nmf_xp.scverse.reading import Mask

NUMBERS = ("divergence", "objective", "kkt_residual", "beta")


def check_target(adata: Any, key_added: Any, *, copy: bool) -> None:
    """Refuse, before the work, what cannot be written to after it."""
    if not isinstance(key_added, str) or not key_added:
        msg = f"`key_added` must be text, got {key_added!r}"
        raise ValueError(msg)
    if adata.isbacked and (copy or adata.is_view):
        what = "a copy" if copy else "a view"
        msg = f"{what} of AnnData that stays in its file cannot be written to; pass `adata.to_memory()`"
        raise ValueError(msg)


def add_factors(adata: Any, result: Result, mask: Mask | None, key: str, about: dict[str, Any]) -> None:
    """Both factors and what is known of them; genes that took no part have loadings of 0."""
    import numpy as np

    H = np.asarray(host(result.H)).T
    loadings = np.zeros((adata.n_vars, H.shape[1]), dtype=H.dtype)
    loadings[slice(None) if mask is None else mask] = H
    adata.obsm[f"X_{key}"] = host(result.W)
    adata.varm[key] = loadings
    adata.uns[key] = about


def about(result: Result, params: dict[str, Any]) -> dict[str, Any]:
    """How a result came about, and how good it is; of its options those that are text and numbers."""
    import numpy as np

    kept = {name: value for name, value in params.items() if isinstance(value, str | int | float)}
    robust = {} if result.robust is None else {"robust": json.dumps(vars(result.robust), default=float)}
    return {
        "params": kept | robust,
        **{name: float(getattr(result, name)) for name in NUMBERS},
        "n_iter": int(result.n_iter),
        "status": result.status.name,
        "solver": result.solver,
        "history": np.asarray(result.history, dtype=float),
        "version": nmf_xp.__version__,
    }


def host(x: Any) -> np.ndarray[Any, Any]:
    """A factor as an array of NumPy."""
    return transfer.to_host(transfer.computed(x))
