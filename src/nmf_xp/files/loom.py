"""Loom files, which hold genes in rows: the matrix that is given has the cells in rows."""

from __future__ import annotations

from typing import Any

from nmf_xp.data import stores
from nmf_xp.files.labels import labels
from nmf_xp.files.matrix import Matrix

GENES = ("Gene", "gene", "GeneName", "var_names", "Accession", "gene_ids")
CELLS = ("CellID", "cell_id", "obs_names", "CellId", "Barcode")
"""Attributes that name the rows and columns of the file, the first that there is."""
NOTE = "a loom file, turned: cells in rows, genes in columns"


def read_loom(root: Any, key: str | None) -> Matrix:
    """The matrix of a loom file, or a layer, with its names."""
    name = key or "matrix"
    name = name if name in root else f"layers/{name}"
    if name not in root:
        layers = stores.names_in(root["layers"]) if "layers" in root else []
        there = ["matrix"] * ("matrix" in root) + layers[: stores.LISTED]
        msg = f"it holds no {key or 'matrix'!r}, only {', '.join(there) or 'what is no loom file'}"
        raise ValueError(msg)
    stored = stores.read(root[name], transposed=True)
    cells, genes = stored.values.shape
    note = NOTE if name == "matrix" else f"{NOTE}, the layer {name.removeprefix('layers/')}"
    row_names = _names(root, "col_attrs", CELLS, cells)
    column_names = _names(root, "row_attrs", GENES, genes)
    return Matrix(stored.values, row_names, column_names, ", ".join(filter(None, (note, stored.note))))


def _names(root: Any, place: str, attributes: tuple[str, ...], length: int) -> list[str] | None:
    if place not in root or hasattr(root[place], "dtype"):
        return None
    group = root[place]
    name = next((name for name in attributes if name in group), None)
    return None if name is None else labels(group[name], length, f"{place}/{name}")
