"""What both estimators share: constraints on parameters, starts, and what follows from `components_`."""

from __future__ import annotations

import functools
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from nmf_xp.arrays import libraries, precision
from nmf_xp.divergences import check_beta
from nmf_xp.factorization import transform
from nmf_xp.sklearn.inputs import Observation, check_data, check_factor, check_same_library
from nmf_xp.sklearn.plain import plain
from nmf_xp.sklearn.starts import loadings_start, start

# For W alone: the tolerance, as a part of `tol`, the limit, and iterations from one check to the next.
LOADINGS_TOL, LOADINGS_MAX_ITER, LOADINGS_CHECKS = 1e-2, 1000, 4


class BaseNMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Base class of `NMF` and `MiniBatchNMF`."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None, StrOptions({"auto"})],
        "init": [StrOptions({"random", "nndsvd", "nndsvda", "nndsvdar", "custom"}), None],
        "beta_loss": [StrOptions({"frobenius", "kullback-leibler", "itakura-saito"}), Real],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "alpha_W": [Interval(Real, 0, None, closed="left")],
        "alpha_H": [Interval(Real, 0, None, closed="left"), StrOptions({"same"})],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "verbose": ["verbose"],
    }

    _input: ClassVar[str]  # what its messages call the X that it is given

    # Every estimator sets these in its own __init__, as scikit-learn reads the parameters from its signature.
    n_components: Any
    init: str | None
    beta_loss: float | str
    tol: float
    max_iter: int
    random_state: Any
    alpha_W: float  # noqa: N815 - scikit-learn's name
    alpha_H: float | str  # noqa: N815
    l1_ratio: float
    verbose: int
    components_: Any

    def fit(
        self, X: Any, y: Any = None, W: Any = None, H: Any = None, weights: Any = None, exposure: Any = None
    ) -> Any:
        """Learn the components of X.

        Parameters
        ----------
        X : array or sparse matrix, shape (n_samples, n_features)
            Non-negative data: what scikit-learn takes, or an array of any library that follows the array API standard.
        y : ignored
            Present by convention.
        W : array, shape (n_samples, n_components), optional
            The start of W where ``init="custom"``.
        H : array, shape (n_components, n_features), optional
            The start of H, likewise.
        weights : array, optional
            Non-negative weights of the entries of X, of its shape or broadcasting to it; an entry of weight 0 is
            unobserved, and what stands there, NaN included, is not read.
        exposure : array, optional
            A known positive factor of each entry, of X's shape or broadcasting to it: X is modelled by exposure * WH.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self.fit_transform(X, W=W, H=H, weights=weights, exposure=exposure)
        return self

    @precision.on_data
    def transform(self, X: Any, weights: Any = None, exposure: Any = None) -> Any:
        """Loadings of new data on the components.

        Parameters
        ----------
        X : array or sparse matrix, shape (n_samples, n_features)
            Non-negative data, of the library with whose arrays the estimator was fitted.
        weights, exposure : array, optional
            Weights and exposure of the entries of X, as for `fit`.

        Returns
        -------
        array, shape (n_samples, n_components)
            W.
        """
        return self._loadings(self._checked_new(X, weights), Observation(weights, exposure))

    def _checked_new(self, X: Any, weights: Any) -> Any:
        """New data as `fit` had them."""
        if not hasattr(self, "components_"):
            check_is_fitted(self)
        X = check_data(self, X, weights=weights, reset=False, whom=self._input)
        check_same_library(self, X, "transform")
        return X

    def inverse_transform(self, X: Any) -> Any:
        """The model of data that have been transformed.

        Parameters
        ----------
        X : array or sparse matrix, shape (n_samples, n_components)
            Transformed data.

        Returns
        -------
        array, shape (n_samples, n_features)
            X @ H.
        """
        check_is_fitted(self)
        with precision.on_their_device(X):
            return X @ self.components_

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """The names of the parameters, which scikit-learn would read from the signature in every call."""
        return list(cls._names_of_parameters())

    @classmethod
    @functools.cache
    def _names_of_parameters(cls) -> tuple[str, ...]:
        return tuple(super()._get_param_names())

    @property
    def _beta(self) -> float:
        return check_beta(self.beta_loss)

    @property
    def _n_features_out(self) -> int:
        return int(self.components_.shape[0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.array_api_support = True
        return tags

    def _penalties(self) -> dict[str, Any]:
        return {"alpha_W": self.alpha_W, "alpha_H": self.alpha_H, "l1_ratio": self.l1_ratio}

    def _start(self, X: Any, W: Any, H: Any, observation: Observation, *, n_restarts: int = 1) -> tuple[Any, Any]:
        """W and H to begin a fit with: the user's, or those of the method that `init` names."""
        m, n = X.shape
        if self.init == "custom":
            r = n if self.n_components is None else self.n_components
            H = check_factor(H, (r, n), "NMF (input H)")
            W = check_factor(W, (m, r if r != "auto" else H.shape[0]), "NMF (input W)")
            if not W.dtype == H.dtype == X.dtype:
                msg = f"H and W should have the same dtype as X. Got H.dtype = {H.dtype} and W.dtype = {W.dtype}."
                raise TypeError(msg)
            return W, H
        if W is not None or H is not None:
            warnings.warn(
                "When init!='custom', provided W or H are ignored. Set  init='custom' to use them as initialization.",
                RuntimeWarning,
                stacklevel=5,
            )
        r = n if self.n_components in (None, "auto") else self.n_components
        return start(
            X,
            r,
            init=self.init,
            random_state=self.random_state,
            beta=self._beta,
            observation=observation,
            n_restarts=n_restarts,
        )

    def _minimum(self, X: Any, H: Any, observation: Observation, W: Any = None, *, measured: bool = True) -> Any:
        """The W that is best for H, by the fastest solver, near W where there is one; if `measured`, with how good."""
        tol, max_iter = LOADINGS_TOL * self.tol, max(self.max_iter, LOADINGS_MAX_ITER)
        if self._beta in (1, 2) and not any(x is not None for x in observation):
            solver: Any = ("newton", {"polish": False})
            schedule: Any = {"tol": tol, "every": LOADINGS_CHECKS}
            if self._beta == 2:  # sweeps over what V has been contracted to, by a rule that needs no look at V
                solver = ("cd-plain", {"violation_tol": tol, "polish": False})
                schedule = {"tol": 0.0, "measured": measured}
            if W is None:
                W = loadings_start(X, H, "cd" if self._beta == 2 else "newton")
            alphas: Any = self.alpha_W, 0.0, self.l1_ratio
            found = plain(X, W, H, solver, beta=self._beta, alphas=alphas, max_iter=max_iter, **schedule, fixed_h=True)
            if found is not None:
                return found
        return transform(
            X,
            H,
            init=W,
            beta_loss=self._beta,
            **observation._asdict(),
            alpha_W=self.alpha_W,
            l1_ratio=self.l1_ratio,
            max_iter=max_iter,
            check_every=LOADINGS_CHECKS,
            tol=tol,
        )

    def _given_components(self, X: Any, H: Any) -> Any:
        """H that is to be kept, checked against X."""
        r = self.n_components
        H = check_factor(H, ("auto" if r in (None, "auto") else r, X.shape[1]), "NMF (input H)")
        if H.dtype != X.dtype and libraries.dtype_name(H.dtype) != libraries.dtype_name(X.dtype):
            msg = f"H should have the same dtype as X. Got H.dtype = {H.dtype}."
            raise TypeError(msg)
        return H
