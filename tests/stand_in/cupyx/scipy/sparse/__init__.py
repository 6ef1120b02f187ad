"""Compressed rows and columns, and entries, as far as this project uses them; cupyx has more formats, and no others."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np
import scipy.sparse
from cupy._arrays import call


class spmatrix:  # noqa: N801 - the library's name
    """A sparse matrix by its entries and two arrays of integers."""

    format = ""
    host_class: Any

    def __init__(self, arg1: Any, shape: Any = None, dtype: Any = None, copy: bool = False) -> None:
        if isinstance(arg1, spmatrix):
            self._take(self._converted(arg1))
        elif isinstance(arg1, cupy.ndarray):
            int(cupy.count_nonzero(arg1))  # how many entries there are decides their shapes
            self._take(self._made(lambda x: self.host_class(x), arg1, shape=arg1.shape))
        elif scipy.sparse.issparse(arg1):
            host = arg1.asformat(self.format)
            self._set([cupy.array(x) for x in self._parts(host)], host.shape)
        elif isinstance(arg1, tuple) and len(arg1) == 3:
            if not all(isinstance(x, cupy.ndarray) and x.ndim == 1 for x in arg1):
                msg = "data, indices, and indptr must be 1-D cupy arrays"
                raise ValueError(msg)
            cupy.stack((arg1[2][0], arg1[2][-1])).get()  # CuPy looks whether they fit
            self._set(list(arg1), shape)
        elif isinstance(arg1, tuple) and len(arg1) == 2 and isinstance(arg1[1], tuple):
            self._take(self._made(lambda x, i, j: self.host_class((x, (i, j)), shape), arg1[0], *arg1[1], shape=shape))
        else:
            msg = f"Unsupported initializer format {type(arg1)}"
            raise TypeError(msg)
        if self.dtype.char not in "?fdFD":
            msg = "Only bool, float32, float64, complex64 and complex128 are supported"
            raise ValueError(msg)

    @staticmethod
    def _parts(host: Any) -> list[Any]:
        return [host.data, *((host.row, host.col) if host.format == "coo" else (host.indices, host.indptr))]

    def _set(self, parts: list[Any], shape: Any) -> None:
        self.parts, self.shape = parts, tuple(int(n) for n in shape)
        self._canonical: bool | None = None

    def _take(self, other: spmatrix) -> None:
        self._set(other.parts, other.shape)

    def _made(self, function: Any, *arrays: Any, shape: Any) -> Any:
        """A matrix of this format by SciPy's function of the arrays."""
        made = object.__new__(type(self))
        made._set(list(call(lambda *x: tuple(np.array(part) for part in self._parts(function(*x))), *arrays)), shape)
        return made

    def _of(self, parts: Any) -> Any:
        """SciPy's matrix of NumPy parts."""
        entries = (parts[0], (parts[1], parts[2])) if self.format == "coo" else tuple(parts)
        return self.host_class(entries, shape=self.shape)

    def _converted(self, other: spmatrix) -> Any:
        if other.format == self.format:
            return other
        return self._made(lambda *parts: other._of(parts).asformat(self.format), *other.parts, shape=other.shape)

    dtype = property(lambda self: self.parts[0].dtype)
    nnz = property(lambda self: self.parts[0].shape[0])
    device = property(lambda self: self.parts[0].device)
    ndim = 2

    @property
    def data(self) -> Any:
        """The entries, which may be exchanged."""
        return self.parts[0]

    @data.setter
    def data(self, entries: Any) -> None:
        self.parts = [entries, *self.parts[1:]]

    def __len__(self) -> int:
        msg = "sparse array length is ambiguous; use getnnz() or shape[0]"
        raise TypeError(msg)

    @property
    def has_canonical_format(self) -> bool:
        """Whether the entries are in order and none comes twice; read once, and kept."""
        if self._canonical is None:
            held = call(lambda *parts: np.asarray(bool(self._of(parts).has_canonical_format)), *self.parts)
            self._canonical = bool(held)
        return self._canonical

    @has_canonical_format.setter
    def has_canonical_format(self, known: bool) -> None:
        self._canonical = bool(known)

    def sum_duplicates(self) -> None:
        """Put them in order, in the place of those that are there."""
        if not self.has_canonical_format:
            self._take(self._made(lambda *parts: self._summed(parts), *self.parts, shape=self.shape))
            self._canonical = True

    def _summed(self, parts: Any) -> Any:
        host = self._of([np.array(part) for part in parts])
        host.sum_duplicates()
        return host

    def copy(self) -> Any:
        """The same entries in memory of their own."""
        return self._made(lambda *parts: self._of(parts).copy(), *self.parts, shape=self.shape)

    def sum(self) -> Any:
        """The sum of the entries."""
        return self.data.sum()

    def tocsr(self) -> csr_matrix:
        """Compressed rows."""
        return csr_matrix(self)

    def tocoo(self) -> coo_matrix:
        """Entries."""
        return coo_matrix(self)

    def toarray(self) -> Any:
        """All entries, with the zeros."""
        return call(lambda *parts: self._of(parts).toarray(), *self.parts)

    def get(self) -> Any:
        """SciPy's matrix."""
        return self._of([part.get() for part in self.parts])

    def __matmul__(self, other: Any) -> Any:
        if not isinstance(other, cupy.ndarray):
            return NotImplemented
        if other.dtype != self.dtype:
            msg = f"cuSPARSE multiplies one dtype, got {self.dtype} and {other.dtype}"
            raise TypeError(msg)
        self.sum_duplicates()
        return call(lambda x, *parts: np.asfortranarray(self._of(parts) @ x), other, *self.parts)

    __mul__ = __matmul__


class _Compressed(spmatrix):
    indices = property(lambda self: self.parts[1])
    indptr = property(lambda self: self.parts[2])

    @property
    def T(self) -> Any:
        """The transpose, of the same arrays."""
        turned = object.__new__(csc_matrix if self.format == "csr" else csr_matrix)
        turned._set(self.parts, self.shape[::-1])
        turned._canonical = self._canonical
        return turned


class csr_matrix(_Compressed):  # noqa: N801 - the library's name
    """Compressed rows."""

    format = "csr"
    host_class = scipy.sparse.csr_matrix


class csc_matrix(_Compressed):  # noqa: N801 - the library's name
    """Compressed columns."""

    format = "csc"
    host_class = scipy.sparse.csc_matrix


class coo_matrix(spmatrix):  # noqa: N801 - the library's name
    """Entries."""

    format = "coo"
    host_class = scipy.sparse.coo_matrix
    row = property(lambda self: self.parts[1])
    col = property(lambda self: self.parts[2])


def issparse(x: Any) -> bool:
    """Whether it is a sparse matrix."""
    return isinstance(x, spmatrix)
