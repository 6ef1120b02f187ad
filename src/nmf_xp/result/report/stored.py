"""What a file of factors holds, checked before anything is drawn from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.files import OUTPUTS, FileError, opened, read_archive

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.files import HostArray


class Stored(NamedTuple):
    """The factors of a file, and what else it holds; files of earlier versions hold less."""

    W: HostArray  # (m, r)
    H: HostArray  # (r, n)
    row_names: list[str] | None
    column_names: list[str] | None
    arrays: dict[str, HostArray]
    texts: dict[str, str]
    component_names: list[str] | None = None

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

    def said(self, name: str) -> dict[str, Any]:
        """The names and values of that text, which is JSON; empty where there is none."""
        try:
            found = json.loads(self.texts.get(name, "{}"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


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
    arrays, texts = dict(arrays), dict(texts)
    lacking = [name for name in ("W", "H") if name not in arrays] + [name for name in ("version",) if name not in texts]
    if lacking:
        msg = f"{path}: is no output of `nmf-xp fit`: it holds no {' and no '.join(lacking)}"
        raise FileError(msg)
    W, H = arrays.pop("W"), arrays.pop("H")
    reason = _damage(W, H)
    names = {}
    counts = {"row_names": W.shape[:1], "column_names": H.shape[1:], "component_names": H.shape[:1]}
    for name, count in counts.items():
        names[name] = _names(name, arrays, texts)
        found = names[name]
        if reason is None and found is not None and (len(found),) != count:
            reason = f"it has {len(found)} {name.replace('_', ' ')} for {count[0]}"
    if reason is not None:
        msg = f"{path}: is damaged: {reason}"
        raise FileError(msg)
    return Stored(W, H, names["row_names"], names["column_names"], arrays, texts, names["component_names"])


def _damage(W: HostArray, H: HostArray) -> str | None:
    """What is wrong with the factors."""
    import numpy as np

    if W.ndim != 2 or H.ndim != 2 or W.shape[1] != H.shape[0] or 0 in (*W.shape, *H.shape):
        return f"W and H have the shapes {W.shape} and {H.shape}"
    for name, factor in (("W", W), ("H", H)):
        if factor.dtype.kind != "f":
            return f"{name} has the dtype {factor.dtype}"
        if not np.isfinite(factor).all() or factor.min() < 0:
            return f"{name} has entries that are negative or not finite"
    return None


def _names(name: str, arrays: dict[str, HostArray], texts: dict[str, str]) -> list[str] | None:
    """Names of rows or columns: an array of text, or in .safetensors a text that is JSON."""
    if name in arrays:
        return [str(x) for x in arrays.pop(name).ravel()]
    return [str(x) for x in json.loads(texts.pop(name))] if name in texts else None
