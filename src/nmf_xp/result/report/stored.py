"""What a file of factors holds, checked before anything is drawn from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files import OUTPUTS, FileError, opened, read_archive

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.files import HostArray

LARGEST = 2.0**53  # of iterations and seconds, as far as they are counted


class Stored(NamedTuple):
    """The factors of a file, and what else it holds; files of earlier versions hold less."""

    W: HostArray  # (m, r)
    H: HostArray  # (r, n)
    row_names: list[str] | None
    column_names: list[str] | None
    arrays: dict[str, HostArray]
    texts: dict[str, str]
    component_names: list[str] | None = None
    batch_labels: list[str] | None = None
    batch_effects: HostArray | None = None  # (G, n)
    weights_of_rows: HostArray | None = None  # (m,)
    batch_loadings: HostArray | None = None  # (G, r): the sums of W over the rows of each batch

    def counted(self, name: str) -> float | None:
        """A number of that name, of iterations or seconds; None where there is none, or no such number."""
        found = self.number(name)
        return found if found is not None and 0 <= found < LARGEST else None

    def number(self, name: str) -> float | None:
        """A number of that name; None where there is none."""
        array = self.arrays.get(name)
        return None if array is None or array.size != 1 or array.dtype.kind not in "iuf" else float(array.item())

    def series(self, name: str) -> list[float]:
        """An array of one axis of that name; empty where there is none."""
        array = self.arrays.get(name)
        return [] if array is None or array.ndim != 1 or array.dtype.kind not in "iuf" else array.astype(float).tolist()

    def cells(self, name: str) -> HostArray | None:
        """A matrix of that name; None where there is none."""
        array = self.arrays.get(name)
        return array if array is not None and array.ndim == 2 and array.dtype.kind == "f" and array.size else None

    def said(self, name: str, *, plain: bool = True) -> dict[str, Any]:
        """The names and values of that text, which is JSON; empty where there is none; of `plain` ones no list."""
        try:
            found = json.loads(self.texts.get(name, "{}"))
        except (ValueError, RecursionError):
            return {}
        barred = dict | list if plain else dict
        return {k: v for k, v in found.items() if not isinstance(v, barred)} if isinstance(found, dict) else {}


def read_stored(path: Path) -> Stored:
    """Read an output of `nmf-xp fit`.

    Raises
    ------
    FileError
        The file cannot be read, is no such output, or holds factors that cannot be.
    """
    with opened(path, OUTPUTS):
        arrays, texts = read_archive(path)
    return stored_from(arrays, texts, path=path)


def stored_from(arrays: dict[str, HostArray], texts: dict[str, str], *, path: Path | str = "the result") -> Stored:
    """The same from arrays and texts, which are checked; `path` is where they are from."""
    try:
        return _checked(path, dict(arrays), dict(texts))
    except _DamageError as error:
        msg = f"{path}: is damaged: {error}"
        raise FileError(msg) from error


class _DamageError(Exception):
    """What is wrong with what a file holds."""


def _checked(path: Path | str, arrays: dict[str, HostArray], texts: dict[str, str]) -> Stored:
    """What was read, once it is known that all of it can be shown."""
    import numpy as np

    lacking = [name for name in ("W", "H") if name not in arrays] + [name for name in ("version",) if name not in texts]
    if lacking:
        msg = f"{path}: is no output of `nmf-xp fit`: it holds no {' and no '.join(lacking)}"
        raise FileError(msg)
    W, H = arrays.pop("W"), arrays.pop("H")
    _check_factors(W, H)
    names = {}
    trusted = arrays.pop("weights_of_rows", None)
    if trusted is not None and (trusted.shape != W.shape[:1] or trusted.dtype.kind != "f"):
        msg = f"the weights of the rows have the shape {trusted.shape} and the dtype {trusted.dtype}"
        raise _DamageError(msg)
    if trusted is not None and not ((trusted >= 0) & (trusted <= 1 + 1e-6)).all():
        msg = "the weights of the rows are not from 0 to 1"
        raise _DamageError(msg)
    effects, loadings = (arrays.pop(f"batch_{name}", None) for name in ("effects", "loadings"))
    for what, x, width in (("effects", effects, H.shape[1]), ("loadings", loadings, H.shape[0])):
        if x is None:
            continue
        if x.ndim != 2 or x.shape[1] != width or x.dtype.kind != "f" or effects is None or len(x) != len(effects):
            msg = f"the {what} of batches have the shape {x.shape} and the dtype {x.dtype}"
            raise _DamageError(msg)
        if not (np.isfinite(x).all() and (x >= 0).all()):
            msg = f"the {what} of batches are negative or not finite"
            raise _DamageError(msg)
    counts = {"row_names": W.shape[:1], "column_names": H.shape[1:], "component_names": H.shape[:1]}
    counts |= {} if effects is None else {"batch_labels": effects.shape[:1]}
    for name, count in counts.items():
        names[name] = found = _names(name, arrays, texts)
        if found is not None and (len(found),) != count:
            msg = f"it has {len(found)} {name.replace('_', ' ')} for {count[0]}"
            raise _DamageError(msg)
    if effects is not None and names["batch_labels"] is None:
        msg = "it has effects of batches, and no labels of them"
        raise _DamageError(msg)
    rows, columns, components = (names[name] for name in ("row_names", "column_names", "component_names"))
    labels = names.get("batch_labels")
    return Stored(W, H, rows, columns, arrays, texts, components, labels, effects, trusted, loadings)


def _check_factors(W: HostArray, H: HostArray) -> None:
    """Refuse factors that cannot be."""
    import numpy as np

    if W.ndim != 2 or H.ndim != 2 or W.shape[1] != H.shape[0] or 0 in (*W.shape, *H.shape):
        msg = f"W and H have the shapes {W.shape} and {H.shape}"
        raise _DamageError(msg)
    for name, factor in (("W", W), ("H", H)):
        if factor.dtype.kind != "f":
            msg = f"{name} has the dtype {factor.dtype}"
            raise _DamageError(msg)
        if not np.isfinite(factor).all() or factor.min() < 0:
            msg = f"{name} has entries that are negative or not finite"
            raise _DamageError(msg)


def _names(name: str, arrays: dict[str, HostArray], texts: dict[str, str]) -> list[str] | None:
    """Names of rows or columns: an array of text, or in .safetensors a text that is JSON."""
    if name in arrays:
        return [str(x) for x in arrays.pop(name).ravel()]
    if name not in texts:
        return None
    try:
        found = json.loads(texts.pop(name))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(x, str) for x in found):
        msg = f"its {name.replace('_', ' ')} are no list of names"
        raise _DamageError(msg)
    return found
