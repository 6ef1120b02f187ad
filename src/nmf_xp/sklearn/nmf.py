"""`NMF`: scikit-learn's, on `nmf_xp.nmf` and `nmf_xp.transform`."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions

from nmf_xp.arrays import precision
from nmf_xp.data import tables
from nmf_xp.factorization import nmf, transform
from nmf_xp.result import Result, Status
from nmf_xp.run.door import labels_beside
from nmf_xp.sklearn.base import LOADINGS_MAX_ITER, LOADINGS_TOL, BaseNMF
from nmf_xp.sklearn.callbacks import Watch, error_of, reconstruction_error
from nmf_xp.sklearn.inputs import Observation, check_data, check_positive
from nmf_xp.sklearn.plain import plain
from nmf_xp.sklearn.starts import ORDERS, DrawnOrders, loadings_start
from nmf_xp.solvers import LOSSES

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from nmf_xp.sklearn.plain import Plain

    Found = TypeVar("Found", Result, Plain, Result | Plain)

SOLVERS = {"cd": "cd-plain", "mu": "mu", "auto": "auto", "newton": "newton", "mm": "mm", "cd-accelerated": "cd"}


class NMF(BaseNMF):
    """Non-negative matrix factorization, X ~ W H, with scikit-learn's interface.

    Parameters
    ----------
    n_components : int, "auto" or None, default "auto"
        Number of components. None: as many as features. "auto": that of H where ``init="custom"``, else as None.
    init : {"random", "nndsvd", "nndsvda", "nndsvdar", "custom"} or None, default None
        The start, the same as scikit-learn's. None: "nndsvda" for at most min(n_samples, n_features) components, else
        "random". "custom": the W and H that are given to `fit`.
    solver : {"cd", "mu", "auto", "newton", "mm", "cd-accelerated"}, default "cd"
        "cd" and "mu" are scikit-learn's, with its rules for when to stop. The others are those of `nmf`, with its
        rule; "cd-accelerated" is `nmf`'s "cd". "auto" is the fastest for the loss.
    beta_loss : float or {"frobenius", "kullback-leibler", "itakura-saito"}, default "frobenius"
        The beta of the divergence. "cd" takes "frobenius" only.
    tol : float, default 1e-4
        When to stop; 0 runs `max_iter` iterations. "cd": the violation of the optimality conditions fell to `tol` times
        that of the first iteration. "mu": the error fell by less than `tol` times that of the start in ten iterations.
        The others: the objective fell by less than `tol` times itself.
    max_iter : int, default 200
        Most iterations.
    random_state : int, RandomState or None, default None
        Seed of the start and of `shuffle`.
    alpha_W, alpha_H : float, default 0; alpha_H may be "same"
        Strength of the penalty on W and on H, times n_features and n_samples.
    l1_ratio : float from 0 to 1, default 0
        Share of the L1 penalty; the rest is L2.
    verbose : int, default 0
        Print the error at every tenth iteration.
    shuffle : bool, default False
        Visit the components in random order; solver "cd" only.
    n_restarts : int, default 1
        Random starts, of which the best is kept.
    callback : callable, optional
        Called at every tenth iteration of a fit with a `Progress`; True ends the fit.

    Attributes
    ----------
    components_ : array, shape (n_components, n_features)
        H, of X's library and on its device.
    n_components_ : int
        The number of components.
    reconstruction_err_ : float
        sqrt(2 D(X | WH)): for the Frobenius loss the Frobenius norm of the residual.
    n_iter_ : int
        Iterations that ran.
    history_ : tuple of float
        The objective at the start and at each check; empty where `tol` is 0 and nothing looks at the run.
    batch_effects_ : dict or None
        Where `fit` was given batches, the factors of each, by its label: an array, shape (n_features,).
    n_features_in_ : int
        Number of features seen by `fit`.
    feature_names_in_ : array of str, shape (n_features,)
        Their names, where X has names that are all strings.

    See Also
    --------
    MiniBatchNMF : the same from one mini-batch of rows after the other.
    nmf_xp.nmf : the function, with more kinds of data and constraints.

    References
    ----------
    Cichocki & Phan (2009), IEICE Trans. E92-A; Fevotte & Idier (2011), Neural Computation 23(9).

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp.sklearn import NMF
    >>> X = np.array([[1, 1], [2, 1], [3, 1.2], [4, 1], [5, 0.8], [6, 1]])
    >>> model = NMF(n_components=2, init="random", random_state=0)
    >>> model.fit_transform(X).shape, model.components_.shape
    ((6, 2), (2, 2))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseNMF._parameter_constraints,
        "solver": [StrOptions(set(SOLVERS))],
        "shuffle": ["boolean"],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
        "callback": [callable, None],
    }

    _input: ClassVar[str] = "NMF (input X)"

    def __init__(
        self,
        n_components: int | str | None = "auto",
        *,
        init: str | None = None,
        solver: str = "cd",
        beta_loss: float | str = "frobenius",
        tol: float = 1e-4,
        max_iter: int = 200,
        random_state: Any = None,
        alpha_W: float = 0.0,
        alpha_H: float | str = "same",
        l1_ratio: float = 0.0,
        verbose: int = 0,
        shuffle: bool = False,
        n_restarts: int = 1,
        callback: Callable[[Any], Any] | None = None,
    ) -> None:
        self.n_components = n_components
        self.init = init
        self.solver = solver
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.verbose = verbose
        self.shuffle = shuffle
        self.n_restarts = n_restarts
        self.callback = callback

    def fit(
        self,
        X: Any,
        y: Any = None,
        W: Any = None,
        H: Any = None,
        weights: Any = None,
        exposure: Any = None,
        batch: Any = None,
    ) -> Any:
        """Learn the components of X.

        Parameters
        ----------
        X, y, W, H, weights, exposure
            As for `MiniBatchNMF.fit`.
        batch : array-like, shape (n_samples,), optional
            The label of each sample's batch, whose effects are part of the model, as in `nmf_xp.nmf`. For the
            Kullback-Leibler loss, with a solver other than "cd".

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self.fit_transform(X, W=W, H=H, weights=weights, exposure=exposure, batch=batch)
        return self

    @precision.on_data
    def transform(self, X: Any, weights: Any = None, exposure: Any = None, batch: Any = None) -> Any:
        """Loadings of new data on the components.

        Parameters
        ----------
        X, weights, exposure
            As for `MiniBatchNMF.transform`.
        batch : array-like, shape (n_samples,), optional
            The label of each sample's batch: one that `fit` has seen keeps its effects, those of another are found.

        Returns
        -------
        array, shape (n_samples, n_components)
            W.
        """
        batch = self._checked_batch(batch, X)
        X = self._checked_new(X, weights)
        return self._load(X, self.components_, Observation(weights, exposure), batch=batch).W

    @precision.on_data
    def fit_transform(
        self,
        X: Any,
        y: Any = None,
        W: Any = None,
        H: Any = None,
        weights: Any = None,
        exposure: Any = None,
        batch: Any = None,
    ) -> Any:
        """Learn the components of X and return its loadings on them.

        Parameters
        ----------
        X, y, W, H, weights, exposure, batch
            As for `fit`.

        Returns
        -------
        array, shape (n_samples, n_components)
            W, of X's library and on its device.
        """
        self._validate_params()
        batch = self._checked_batch(batch, X)
        X = check_data(self, X, weights=weights, reset=True, whom="NMF initialization")
        result = self._factorize(X, W, H, Observation(weights, exposure), batch=batch)
        self.components_ = result.H
        self.batch_effects_ = None if batch is None else result.batch_effects
        self.n_components_ = int(result.H.shape[0])
        self.reconstruction_err_ = reconstruction_error(result.divergence)
        self.n_iter_ = result.n_iter
        self.history_ = result.history
        return result.W

    def _factorize(self, X: Any, W: Any, H: Any, observation: Observation, *, batch: Any = None) -> Any:
        """Both factors of X."""
        self._check_solver()
        if observation.weights is None:
            check_positive(X, self._beta)
        W, H = self._start(X, W, H, observation, n_restarts=self.n_restarts)
        found: Result | Plain | None = None
        if batch is None:
            found = self._plain(X, W, H, observation, both=True)
        if found is None:
            drawn = self._drawn(W.shape[-1])
            options = self._options(X, (W, H), observation, drawn, both=True)
            found = nmf(X, W.shape[-1], init=(W, H), batch=batch, **options, **self._penalties())
            if drawn is not None:
                drawn.leave(2 * found.n_iter)
        found = self._finished(found)
        if batch is not None or not self._exact_loadings:
            return found
        best = self._minimum(X, found.H, observation, found.W)
        if isinstance(found, Result):
            return dataclasses.replace(found, W=best.W, _divergence=best.divergence)
        return found._replace(W=best.W, divergence=best.divergence)

    def _load(self, X: Any, H: Any, observation: Observation, *, batch: Any = None) -> Result | Plain:
        """W of X for given H."""
        self._check_solver()
        if observation.weights is None:
            check_positive(X, self._beta)
        H = self._given_components(X, H)
        if batch is not None:
            return self._finished(self._minimum_in_batches(X, H, observation, batch))
        if self._exact_loadings:
            return self._finished(self._minimum(X, H, observation, measured=False))
        W = None
        if self.solver in ("cd", "mu"):
            W = loadings_start(X, H, self.solver)
            found = self._plain(X, W, H, observation, both=False)
            if found is not None:
                return self._finished(found)
        drawn = self._drawn(H.shape[0])
        options = self._options(X, (W, H), observation, drawn, both=False)
        result = transform(X, H, init=W, alpha_W=self.alpha_W, l1_ratio=self.l1_ratio, **options)
        if drawn is not None:
            drawn.leave(result.n_iter)
        return self._finished(result)

    def _checked_batch(self, batch: Any, X: Any) -> Any:
        """Labels in the order of X's rows, for a loss and a solver that take them."""
        if batch is None:
            return None
        if self._beta != 1 or self.solver == "cd":
            msg = "`batch` needs beta_loss='kullback-leibler' and a `solver` for it, such as 'mu' or 'auto'"
            raise ValueError(msg)
        if self.alpha_W or self.alpha_H not in (0, "same"):
            msg = "`batch` cannot go with penalties here; `nmf_xp.nmf` takes them beside a `batch_prior`"
            raise ValueError(msg)
        return labels_beside(batch, tables.arrived("X", X).names) if tables.is_named(X) else batch

    def _minimum_in_batches(self, X: Any, H: Any, observation: Observation, batch: Any) -> Result:
        """The W that is best for H beside the effects of batches, of which those that are known stay."""
        schedule: Any = {"max_iter": max(self.max_iter, LOADINGS_MAX_ITER), "tol": LOADINGS_TOL * self.tol}
        options = {**observation._asdict(), "batch": batch, "batch_effects": getattr(self, "batch_effects_", None)}
        return transform(
            X, H, beta_loss=self._beta, alpha_W=self.alpha_W, l1_ratio=self.l1_ratio, **options, **schedule
        )

    def _plain(self, X: Any, W: Any, H: Any, observation: Observation, *, both: bool) -> Plain | None:
        """The same by the solver itself; None where more is asked than scikit-learn does."""
        looked_at = self.verbose or (both and self.callback is not None)
        if self.solver not in ("cd", "mu") or looked_at or any(x is not None for x in observation):
            return None
        tol = self.tol if self.solver == "mu" else 0.0
        alphas = self.alpha_W, self.alpha_H, self.l1_ratio
        options: Any = {"max_iter": self.max_iter, "tol": tol, "fixed_h": not both, "measured": both}
        if self.solver == "cd" and self.shuffle:
            options["orders"] = functools.partial(DrawnOrders, W.shape[-1], self.random_state)
        return plain(X, W, H, self._solver(), beta=self._beta, alphas=alphas, **options)

    @property
    def _exact_loadings(self) -> bool:
        """Whether W is the minimum for the last H.

        "mu" leaves W far from it, elsewhere from every start: `fit_transform` and `transform` would differ. Where that
        minimum is slow to find, or one of several, W is what scikit-learn's iterations lead to.
        """
        return self.solver == "mu" and self.tol > 0 and self._beta in (1, 2)

    def _check_solver(self) -> None:
        if self._beta not in LOSSES.get(SOLVERS[self.solver], (self._beta,)):
            msg = f"Invalid beta_loss parameter: solver {self.solver!r} does not handle beta_loss = {self.beta_loss!r}"
            raise ValueError(msg)
        if self.solver == "mu" and self.init == "nndsvd":
            warnings.warn(
                "The multiplicative update ('mu') solver cannot update zeros present in the initialization, and so "
                "leads to poorer results when used jointly with init='nndsvd'. You may try init='nndsvda' or "
                "init='nndsvdar' instead.",
                UserWarning,
                stacklevel=5,
            )

    def _solver(self) -> Any:
        """The name of the solver, and where it is scikit-learn's its options, but for the orders of `shuffle`."""
        name = SOLVERS[self.solver]
        if self.solver == "cd":
            return name, {"violation_tol": self.tol or None, "polish": False}
        return (name, {"polish": False}) if self.solver == "mu" else name  # whose factors keep the scale of their start

    def _drawn(self, n_components: int) -> DrawnOrders | None:
        """What draws the orders of `shuffle`."""
        return DrawnOrders(n_components, self.random_state) if self.solver == "cd" and self.shuffle else None

    def _options(
        self, X: Any, start: tuple[Any, Any], observation: Observation, drawn: DrawnOrders | None, *, both: bool
    ) -> dict[str, Any]:
        """What `nmf` and `transform` are told of the solver, and of when to stop."""
        solver = self._solver()
        if drawn is not None:
            orders = drawn.draw(min(self.max_iter, ORDERS) * (2 if both else 1))
            solver[1]["orders"] = tuple(map(tuple, orders.tolist()))
        their_rule = self.solver == "mu" and start[1].ndim == 2  # restarts end one by one, by the rule of `nmf`
        callback = self.callback if both else None
        watch = None
        if self.verbose or callback is not None or (their_rule and self.tol > 0):
            watch = Watch(
                error_of(X, beta=self._beta, observation=observation),
                start,
                tol=self.tol if their_rule and self.tol > 0 else None,
                penalised=bool(self.alpha_W or self.alpha_H not in (0, "same")),
                verbose=self.verbose,
                callback=callback,
            )
        return {
            "solver": solver,
            "beta_loss": self._beta,
            **observation._asdict(),
            "max_iter": self.max_iter,
            "tol": 0.0 if their_rule or self.solver == "cd" else self.tol,
            "callback": watch,
        }

    def _finished(self, result: Found) -> Found:
        """The result, after a warning where it is no minimum."""
        if result.status is Status.MAX_ITER and self.tol > 0:
            msg = f"Maximum number of iterations {self.max_iter} reached. Increase it to improve convergence."
            warnings.warn(msg, ConvergenceWarning, stacklevel=5)
        if result.status is Status.NOT_FINITE:
            warnings.warn(result.status.message, ConvergenceWarning, stacklevel=5)
        return result
