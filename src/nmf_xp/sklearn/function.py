"""`non_negative_factorization`: scikit-learn's function, on `NMF`."""

from __future__ import annotations

import warnings
from typing import Any

from nmf_xp.arrays import precision
from nmf_xp.sklearn.inputs import Observation, check_data
from nmf_xp.sklearn.nmf import NMF


@precision.on_data
def non_negative_factorization(
    X: Any,
    W: Any = None,
    H: Any = None,
    n_components: int | str | None = "auto",
    *,
    init: str | None = None,
    update_H: bool = True,
    solver: str = "cd",
    beta_loss: float | str = "frobenius",
    tol: float = 1e-4,
    max_iter: int = 200,
    alpha_W: float = 0.0,
    alpha_H: float | str = "same",
    l1_ratio: float = 0.0,
    random_state: Any = None,
    verbose: int = 0,
    shuffle: bool = False,
    weights: Any = None,
    exposure: Any = None,
) -> tuple[Any, Any, int]:
    """Factorize X ~ W H, as scikit-learn's function of this name.

    Parameters
    ----------
    X, W, H, weights, exposure
        As for `NMF.fit`.
    update_H : bool, default True
        False: find W only, for the H that is given.
    n_components, init, solver, beta_loss, tol, max_iter, alpha_W, alpha_H, l1_ratio, random_state, verbose, shuffle
        As for `NMF`.

    Returns
    -------
    W : array, shape (n_samples, n_components)
        Loadings.
    H : array, shape (n_components, n_features)
        Components.
    n_iter : int
        Iterations that ran.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp.sklearn import non_negative_factorization
    >>> X = np.array([[1, 1], [2, 1], [3, 1.2], [4, 1], [5, 0.8], [6, 1]])
    >>> W, H, n_iter = non_negative_factorization(X, n_components=2, init="random", random_state=0)
    >>> W.shape, H.shape
    ((6, 2), (2, 2))
    """
    model = NMF(
        n_components,
        init=init,
        solver=solver,
        beta_loss=beta_loss,
        tol=tol,
        max_iter=max_iter,
        random_state=random_state,
        alpha_W=alpha_W,
        alpha_H=alpha_H,
        l1_ratio=l1_ratio,
        verbose=verbose,
        shuffle=shuffle,
    )
    model._validate_params()
    if not isinstance(update_H, bool):
        msg = f"The 'update_H' parameter of non_negative_factorization must be a bool. Got {update_H!r} instead."
        raise ValueError(msg)
    X = check_data(model, X, weights=weights, reset=True, whom="NMF initialization")
    if update_H:
        result = model._factorize(X, W, H, Observation(weights, exposure))
        return result.W, result.H, result.n_iter
    if W is not None:
        warnings.warn("When update_H=False, the provided initial W is not used.", RuntimeWarning, stacklevel=3)
    result = model._load(X, H, Observation(weights, exposure))
    return result.W, result.H, result.n_iter
