"""Sparse arrays with places outside their shape, of every format: one error, not the end of the process."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import RowBlocks, beta_divergence, nmf, transform
from nmf_xp.data import sparse_places
from nmf_xp.online import online_start, online_step

if TYPE_CHECKING:
    from collections.abc import Callable

sparse = pytest.importorskip("scipy.sparse")
BIG = 10**8
V_META = sparse.csr_array((0, 0))
V = np.random.default_rng(0).poisson(0.8, (12, 10)).astype(float)


def _with(kind: str, **changed: Any) -> Any:
    """A SciPy array of V in which some of what it is made of was replaced, or has other numbers in some places."""
    made = sparse.bsr_array(V, blocksize=(2, 2)) if kind == "bsr" else getattr(sparse, f"{kind}_array")(V)
    for name, value in changed.items():
        if isinstance(value, dict):
            for place, number in value.items():
                getattr(made, name)[place] = number
        else:
            setattr(made, name, value(getattr(made, name)))
    return made


SCIPY: dict[str, Callable[[], Any]] = {
    "csr: a column beyond the last": lambda: _with("csr", indices={0: BIG}),
    "csr: the column after the last": lambda: _with("csr", indices={-1: 10}),
    "csr: a negative column": lambda: _with("csr", indices={0: -1}),
    "csr: starts that fall": lambda: _with("csr", indptr={3: BIG}),
    "csr: a negative start": lambda: _with("csr", indptr={1: -BIG}),
    "csr: a first start that is not 0": lambda: _with("csr", indptr={0: 1}),
    "csr: an end beyond the data": lambda: _with("csr", indptr={-1: BIG}),
    "csr: starts of fewer rows": lambda: _with("csr", indptr=lambda x: x[:-2]),
    "csr: starts of more rows": lambda: _with("csr", indptr=lambda x: np.append(x, x[-1])),
    "csr: fewer entries": lambda: _with("csr", data=lambda x: x[:3]),
    "csr: fewer columns": lambda: _with("csr", indices=lambda x: x[:3]),
    "csr: 64 bits that 32 wrap": lambda: _with("csr", indices=lambda x: x.astype("int64") + 2**32),
    "csr: columns of floats": lambda: _with("csr", indices=lambda x: x.astype(float)),
    "csc: a row beyond the last": lambda: _with("csc", indices={0: BIG}),
    "csc: starts that fall": lambda: _with("csc", indptr={2: BIG}),
    "bsr: a block beyond the last": lambda: _with("bsr", indices={0: BIG}),
    "bsr: starts that fall": lambda: _with("bsr", indptr={1: BIG}),
    "coo: a row beyond the last": lambda: _with("coo", row={0: BIG}),
    "coo: a negative column": lambda: _with("coo", col={0: -BIG}),
    "coo: fewer entries": lambda: _with("coo", data=lambda x: x[:2]),
    "coo: 64 bits that 32 wrap": lambda: _with("coo", coords=lambda x: (x[0].astype("int64") + 2**32, x[1])),
    "dia: a diagonal beyond the last": lambda: _with("dia", offsets={0: 2**31 - 1}),
    "dia: one far below": lambda: _with("dia", offsets={0: -(2**31)}),
    "dia: fewer diagonals": lambda: _with("dia", data=lambda x: x[:2]),
    "lil: a column beyond the last": lambda: _with("lil", rows={0: [BIG, *range(int((V[0] > 0).sum()) - 1)]}),
    "lil: more entries than columns": lambda: _with("lil", data={0: [1.0] * 10**6}),
}


def _torch(layout: str, **changed: dict[Any, int]) -> Callable[[], Any]:
    def make() -> Any:
        torch = pytest.importorskip("torch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dense = torch.asarray(V)
            made = dense.to_sparse_bsr((2, 2)) if layout == "bsr" else getattr(dense, f"to_sparse_{layout}")()
            for name, places in changed.items():
                for place, number in places.items():
                    getattr(made, name)()[place] = number
            return made

    return make


def _jax(kind: str, name: str, place: Any, number: int) -> Callable[[], Any]:
    def make() -> Any:
        jsparse = pytest.importorskip("jax.experimental.sparse")
        made = getattr(jsparse, kind).fromdense(importlib.import_module("jax.numpy").asarray(V))
        parts = {key: getattr(made, key) for key in ("data", "indices", "indptr") if hasattr(made, key)}
        parts[name] = parts[name].at[place].set(number)
        return getattr(jsparse, kind)(tuple(parts.values()), shape=made.shape)

    return make


OTHERS = {
    "torch coo: a row": _torch("coo", _indices={(0, 0): BIG}),
    "torch coo: a negative column": _torch("coo", _indices={(1, 0): -BIG}),
    "torch csr: a column": _torch("csr", col_indices={0: BIG}),
    "torch csr: starts": _torch("csr", crow_indices={2: BIG}),
    "torch csc: a row": _torch("csc", row_indices={0: BIG}),
    "torch bsr: a column": _torch("bsr", col_indices={0: BIG}),
    "jax BCOO: a row": _jax("BCOO", "indices", (0, 0), BIG),
    "jax BCOO: a negative column": _jax("BCOO", "indices", (0, 1), -3),
    "jax BCSR: a column": _jax("BCSR", "indices", 0, BIG),
    "jax BCSR: starts": _jax("BCSR", "indptr", 2, BIG),
}


@pytest.mark.parametrize("name", [*SCIPY, *OTHERS])
def test_places_outside_the_shape_are_one_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"^`V` must have .*, got "):
        nmf((SCIPY | OTHERS)[name](), 2, random_state=0, max_iter=2)


@pytest.mark.parametrize("name", SCIPY)
def test_so_they_are_wherever_sparse_data_come_in(name: str) -> None:
    W, H = np.ones((12, 2)), np.ones((2, 10))
    dask = pytest.importorskip("dask", reason="dask is not installed")
    pytest.importorskip("dask.array")
    estimator = pytest.importorskip("nmf_xp.sklearn", reason="scikit-learn is not installed").NMF(2, max_iter=2)
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for enter in (
        lambda x: nmf(RowBlocks([x]), 2, max_iter=2),
        lambda x: nmf(RowBlocks([x], like=torch.empty(0)), 2, max_iter=2),
        lambda x: transform(x, H),
        lambda x: beta_divergence(x, W, H),
        lambda x: online_step(online_start(H), x),
        lambda x: estimator.fit(x),
        lambda x: nmf(dask.array.from_delayed(dask.delayed(lambda: x)(), x.shape, meta=V_META), 2, max_iter=2),
    ):
        with pytest.raises((ValueError, TypeError), match=r"`V` must|Sparse|sparse"):
            enter(SCIPY[name]())


def test_what_fits_is_left_as_it_is() -> None:
    expected = nmf(V, 2, random_state=0, max_iter=5, solver="mm").W
    for kind in ("csr", "csc", "bsr", "coo", "dia", "lil", "dok"):
        for data in (_with(kind), RowBlocks([_with(kind)])):
            found = nmf(data, 2, random_state=0, max_iter=5, solver="mm")
            np.testing.assert_allclose(found.W, expected, rtol=1e-9)
    spare = _with("csr", data=lambda x: np.append(x, 7.0), indices=lambda x: np.append(x, 0).astype(x.dtype))
    np.testing.assert_allclose(nmf(spare, 2, random_state=0, max_iter=5, solver="mm").W, expected, rtol=1e-9)
    assert spare.data[-1] == 7


def test_what_jax_pads_is_no_place() -> None:
    jsparse = pytest.importorskip("jax.experimental.sparse", reason="jax is not installed")
    padded = jsparse.BCOO.fromdense(importlib.import_module("jax.numpy").asarray(V), nse=V.size)
    assert nmf(padded, 2, random_state=0, max_iter=2).n_iter == 2


def test_places_are_looked_at_once_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    check = sparse_places._check_range

    def counted(name: str, *args: Any) -> None:
        looked.append(name)
        check(name, *args)

    monkeypatch.setattr(sparse_places, "_check_range", counted)
    nmf(sparse.csr_array(V), 2, random_state=0, max_iter=60, tol=0)
    transform(sparse.csr_array(V), np.ones((2, 10)), max_iter=60, tol=0)
    assert looked == ["column"] * 2
