"""What was found, put into AnnData under a key: `obsm["X_key"]`, `varm["key"]` and `uns["key"]`.

With batches there is also `varm["key_batch_effects"]`, whose columns are in the order of `uns["key"]["batch_labels"]`,
and with dispersions of genes `varm["key_dispersion"]`.

All of it can be written to .h5ad: arrays on the host, numbers and text. What has the key already is replaced.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp.arrays import transfer
from nmf_xp.data.naming import text
from nmf_xp.problem.dispersion import LEAST
from nmf_xp.result.storing import losses_of

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
    adata.varm[key] = loadings
    add_loadings(adata, result, mask, key, about)


def add_loadings(adata: Any, result: Result, genes: Any, key: str, about: dict[str, Any]) -> None:
    """W, the effects of batches, dispersions of genes, and what is known of the run.

    Genes that took no part have effects of 1, and the least dispersion.

    Those that did are a mask, or their places in the order of H's columns; None for all.
    """
    import numpy as np

    adata.obsm[f"X_{key}"] = host(result.W)
    adata.uns[key] = about
    taken = slice(None) if genes is None else genes
    for beside in (effects_key(key), dispersions_key(key)):
        adata.varm.pop(beside, None)
    if result.noise is not None and result.noise.of == "column":
        dispersions = np.full((adata.n_vars, 1), LEAST)
        dispersions[taken] = result.noise.dispersion.T
        adata.varm[dispersions_key(key)] = dispersions
    if result.batch_effects is not None:
        found = np.stack([host(x) for x in result.batch_effects.values()], axis=1)
        effects = np.ones((adata.n_vars, found.shape[1]), dtype=found.dtype)
        effects[taken] = found
        adata.varm[effects_key(key)] = effects


def effects_key(key: str) -> str:
    """Where `varm` has the effects of batches."""
    return f"{key}_batch_effects"


def dispersions_key(key: str) -> str:
    """Where `varm` has the dispersions of genes."""
    return f"{key}_dispersion"


def known_loss(reference: Any, key: str, genes: Any) -> Any:
    """The loss of a reference, on some of its genes, as the option `beta_loss`."""
    import numpy as np

    params = reference.uns[key]["params"]
    if "robust" in params:
        return nmf_xp.Robust(**json.loads(params["robust"]))
    if "noise" not in params:
        return float(reference.uns[key]["beta"])
    said = json.loads(params["noise"])
    if said["dispersion"] != "column":
        return nmf_xp.NegativeBinomial(**said)
    kept = np.asarray(reference.varm.get(dispersions_key(key), np.empty((0, 0))))
    if kept.shape != (reference.n_vars, 1):
        msg = f"`reference` must have varm[{dispersions_key(key)!r}], as `nmf_xp.scverse.nmf` writes it"
        raise ValueError(msg)
    return nmf_xp.NegativeBinomial(kept[genes].T)


def known_effects(reference: Any, key: str, genes: Any) -> dict[str, Any]:
    """The effects that a reference has of its batches, on some of its genes, as an option of `transform`."""
    import numpy as np

    labels = reference.uns[key].get("batch_labels")
    if labels is None:
        return {}
    names = np.asarray(labels, dtype=object).ravel().tolist()
    effects = np.asarray(reference.varm.get(effects_key(key), np.empty((0, 0))))
    if effects.ndim != 2 or effects.shape[1] != len(set(map(str, names))) or len(names) != effects.shape[1]:
        msg = (
            f"`reference` must have varm[{effects_key(key)!r}] with a column for each label in "
            f"uns[{key!r}]['batch_labels'], as `nmf_xp.scverse.nmf` writes them"
        )
        raise ValueError(msg)
    return {"batch_effects": dict(zip(map(str, names), effects[genes].T, strict=True))}


def about(result: Result, params: dict[str, Any]) -> dict[str, Any]:
    """How a result came about, and how good it is; of its options those that are text and numbers."""
    import numpy as np

    kept = {name: value for name, value in params.items() if isinstance(value, str | int | float)}
    noise = result.noise
    lines = {} if noise is None or noise.of == "global" else {"noise": json.dumps({"dispersion": noise.of})}
    batches = {}
    if result.batch_labels is not None:
        batches["batch_labels"] = np.asarray(list(map(text, result.batch_labels)), dtype=object)
    return {
        "params": kept | losses_of(result) | lines,
        **{name: float(getattr(result, name)) for name in NUMBERS},
        "n_iter": int(result.n_iter),
        "status": result.status.name,
        "solver": result.solver,
        "history": np.asarray(result.history, dtype=float),
        "version": nmf_xp.__version__,
        **batches,
    }


def host(x: Any) -> np.ndarray[Any, Any]:
    """A factor as an array of NumPy."""
    return transfer.to_host(transfer.computed(x))
