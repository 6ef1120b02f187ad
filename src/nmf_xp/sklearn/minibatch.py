"""`MiniBatchNMF`: scikit-learn's, on the online updates of `nmf_xp.online`."""

from __future__ import annotations

import math
import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval

from nmf_xp.arrays import precision
from nmf_xp.factorization import transform
from nmf_xp.online import online_nmf, online_start, online_step
from nmf_xp.problem.posing import pose_array
from nmf_xp.sklearn.base import BaseNMF
from nmf_xp.sklearn.callbacks import reconstruction_error
from nmf_xp.sklearn.inputs import Observation, check_data, check_positive, check_same_library
from nmf_xp.sklearn.starts import loadings_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.solvers.online import OnlineState


class MiniBatchNMF(BaseNMF):
    """Non-negative matrix factorization from one mini-batch of rows after the other, with scikit-learn's interface.

    Parameters
    ----------
    n_components, init, beta_loss, random_state, alpha_W, alpha_H, l1_ratio
        As for `NMF`.
    batch_size : int, default 1024
        Rows of a mini-batch.
    tol : float, default 1e-4
        The fit ends when a mini-batch changes H by no more than `tol` of its norm. 0: never.
    max_no_improvement : int or None, default 10
        The fit ends when the smoothed cost has not improved for so many mini-batches. None: never.
    max_iter : int, default 200
        Most passes over the data.
    forget_factor : float from 0 to 1, default 0.7
        How much of the past is left after a pass; below 1 recent mini-batches weigh more.
    fresh_restarts : bool, default False
        Find W afresh at each mini-batch, instead of updating it once.
    fresh_restarts_max_iter : int, default 30
        Most iterations of that.
    transform_max_iter : int or None, default None
        Most iterations of `transform` where `tol` is 0; None: `max_iter`.
    verbose : int, default 0
        Print the cost of each mini-batch.
    callback : callable, optional
        Called after each mini-batch of `fit` as ``callback(step, cost, state)``; True ends the fit.

    Attributes
    ----------
    components_ : array, shape (n_components, n_features)
        H, of X's library and on its device.
    n_components_ : int
        The number of components.
    reconstruction_err_ : float
        sqrt(2 D(X | WH)) after `fit`.
    n_iter_ : int
        Passes over the data that were begun by `fit`.
    n_steps_ : int
        Mini-batches that were used.
    history_ : tuple of float
        The cost of each mini-batch of `fit`; empty where nothing looks at them.
    n_features_in_ : int
        Number of features seen by `fit`.
    feature_names_in_ : array of str, shape (n_features,)
        Their names, where X has names that are all strings.

    Notes
    -----
    The steps are scikit-learn's, whose start weighs as much as data with sums of 1: unlike all else here, the answer
    depends on the units of X. Bring X near one, or use ``nmf(X, r, solver="online")``.

    See Also
    --------
    NMF : the same from all rows at once.
    nmf_xp.online.online_step : the function, for any stream of blocks.

    References
    ----------
    Lefevre, Bach & Fevotte (2011), WASPAA; Fevotte & Idier (2011), Neural Computation 23(9).

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp.sklearn import MiniBatchNMF
    >>> X = np.array([[1, 1], [2, 1], [3, 1.2], [4, 1], [5, 0.8], [6, 1]])
    >>> model = MiniBatchNMF(n_components=2, init="random", random_state=0, tol=1e-3)
    >>> model.fit_transform(X).shape, model.components_.shape
    ((6, 2), (2, 2))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseNMF._parameter_constraints,
        "max_no_improvement": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "forget_factor": [Interval(Real, 0, 1, closed="both")],
        "fresh_restarts": ["boolean"],
        "fresh_restarts_max_iter": [Interval(Integral, 1, None, closed="left")],
        "transform_max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "callback": [callable, None],
    }

    _input: ClassVar[str] = "MiniBatchNMF (input X)"

    def __init__(
        self,
        n_components: int | str | None = "auto",
        *,
        init: str | None = None,
        batch_size: int = 1024,
        beta_loss: float | str = "frobenius",
        tol: float = 1e-4,
        max_no_improvement: int | None = 10,
        max_iter: int = 200,
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
        forget_factor: float = 0.7,
        fresh_restarts: bool = False,
        fresh_restarts_max_iter: int = 30,
        transform_max_iter: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
        callback: Callable[[int, float, OnlineState], Any] | None = None,
    ) -> None:
        self.n_components = n_components
        self.init = init
        self.batch_size = batch_size
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_no_improvement = max_no_improvement
        self.max_iter = max_iter
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.forget_factor = forget_factor
        self.fresh_restarts = fresh_restarts
        self.fresh_restarts_max_iter = fresh_restarts_max_iter
        self.transform_max_iter = transform_max_iter
        self.random_state = random_state
        self.verbose = verbose
        self.callback = callback

    @precision.on_data
    def fit_transform(
        self, X: Any, y: Any = None, W: Any = None, H: Any = None, weights: Any = None, exposure: Any = None
    ) -> Any:
        """Learn the components of X and return its loadings on them.

        Parameters
        ----------
        X, y, W, H, weights, exposure
            As for `fit`.

        Returns
        -------
        array, shape (n_samples, n_components)
            W, of X's library and on its device.
        """
        self._validate_params()
        X = self._checked(X, weights, reset=True)
        observation = Observation(weights, exposure)
        W, H = self._start(X, W, H, observation)
        state = online_start(H, beta_loss=self._beta, rule="scikit-learn")
        done = online_nmf(
            X,
            None if self.fresh_restarts else W,
            state,
            batch_size=self.batch_size,
            forget_factor=self.forget_factor,
            max_iter=self.max_iter,
            tol=self.tol,
            max_no_improvement=self.max_no_improvement,
            beta_loss=self._beta,
            weights=weights,
            exposure=exposure,
            fresh_max_iter=self.fresh_restarts_max_iter,
            rule="scikit-learn",
            callback=self._watch if self.verbose else self.callback,
            **self._penalties(),
        )
        self._keep(done.state, steps=done.steps)
        self._memory = self._share_of_memory(X)
        self.n_iter_ = math.ceil(done.steps / math.ceil(X.shape[0] / self.batch_size))
        self.history_ = done.costs
        if not done.ended and self.tol > 0:
            msg = f"Maximum number of iterations {self.max_iter} reached. Increase it to improve convergence."
            warnings.warn(msg, ConvergenceWarning, stacklevel=3)
        if self.tol == 0 and not self.fresh_restarts:
            W = done.W
            posed = pose_array(X, beta=self._beta, **observation._asdict(), absent="zero")
            divergence = posed.divergence(W, self.components_)
        else:
            found = self._load(X, self.components_, observation)
            W, divergence = found.W, found.divergence
        self.reconstruction_err_ = reconstruction_error(float(divergence))
        return W

    @precision.on_data
    def partial_fit(
        self, X: Any, y: Any = None, W: Any = None, H: Any = None, weights: Any = None, exposure: Any = None
    ) -> Any:
        """Update the components with the rows of X as one mini-batch.

        Parameters
        ----------
        X, y, weights, exposure
            As for `fit`.
        W, H : array, optional
            The start where ``init="custom"``, for the first call.

        Returns
        -------
        self : object
            The estimator. It keeps nothing of X.
        """
        first = not hasattr(self, "components_")
        if first:
            self._validate_params()
        X = self._checked(X, weights, reset=first)
        if first:
            _, H = self._start(X, W, H, Observation(weights, exposure))
            self._keep(online_start(H, beta_loss=self._beta, rule="scikit-learn"), steps=0)
            self._memory = self._share_of_memory(X)
        else:
            check_same_library(self, X, "partial_fit")
        step = online_step(
            self._state,
            X,
            beta_loss=self._beta,
            memory=self._memory,
            weights=weights,
            exposure=exposure,
            fresh_max_iter=self.fresh_restarts_max_iter,
            rule="scikit-learn",
            fresh_tol=self.tol,
            **self._penalties(),
        )
        self._keep(step.state, steps=self.n_steps_ + 1)
        return self

    def _loadings(self, X: Any, observation: Observation) -> Any:
        if observation.weights is None:
            check_positive(X, self._beta)
        return self._load(X, self._given_components(X, self.components_), observation, measured=False).W

    def _checked(self, X: Any, weights: Any, *, reset: bool) -> Any:
        X = check_data(self, X, weights=weights, reset=reset, whom=self._input)
        if weights is None:
            check_positive(X, self._beta)
        return X

    def _share_of_memory(self, X: Any) -> float:
        """What a mini-batch leaves of the past, so that a pass over X leaves `forget_factor`."""
        m = X.shape[0]
        return self.forget_factor ** (min(self.batch_size, m) / m)

    def _keep(self, state: OnlineState, *, steps: int) -> None:
        self._state = state
        self.components_ = state.H
        self.n_components_ = int(state.H.shape[0])
        self.n_steps_ = steps

    def _load(self, X: Any, H: Any, observation: Observation, *, measured: bool = True) -> Any:
        """W of X, and if `measured` its divergence: the minimum, or for `tol` 0 that of scikit-learn's iterations."""
        if self.tol > 0:
            return self._minimum(X, H, observation, measured=measured)
        return transform(
            X,
            H,
            init=loadings_start(X, H, "mu"),
            beta_loss=self._beta,
            solver="mu",
            **observation._asdict(),
            alpha_W=self.alpha_W,
            l1_ratio=self.l1_ratio,
            max_iter=self.transform_max_iter or self.max_iter,
            tol=0,
        )

    def _watch(self, step: int, cost: float, state: OnlineState) -> bool:
        print(f"Minibatch step {step}: mean batch cost: {cost}")  # noqa: T201
        return self.callback is not None and bool(self.callback(step, cost, state))
