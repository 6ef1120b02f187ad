"""A result from the file in which it was kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmf_xp.files import FileError, factors_at
from nmf_xp.problem.overdispersed import NegativeBinomial
from nmf_xp.problem.robust import Robust
from nmf_xp.result.factorized import Result
from nmf_xp.result.status import Status

if TYPE_CHECKING:
    import os


def load(path: str | os.PathLike[str]) -> Result:
    """Read a result that `Result.save` or `nmf-xp fit` wrote.

    Parameters
    ----------
    path : path
        A file, .npz or .safetensors, or a folder that ``nmf-xp fit`` wrote. Nothing in it is run.

    Returns
    -------
    Result
        With NumPy arrays W (m, r) and H (r, n), in the dtype in which they were written. Names are text. Of restarts
        nothing but the best is kept.

    Raises
    ------
    FileError
        The file cannot be read, is damaged, or holds no factorization.

    Examples
    --------
    >>> import numpy as np, nmf_xp
    >>> result = nmf_xp.nmf(np.ones((4, 3)), 1, random_state=0)
    >>> result.save("ones.npz")  # doctest: +SKIP
    >>> nmf_xp.load("ones.npz").H.shape  # doctest: +SKIP
    (1, 3)
    """
    from nmf_xp.result.report.stored import read_stored

    path = factors_at(Path(path))
    stored = read_stored(path)
    numbers: dict[str, Any] = {name: stored.number(name) for name in ("divergence", "objective", "kkt_residual")}
    nan = float("nan")
    beta = stored.texts.get("beta", "nan")
    status = Status.__members__.get(stored.texts.get("status", ""), Status.STOPPED)
    names: dict[str, Any] = {
        name: _labels(getattr(stored, name)) for name in ("row_names", "column_names", "component_names")
    }
    result = Result(
        W=stored.W,
        H=stored.H,
        solver=stored.texts.get("solver", ""),
        beta=float(beta) if _is_number(beta) else nan,
        _divergence=_or_nan(numbers["divergence"]),
        _objective=_or_nan(numbers["objective"]),
        _history=tuple(stored.series("history")),
        _n_iter=int(stored.number("n_iter") or 0),
        _status=status.value,
        _kkt_residual=_or_nan(numbers["kkt_residual"]),
        robust=_loss(path, Robust, stored, "robust"),
        weights_of_rows=stored.weights_of_rows,
        noise=_loss(path, NegativeBinomial, stored, "noise"),
        batch_labels=_labels(stored.batch_labels),
        _batch_table=stored.batch_effects,
        _batch_loadings=stored.batch_loadings,
        **names,
    )
    explained = stored.number("explained")
    if explained is not None:
        result._remember(explained)
    return result


def _loss(path: Path, kind: Any, stored: Any, name: str) -> Any:
    """The loss of this kind that a file describes, if any."""
    if name not in stored.texts:
        return None
    said = stored.said(name, plain=False)
    try:
        loss = kind(**said)
    except (TypeError, ValueError) as error:
        msg = f"{path}: is damaged: its loss is none: {error}"
        raise FileError(msg) from error
    if not said or isinstance(said.get("dispersion"), str):  # what is kept is what was found
        msg = f"{path}: is damaged: its loss is not said"
        raise FileError(msg)
    return loss


def _labels(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _or_nan(number: float | None) -> float:
    return float("nan") if number is None else number


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
