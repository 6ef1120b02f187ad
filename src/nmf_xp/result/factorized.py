"""What a factorization returns: the factors, the numbers, the names, and what can be asked of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, transfer
from nmf_xp.result import display, explained, features, frames, naming, storing
from nmf_xp.result.status import Status, message_of

if TYPE_CHECKING:
    import os
    from collections.abc import Hashable, Iterable, Iterator

    import numpy as np

    from nmf_xp.problem.overdispersed import NegativeBinomial
    from nmf_xp.problem.robust import Robust
    from nmf_xp.result.features import TopFeatures


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """A factorization V ~ WH, or a stack of them.

    Attributes
    ----------
    W : array, shape (..., m, r)
        Left factor, of V's namespace and device.
    H : array, shape (..., r, n)
        Right factor, likewise.
    divergence : float
        Beta-divergence of V from WH, in V's own units. It is read from the device when it is asked for.
    objective : float
        The divergence plus the penalties: what the iteration decreased.
    history : tuple of float
        The objective at the start and at each check after it; empty for `tol=0` without a callback or progress bar,
        where nothing is checked.
    n_iter : int
        Iterations that ran.
    status : Status
        Why the iteration ended.
    message : str
        The same in a sentence with numbers.
    kkt_residual : float
        Largest violation of the optimality conditions, without unit: over all entries of the factors that were
        updated, |min(w / max of its component, 1 - numerator / denominator)|, where numerator and denominator
        are the two parts of the gradient. 0 at a stationary point; independent of the scales of V, W and H.
    solver : str
        The solver that ran: where "auto" was asked for, the one that was taken for the loss, the kind of data and the
        device. On a GPU that choice follows from counts of passes over V and of launches, not from times.
    beta : float
        The beta of the divergence.
    robust : Robust or None
        The robust loss with its scale, for `beta_loss=Robust(...)`: `divergence` is then that loss.
    weights_of_rows : array or None
        For `beta_loss=Robust(...)`, how far each row of V is trusted, (..., m): 1, down to 0 for an outlier.
        With ``of="rows"`` it is the weight of the row, else the mean weight of its observed entries.
    noise : NegativeBinomial or None
        The loss with its dispersion, for `beta_loss=NegativeBinomial(...)`: `divergence` is then half the deviance.
    restarts : Result or None
        All restarts as a stack, of which this is the best; with their factors where ``keep_restarts=True``.
    row_names, column_names : tuple or None
        The names of V's rows, (m,), and columns, (n,), where V is a table, as the table has them; see `named`.
    component_names : tuple or None
        Names of the components, (r,): those of a table given as H or in ``init=(W, H)``.
    batch_effects : dict or None
        For ``batch=``, the factors of each batch: its label and an array (n,), by which the model of its rows is
        multiplied. Their geometric mean over the rows of V is 1 in each column, without a prior and terms of H.
    table : str or None
        The library of the table that V is: "pandas", "polars", "pyarrow", "xarray" or "anndata".

    Notes
    -----
    For a stack of matrices `divergence`, `objective`, `kkt_residual` and `n_iter` are NumPy arrays with one axis, and
    `status` and `history` tuples, member by member in C order; ``result[i]`` is one member of a stack with one axis.

    ``print(result)`` says all of this in a few lines; a notebook shows them with the falling objective.

    A Result is a JAX pytree, so that a compiled function may return it. Inside that function the numbers are traced.

    It keeps V, without a copy, for `explained`; what is pickled, copied or written to a file does not.
    """

    W: Any
    H: Any
    solver: str
    beta: float
    _divergence: Any
    _objective: Any
    _history: Any
    _n_iter: Any
    _status: Any
    _kkt_residual: Any
    restarts: Result | None = None
    robust: Robust | None = None
    weights_of_rows: Any = None
    noise: NegativeBinomial | None = None
    row_names: tuple[Hashable, ...] | None = None
    column_names: tuple[Hashable, ...] | None = None
    component_names: tuple[Hashable, ...] | None = None
    table: str | None = None
    batch_labels: tuple[Hashable, ...] | None = None
    _batch_table: Any = None
    _batch_loadings: Any = None  # the sums of W over the rows of each batch, (..., G, r), on the host
    _seen: Any = field(init=False, default=None)  # V, or a number that is known already

    @property
    def divergence(self) -> Any:
        """Beta-divergence of V from WH."""
        return _number(self._divergence)

    @property
    def objective(self) -> Any:
        """The divergence plus the penalties."""
        return _number(self._objective)

    @property
    def kkt_residual(self) -> Any:
        """Largest violation of the optimality conditions."""
        return _number(self._kkt_residual)

    @property
    def n_iter(self) -> Any:
        """Iterations that ran."""
        return _number(self._n_iter)

    @property
    def status(self) -> Any:
        """Why the iteration ended."""
        if libraries.is_traced(self._status):
            return self._status
        codes = _number(self._status)
        return Status.of(codes) if isinstance(codes, int) else tuple(Status.of(code) for code in codes.ravel())

    @property
    def message(self) -> Any:
        """Why the iteration ended, in a sentence with numbers; a tuple of them for a stack."""
        status, history = self.status, self.history
        if isinstance(status, tuple):
            return tuple(message_of(one, past, self.solver) for one, past in zip(status, history, strict=True))
        return status if libraries.is_traced(status) else message_of(status, history, self.solver)

    @property
    def history(self) -> Any:
        """The objective at the start and at each check."""
        history = self._history
        if not isinstance(history, tuple):
            if libraries.is_traced(history):
                return history
            history = transfer.to_host(history).tolist()
        if history and not isinstance(history[0], float):
            return tuple(_reached(member) for member in history)
        return _reached(history)

    @property
    def loss(self) -> Any:
        """What `beta_loss` is to be for the same loss of other rows: a beta, a `Robust` or a `NegativeBinomial`."""
        noise = None if self.noise is None else self.noise.for_other_rows
        return next((x for x in (self.robust, noise) if x is not None), self.beta)

    @property
    def batch_effects(self) -> dict[Hashable, Any] | None:
        """The factors of each batch by its label, arrays (..., n); None for a model without batches."""
        if self.batch_labels is None:
            return None
        return {label: self._batch_table[..., i, :] for i, label in enumerate(self.batch_labels)}

    @property
    def explained(self) -> Any:
        """The share of V's divergence from the means of its columns that WH explains: 1 - D(V | WH) / D(V | means).

        1 is an exact fit, 0 is no better than the means, and below 0 is worse. For the Frobenius loss it is the R^2 of
        all entries. The means are those of the entries that are observed, with their weights and exposures. It is NaN
        where each column is constant. V is read when it is asked for the first time.

        Raises ValueError where V is not known or is a dask array, and for `Robust`, which has no such means.
        """
        return explained.share(self)

    @property
    def explained_by_component(self) -> np.ndarray[Any, Any]:
        """For each component, (r,), how much of `explained` is lost where it is equally strong in all rows of V.

        That is with its column of W replaced by the mean of it. The numbers need not add up to `explained`, as
        components that are much alike stand in for each other. It raises what `explained` raises.
        """
        return explained.share_by_component(self)

    def top(self, n: int = 10, *, by: str = "share") -> TopFeatures:
        """The columns of V that speak for each component.

        Parameters
        ----------
        n : int, default 10
            How many of each component, at most; columns in which it is 0 are left out.
        by : {"share", "specific"}, default "share"
            "share": the largest shares of the row of H. "specific": those that tell the component from all others, by
            the least Kullback-Leibler distance of its share to theirs (Dey, Hsiao & Stephens 2017).

        Returns
        -------
        TopFeatures
            Their names and scores, component by component; ``print`` shows them.

        Raises
        ------
        TypeError, ValueError
            `n` is no positive integer, `by` is neither, or this is a stack.
        """
        return features.top_features(self, n, by)

    def to_frame(self, which: str, *, kind: str | None = None) -> Any:
        """W or H as a table with names.

        Parameters
        ----------
        which : {"W", "H"}
            W, (m, r), has V's row names and the components as columns. H, (r, n), has the components as rows.
        kind : {None, "pandas", "polars", "pyarrow"}, default None
            None: that of V where it is one of these, else pandas.

        Returns
        -------
        DataFrame or Table
            On the host, in the dtype of the factor. polars and pyarrow have no row names: they stand in the first
            column, "row" or "component".

        Raises
        ------
        TypeError, ValueError
            `which` or `kind` is none of these, or this is a stack.
        ImportError
            The library is not installed.
        """
        return frames.frame_of(self, which, kind)

    def reconstruct(self, rows: Any = None) -> Any:
        """WH, the model of V, or some rows of it, (k, n) or for one row (n,); without an exposure.

        Beside batches it is the model of rows without their effects; times ``batch_effects[label]`` it is that of V.

        Parameters
        ----------
        rows : int, slice, name of a row, or sequence of them, optional
            By default all rows. Where V's rows have names, an integer is a name if it is one of them.

        Returns
        -------
        array
            Of V's namespace and device.

        Raises
        ------
        IndexError, KeyError
            There is no such row, or it has no such name.
        """
        return naming.reconstruct(self, rows)

    def named(
        self,
        *,
        rows: Iterable[Hashable] | None = None,
        columns: Iterable[Hashable] | None = None,
        components: Iterable[Hashable] | None = None,
        table: str | None = None,
    ) -> Result:
        """The same result with names: of V's rows, V's columns or the components; None leaves those that it has.

        Raises ValueError where there are not as many names as there are rows, columns or components.
        """
        return naming.named(self, rows=rows, columns=columns, components=components, table=table)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write factors, numbers and names to a file, .npz or .safetensors, from which `nmf_xp.load` reads them.

        What is there is replaced, wholly or not at all. Names become text. Raises ValueError for another suffix,
        TypeError for a stack, and FileError or OSError where the file cannot be written.
        """
        storing.write(self, path)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        n_top: int = 10,
        shape: tuple[int, int] | None = None,
    ) -> None:
        """Write a page about the factorization that stands alone, an .html file, as `nmf-xp report` does.

        Parameters
        ----------
        path : path
            The file, which is replaced if it is there.
        title : str, optional
            By default the name of the file.
        n_top : int, default 10
            Features to name for each component.
        shape : (int, int), optional
            Height and width, to draw each component as an image.

        Raises
        ------
        TypeError, ValueError
            This is a stack, the suffix is another one, `n_top` is less than 1, or the pixels are not V's columns.
        """
        storing.write_report(self, path, title=title, n_top=n_top, shape=shape)

    def _remember(self, seen: Any) -> Result:
        """Keep V, or the number that is known of it, for `explained`."""
        object.__setattr__(self, "_seen", seen)  # which is no part of what was found
        if self.restarts is not None:
            self.restarts._remember(seen)
        return self

    def __getitem__(self, i: int) -> Result:
        """One member of a stack."""
        if self.W.ndim != 3:
            msg = f"only the result of a stack with one axis has members, got W of shape {tuple(self.W.shape)}"
            raise TypeError(msg)
        if not -self.W.shape[0] <= i < self.W.shape[0]:
            msg = f"the stack has {self.W.shape[0]} members, got index {i}"
            raise IndexError(msg)
        members: dict[str, Any] = {name: getattr(self, name)[i] for name in NUMBERS}
        names = ("W", "H", "weights_of_rows", "_batch_table", "_batch_loadings")
        arrays = (name for name in names if getattr(self, name) is not None)
        members |= {name: getattr(self, name)[i, ...] for name in arrays}
        member = replace(self, restarts=None, **members)
        return member._remember(explained.of_member(self._seen, i))

    def __iter__(self) -> Iterator[Result]:
        """The members of a stack."""
        if self.W.ndim != 3:
            msg = "a Result is no pair of W and H: write `result.W, result.H`, or `W, H = result.W, result.H`"
            raise TypeError(msg)
        return (self[i] for i in range(self.W.shape[0]))

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Result):
            return self is other
        msg = "whether two results are equal is a question of how close: write `numpy.allclose(r1.W, r2.W)`"
        raise TypeError(msg)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        factors = f"W={tuple(self.W.shape)}, H={tuple(self.H.shape)}, dtype={libraries.dtype_name(self.W.dtype)}"
        if self.W.ndim > 2 or not libraries.is_readable(self._divergence):
            return f"Result({factors}, solver={self.solver!r})"
        return (
            f"Result({factors}, divergence={self.divergence:.6g}, n_iter={self.n_iter}, "
            f"status={self.status.name}, solver={self.solver!r})"
        )

    def __str__(self) -> str:
        return display.text(display.rows(self)) if libraries.is_readable(self._divergence) else repr(self)

    def _repr_html_(self) -> str | None:
        """What a notebook shows; None, and with it the `repr`, where no number can be read."""
        return display.notebook(display.rows(self), self.history) if libraries.is_readable(self._divergence) else None


NUMBERS = ("_divergence", "_objective", "_history", "_n_iter", "_status", "_kkt_residual")
DATA_FIELDS = ("W", "H", *NUMBERS, "weights_of_rows", "_batch_table", "_batch_loadings", "restarts")
STATIC_FIELDS = (
    "solver",
    "beta",
    "robust",
    "noise",
    "row_names",
    "column_names",
    "component_names",
    "table",
    "batch_labels",
)


def _number(x: Any) -> Any:
    """A 0-d array as a Python number, a stack of them as a NumPy array; traced values as they are."""
    if libraries.is_traced(x):
        return x
    if isinstance(x, int | float):
        return int(x) if isinstance(x, int) else float(x)
    import numpy as np

    host = np.asarray(x) if isinstance(x, tuple) else transfer.to_host(x)
    return host if host.ndim else host.item()


def _reached(history: Any) -> tuple[float, ...]:
    """A history without the NaN that a compiled loop leaves behind its end."""
    return tuple(x for x in history if x == x)
