"""X, W and H as the estimators take them, checked with scikit-learn's messages.

NumPy, SciPy, lists and data frames go through scikit-learn's own checks; arrays of other libraries stay what they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import check_array, check_non_negative, validate_data

from nmf_xp.arrays import checks, libraries, transfer
from nmf_xp.arrays.checks import as_working_dtype
from nmf_xp.data import as_data
from nmf_xp.data.checks import check_weights
from nmf_xp.data.sparse_places import checked


class Observation(NamedTuple):
    """How the entries of X were observed."""

    weights: Any = None
    exposure: Any = None


NOTHING = Observation()


def check_data(estimator: Any, X: Any, *, weights: Any = None, reset: bool, whom: str) -> Any:
    """X in a floating dtype, without negative entries; what the estimator knows of its features is set or checked.

    What stands behind a weight of 0 is not looked at, and comes back as a number at which every divergence is finite.
    """
    kind = checks.unsupported_kind("X", X) if libraries.is_masked(X) and np.ma.is_masked(X) else None
    if kind is not None:
        msg = f"`X` must be a plain array, got {kind}"
        raise TypeError(msg)
    if not libraries.is_foreign(X):
        finite: Any = weights is None
        if finite and _is_as_wanted(X) and _is_as_known(estimator, X, reset=reset):
            estimator.n_features_in_ = X.shape[1]
            return X
        checked(X)  # before scikit-learn reads by its indices
        options = {"accept_sparse": ("csr", "csc"), "dtype": [np.float64, np.float32], "reset": reset}
        X = validate_data(estimator, X, ensure_all_finite=finite, **options)
        if weights is not None:
            X = _observed(X, weights, xp=np)
            assert_all_finite(X, input_name="X")
        check_non_negative(X, whom)
        return X
    data = as_data(X)
    xp = libraries.array_namespace(data.values)
    validate_data(estimator, X, skip_check_array=True, reset=reset)
    if weights is not None and data.values.ndim > 1:
        X = _observed(as_working_dtype("X", X, xp=xp), weights, xp=xp)
        data = as_data(X)
    if not xp.isdtype(data.values.dtype, ("bool", "integral")) and not transfer.scalar(
        xp.all(xp.isfinite(data.values))
    ):
        _refuse("Input X contains NaN or infinity.")
    if transfer.scalar(xp.min(data.values)) < 0:
        _refuse(f"Negative values in data passed to {whom}.")
    return X if data.values.ndim < 2 else as_working_dtype("X", X, xp=xp)


def _is_as_wanted(X: Any) -> bool:
    """Whether X is an array in which scikit-learn's checks, which take several times as long, would find nothing."""
    if not (type(X) is np.ndarray and X.ndim == 2 and X.size > 0 and X.dtype in (np.float64, np.float32)):
        return False
    return bool(0 <= X.min() and X.max() < np.inf)


def _is_as_known(estimator: Any, X: Any, *, reset: bool) -> bool:
    """Whether there are no names of features that X would have to have, and as many features as it has."""
    if hasattr(estimator, "feature_names_in_"):
        return False
    return reset or X.shape[1] == getattr(estimator, "n_features_in_", None)


def _observed(X: Any, weights: Any, *, xp: Any) -> Any:
    """X with ones where the weight is 0; X itself where none is."""
    check_weights(weights, X if libraries.sparse_library(X) is None else X.data, tuple(X.shape))
    unseen = xp.broadcast_to(weights == 0, X.shape)
    if not transfer.scalar(xp.any(unseen)):
        return X
    if libraries.sparse_library(X) is None:
        return xp.where(unseen, xp.ones_like(X), X)
    entries = X.tocoo()
    X = X.copy()
    X.data = np.where(unseen[entries.row, entries.col], X.dtype.type(1), X.data)
    return X


def check_same_library(estimator: Any, X: Any, method: str) -> None:
    """Refuse X of another library, or on another device, than the components."""
    if type(X) is type(estimator.components_) is np.ndarray:
        return
    values, H = as_data(X).values, estimator.components_
    namespaces = [libraries.array_namespace(x) for x in (values, H)]
    if namespaces[0] is not namespaces[1] or libraries.device(values) != libraries.device(H):
        names = [f"{xp.__name__} on {libraries.device(x)}" for xp, x in zip(namespaces, (values, H), strict=True)]
        _refuse(
            f"Inputs passed to {type(estimator).__name__}.{method}() must use the same namespace and the same device "
            f"as those passed to fit(): got {names[0]}, fitted with {names[1]}."
        )


def check_positive(X: Any, beta: float) -> None:
    """Refuse zeros in X where the divergence is infinite on them."""
    if beta > 0:
        return
    data = as_data(X)
    if data.has_absent or transfer.scalar(libraries.array_namespace(data.values).min(data.values)) == 0:
        _refuse(
            "When beta_loss <= 0 and X contains zeros, the solver may diverge. Please add small values to X, or use a "
            "positive beta_loss."
        )


def check_factor(A: Any, shape: tuple[int | str, int | str], whom: str) -> Any:
    """A factor from the user, of a shape in which "auto" stands for any length."""
    A = A if libraries.is_foreign(A) or _is_as_wanted(A) else check_array(A)
    for axis, (name, got, expected) in enumerate(zip(("first", "second"), A.shape, shape, strict=True)):
        if expected not in ("auto", got):
            _refuse(
                f"Array with wrong {name} dimension passed to {whom}. Expected {shape[axis]}, but got {A.shape[axis]}."
            )
    xp = libraries.array_namespace(A)
    low, high = transfer.scalar(xp.min(A)), transfer.scalar(xp.max(A))
    if low < 0:
        _refuse(f"Negative values in data passed to {whom}.")
    if high == 0:
        _refuse(f"Array passed to {whom} is full of zeros.")
    return A


def _refuse(message: str) -> None:
    raise ValueError(message)
