"""A result as arrays and texts, which a file keeps and a report draws; and into a file."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp.arrays import libraries, transfer
from nmf_xp.data.kinds import Kind, kind_of
from nmf_xp.data.naming import text
from nmf_xp.files import OUTPUTS, archive, write_atomically
from nmf_xp.result.agreement import found_again
from nmf_xp.result.explained import Seen

if TYPE_CHECKING:
    import os

    import numpy as np

    HostArray = np.ndarray[Any, Any]

NUMBERS = ("divergence", "objective", "kkt_residual", "n_iter")
NAMES = ("row_names", "column_names", "component_names")


def arrays_of(result: Any) -> dict[str, HostArray]:
    """The factors, the numbers and the names of a result of one matrix, on the host."""
    import numpy as np

    arrays = {name: transfer.to_host(transfer.computed(getattr(result, name))) for name in ("W", "H")}
    arrays["history"] = np.asarray(result.history)
    arrays |= {name: np.asarray(getattr(result, name)) for name in NUMBERS}
    if result.restarts is not None:
        arrays["restart_objectives"] = np.asarray(result.restarts.objective)
    again = found_again(result)
    if again is not None:
        arrays["restart_cosines"] = again
    for name in NAMES:
        labels = getattr(result, name)
        if labels is not None:
            arrays[name] = np.asarray(list(map(text, labels)), dtype=str)
    if result.batch_labels is not None:
        arrays["batch_labels"] = np.asarray(list(map(text, result.batch_labels)), dtype=str)
        arrays["batch_effects"] = np.stack([transfer.to_host(x) for x in result.batch_effects.values()])
        if result._batch_loadings is not None:
            arrays["batch_loadings"] = result._batch_loadings
    if result.weights_of_rows is not None:
        arrays["weights_of_rows"] = transfer.to_host(result.weights_of_rows)
    explained = explained_or_none(result)
    return arrays if explained is None else {**arrays, "explained": np.asarray(explained)}


def explained_or_none(result: Any) -> float | None:
    """How much of V is explained; None where that is not known, or would take another read of V from elsewhere."""
    if isinstance(result._seen, Seen) and kind_of(result._seen.V) is not Kind.WHOLE:
        return None
    try:
        explained = result.explained
    except (ValueError, MemoryError, RuntimeError):  # the last of torch and JAX: the factors are not lost for a number
        return None
    return explained if explained == explained else None


def texts_of(result: Any) -> dict[str, str]:
    """How it ended, and how it came about."""
    return {
        "status": result.status.name,
        "beta": str(result.beta),
        "solver": result.solver,
        **losses_of(result),
        "version": nmf_xp.__version__,
        "written": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def losses_of(result: Any) -> dict[str, str]:
    """The loss of a result, where it is more than a beta, as JSON by the name of its field."""
    losses = {"robust": result.robust, "noise": result.noise}
    return {name: json.dumps(vars(loss), default=_plain) for name, loss in losses.items() if loss is not None}


def _plain(x: Any) -> Any:
    """A number or an array for JSON."""
    return x.tolist() if libraries.is_array(x) else float(x)


def write(result: Any, path: str | os.PathLike[str]) -> None:
    """Write a result of one matrix to .npz or .safetensors; see `Result.save`."""
    path = Path(path)
    if path.suffix.lower() not in OUTPUTS:
        msg = f"`path` must end with {' or '.join(OUTPUTS)}, got {path.name!r}"
        raise ValueError(msg)
    _check_one(result)
    write_atomically(path, archive(path.suffix.lower(), arrays_of(result), texts_of(result)), replace=True)


def write_report(
    result: Any, path: str | os.PathLike[str], *, title: str | None, n_top: int, shape: tuple[int, int] | None
) -> None:
    """Write the page about a result of one matrix; see `Result.report`."""
    from nmf_xp.result import report

    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        msg = f"`path` must end with .html, got {path.name!r}"
        raise ValueError(msg)
    _check_one(result)
    stored = report.stored_from(arrays_of(result), texts_of(result))
    data = report.page(stored, title=title or path.stem, n_top=n_top, shape=shape).encode()
    write_atomically(path, lambda file: file.write(data), replace=True)


def _check_one(result: Any) -> None:
    if result.W.ndim != 2:
        msg = f"only one member of a stack, such as result[0], is written, got W of shape {tuple(result.W.shape)}"
        raise TypeError(msg)
