"""The files of a run of cNMF: where each is, which command writes it, and how it is read and written."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from typing import TYPE_CHECKING, Any

from nmf_xp.data.sources import RowBlocks
from nmf_xp.files import FileError, opened, optional_module, read_matrix, write_atomically
from nmf_xp.scverse.cnmf import frames
from nmf_xp.scverse.cnmf.counts import Counts

if TYPE_CHECKING:
    from pathlib import Path

    from nmf_xp.scverse.cnmf.frames import Frame

INNER = "cnmf_tmp"
WRITTEN = {
    "nmf_params.df.npz": "prepare",
    "nmf_idvrun_params.yaml": "prepare",
    "norm_counts.h5ad": "prepare",
    "tpm.h5ad": "prepare",
    "tpm_stats.df.npz": "prepare",
    "spectra.k_{k}.iter_{i}.df.npz": "factorize",
    "spectra.k_{k}.merged.df.npz": "combine",
    "local_density_cache.k_{k}.merged.df.npz": "consensus",
}
"""What other commands need, in the inner folder, and the command that writes it."""
GENES = "overdispersed_genes.txt"
LOSSES, INITS, SOLVERS = ("frobenius", "kullback-leibler", "itakura-saito"), ("random", "nndsvd"), ("cd", "mu")
OPTIONS: dict[str, tuple[str, ...] | None] = {
    "alpha_H": None,
    "alpha_W": None,
    "beta_loss": LOSSES,
    "init": INITS,
    "l1_ratio": None,
    "max_iter": None,
    "solver": SOLVERS,
    "tol": None,
}
"""What cNMF tells scikit-learn, and the words that it may be; None for a number."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclasses.dataclass(frozen=True)
class Folder:
    """A run, by the folder it is in and its name, which all its files bear."""

    place: Path
    name: str

    def __post_init__(self) -> None:
        if not self.name or self.name in (".", "..") or re.search(r"[/\\\0]", self.name):
            msg = f"`name` must be the name of a folder, got {self.name!r}"
            raise ValueError(msg)

    def make(self) -> None:
        """The folders, where they are not there yet."""
        inner = self.place / self.name / INNER
        try:
            inner.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"{inner}: cannot be made: {error.strerror or error}"
            raise FileError(msg) from error

    def inner(self, what: str, **numbers: Any) -> Path:
        """The path of a file that commands hand on."""
        return self.place / self.name / INNER / f"{self.name}.{what.format(**numbers)}"

    def outer(self, what: str) -> Path:
        """The path of a file for people."""
        return self.place / self.name / f"{self.name}.{what}"

    def _found(self, what: str, **numbers: Any) -> Path:
        """The path of a file that must be there."""
        path = self.inner(what, **numbers)
        if not path.exists():
            msg = f"{path}: no such file; `nmf-xp cnmf {WRITTEN[what]}` writes it"
            raise FileError(msg)
        return path

    def frame(self, what: str, *, columns: tuple[str, ...] = (), **numbers: Any) -> Frame:
        """A table."""
        return frames.read_frame(self._found(what, **numbers), columns=columns)

    def write(self, what: str, frame: Frame, *, text: str | None = None, **numbers: Any) -> None:
        """A table, and where a name of it is given also as text for people."""
        frames.write_frame(self.inner(what, **numbers), frame)
        if text is not None:
            frames.write_text(self.outer(text), frame)

    def counts(self, what: str) -> Counts:
        """A matrix with names."""
        path = self._found(what)
        matrix = read_matrix(path)
        if isinstance(matrix.values, RowBlocks):
            msg = f"{path}: does not fit in memory"
            raise FileError(msg)
        if matrix.row_names is None or matrix.column_names is None:
            msg = f"{path}: must have names of cells and genes"
            raise FileError(msg)
        values = matrix.values.tocsr() if hasattr(matrix.values, "format") else matrix.values
        return Counts(values, matrix.row_names, matrix.column_names)

    def write_counts(self, what: str, counts: Counts) -> None:
        """The same as AnnData."""
        h5py = optional_module("h5py", "files")
        path = self.inner(what)

        def write(file: Any) -> None:
            with tempfile.TemporaryFile(dir=path.parent) as whole:  # HDF5 goes back and forth in its file
                with h5py.File(whole, "w") as store:
                    _store(h5py, store, counts)
                whole.seek(0)
                while piece := whole.read(2**24):
                    file.write(piece)

        write_atomically(path, write)

    @property
    def genes(self) -> list[str]:
        """The highly variable genes."""
        path = self.outer(GENES)
        if not path.exists():
            msg = f"{path}: no such file; `nmf-xp cnmf prepare` writes it"
            raise FileError(msg)
        with opened(path, (".txt",)):
            return path.read_text(encoding="utf-8").split("\n")

    def write_genes(self, genes: list[str]) -> None:
        """Likewise, one a line."""
        write_atomically(self.outer(GENES), lambda file: file.write("\n".join(genes).encode()))

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of scikit-learn's `non_negative_factorization`, of which YAML here is a line for each."""
        path, found = self._found("nmf_idvrun_params.yaml"), {}
        with opened(path, (".yaml",)):
            for line in filter(str.strip, path.read_text(encoding="utf-8").splitlines()):
                name, colon, text = (part.strip() for part in line.partition(":"))
                if not colon or name not in OPTIONS:
                    msg = f"{path}: must hold {', '.join(OPTIONS)}, one a line, got {line!r}"
                    raise FileError(msg)
                found[name] = _value(text)
            for name, possible in OPTIONS.items():
                value = found.get(name)
                if not (value in possible if isinstance(possible, tuple) else type(value) in (int, float)):
                    said = f"one of {', '.join(possible)}" if isinstance(possible, tuple) else "a number"
                    msg = f"{path}: {name} must be {said}, got {value!r}"
                    raise FileError(msg)
        return found

    def write_options(self, options: dict[str, Any]) -> None:
        """Likewise."""
        lines = "".join(f"{name}: {_text(options[name])}\n" for name in OPTIONS)
        write_atomically(self.inner("nmf_idvrun_params.yaml"), lambda file: file.write(lines.encode()))


def _value(text: str) -> Any:
    """A plain value of YAML: a number, nothing or text."""
    if text in ("", "~", "null"):
        return None
    if NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    return text.strip("'\"")


def _text(value: Any) -> str:
    """The same as YAML has it, where 1e-05 without a point would be text."""
    text = "null" if value is None else str(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "e" in text and "." not in text else text


def _store(h5py: Any, store: Any, counts: Counts) -> None:
    """AnnData's format 0.1.0."""
    import numpy as np

    store.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    for side, names in (("obs", counts.cells), ("var", counts.genes)):
        group = store.create_group(side)
        group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
        group.attrs["column-order"] = np.zeros(0)
        written = group.create_dataset("_index", data=names, dtype=h5py.string_dtype())
        written.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    values = counts.values
    if not hasattr(values, "indptr"):
        dense = store.create_dataset("X", data=values)
        dense.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return
    group = store.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": values.shape})
    for part in ("data", "indices", "indptr"):
        group.create_dataset(part, data=getattr(values, part))
