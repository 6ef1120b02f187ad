"""Arrays of JAX and torch in the host's memory are computed with by NumPy's kernels, and come back as their own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse

from nmf_xp import L1, Progress, Robust, nmf, transform
from nmf_xp.arrays import kernels
from nmf_xp.arrays.transfer import to_host
from nmf_xp.run.hosted import natively

if TYPE_CHECKING:
    from collections.abc import Callable

jax = pytest.importorskip("jax", reason="jax is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
BCOO = pytest.importorskip("jax.experimental.sparse").BCOO
assert kernels.compiles(), "these tests need the kernels: install a C compiler or numba"

WAYS: dict[str, Callable[[Any], Any]] = {"jax": jax.numpy.asarray, "torch": torch.asarray}
V = np.random.default_rng(0).poisson(3.0, (60, 40)).astype(np.float32)
CASES: dict[str, dict[str, Any]] = {
    "newton": {"beta_loss": 1},
    "cd": {"beta_loss": 2},
    "mu": {"beta_loss": 1, "solver": "mu"},
    "mm": {"beta_loss": 0.5, "w": [L1(0.01)]},
    "restarts": {"beta_loss": 1, "n_restarts": 3},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_they_get_the_numbers_of_numpy_to_the_last_bit(case: str, way: str) -> None:
    options = {"random_state": 0, "max_iter": 30, **CASES[case]}
    before = WAYS[way](V)
    found, expected = nmf(before, 4, **options), nmf(V, 4, **options)
    for x, y in ((found.W, expected.W), (found.H, expected.H)):
        assert type(x) is type(before)
        assert x.dtype == before.dtype
        assert x.device == before.device
        np.testing.assert_array_equal(to_host(x), y)
    assert found.status is expected.status
    assert found.n_iter == expected.n_iter
    assert float(found.divergence) == pytest.approx(float(expected.divergence), rel=1e-6)
    np.testing.assert_array_equal(to_host(before), V)


def _sparse_torch(x: Any) -> Any:
    return torch.asarray(x.toarray()).to_sparse_csr()


WEIGHTS = np.random.default_rng(2).integers(0, 3, V.shape).astype(np.float32)
SPARSE = scipy.sparse.csr_array(np.where(V > 3, V, 0))
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "weights": (V, {"weights": WEIGHTS}),
    "missing": (np.where(WEIGHTS == 0, np.float32("nan"), V), {"missing": "nan"}),
    "exposure": (V, {"exposure": WEIGHTS + 1, "beta_loss": 1}),
    "robust": (V, {"beta_loss": Robust(1, scale=2.0)}),
    "sparse": (SPARSE, {"beta_loss": 1}),
    "sparse, all zeros absent": (SPARSE, {"beta_loss": 1, "absent": "missing"}),
    "sparse, weights of columns": (SPARSE, {"beta_loss": 0.5, "weights": WEIGHTS[:1] + 1}),
    "sparse and robust": (SPARSE, {"beta_loss": Robust(1, of="rows", scale=2.0)}),
    "batches": (V, {"beta_loss": 1, "batch": np.arange(len(V)) % 2, "solver": "newton"}),
    "a stack": (np.stack([V, V.T[::-1].reshape(V.shape)]), {"solver": "cd"}),
    "a large stack": (np.random.default_rng(4).poisson(2.0, (2, 500, 300)).astype(np.float32), {"beta_loss": 1}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernels", ["1", "0"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_every_kind_of_data_gets_the_numbers_of_numpy(
    kernels: str, kind: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NMF_XP_KERNELS", kernels)
    given, options = KINDS[kind]
    convert = WAYS[way]
    if scipy.sparse.issparse(given):
        there = _sparse_torch(given) if way == "torch" else BCOO.from_scipy_sparse(given)
    else:
        there = convert(given)
    arrays = {key: convert(x) if key in ("weights", "exposure") else x for key, x in options.items()}
    start = [
        np.random.default_rng(5).random((*given.shape[:-2], *shape))
        for shape in ((given.shape[-2], 4), (4, given.shape[-1]))
    ]
    W, H = (x.astype(np.float32) + np.float32(0.1) for x in start)
    few: dict[str, Any] = {"max_iter": 12, "tol": 0}
    found = nmf(there, 4, init=(convert(W), convert(H)), **few, **arrays)
    expected = nmf(given, 4, init=(W, H), **few, **options)
    for x, y in ((found.W, expected.W), (found.H, expected.H)):
        assert type(x) is type(convert(V))
        assert x.dtype == convert(V).dtype
        np.testing.assert_allclose(to_host(x), y, rtol=1e-4, atol=1e-6)
    assert float(np.sum(found.divergence)) == pytest.approx(float(np.sum(expected.divergence)), rel=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_their_own_operators_agree(way: str) -> None:
    """The same to rounding, by which a kernel would be found out."""
    options: dict[str, Any] = {"beta_loss": 1, "random_state": 0, "max_iter": 5, "tol": 0}
    with natively():
        own = nmf(WAYS[way](V), 4, **options)
    np.testing.assert_allclose(to_host(own.W), nmf(V, 4, **options).W, rtol=1e-3, atol=1e-4)
    assert (to_host(own.W) != nmf(V, 4, **options).W).any()


@pytest.mark.parametrize("way", WAYS)
def test_what_a_callback_sees_is_of_the_callers_library_and_its_own(way: str) -> None:
    seen: list[Progress] = []
    kind = type(WAYS[way](V))

    def look(progress: Progress) -> None:
        assert isinstance(progress.W, kind)
        assert isinstance(progress.H, kind)
        seen.append(progress)
        if way == "torch":
            progress.W[:] = -1.0

    found = nmf(WAYS[way](V), 4, beta_loss=1, random_state=0, max_iter=40, callback=look)
    assert seen
    np.testing.assert_array_equal(to_host(found.W), nmf(V, 4, beta_loss=1, random_state=0, max_iter=40).W)


@pytest.mark.parametrize("way", WAYS)
def test_transform_and_a_given_start(way: str) -> None:
    convert = WAYS[way]
    W, H = (np.random.default_rng(1).random(shape).astype(np.float32) + 0.1 for shape in ((60, 4), (4, 40)))
    found = transform(convert(V), convert(H), beta_loss=1)
    # The start is made of sums, which JAX adds in another order.
    np.testing.assert_allclose(to_host(found.W), transform(V, H, beta_loss=1).W, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(to_host(found.H), H)
    given = convert(W), convert(H)
    found = nmf(convert(V), 4, init=given, max_iter=5)
    np.testing.assert_array_equal(to_host(found.W), nmf(V, 4, init=(W, H), max_iter=5).W)
    np.testing.assert_array_equal(to_host(given[0]), W)


def test_what_is_traced_or_has_a_graph_is_left_to_its_library() -> None:
    traced = jax.jit(lambda V: nmf(V, 4, beta_loss=1, random_state=0, max_iter=5, tol=0).W)(jax.numpy.asarray(V))
    np.testing.assert_allclose(
        traced, nmf(V, 4, beta_loss=1, random_state=0, max_iter=5, tol=0).W, rtol=1e-3, atol=1e-4
    )
    asked = torch.asarray(V).requires_grad_()
    found = nmf(asked, 4, beta_loss=1, random_state=0, max_iter=5)
    assert not found.W.requires_grad
    assert asked.requires_grad


def test_jax_compiles_nothing_for_it(caplog: pytest.LogCaptureFixture) -> None:
    jax.clear_caches()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        nmf(jax.numpy.asarray(V), 3, beta_loss=1, random_state=0, max_iter=7)
    programs = [record.getMessage() for record in caplog.records if "Finished XLA compilation" in record.getMessage()]
    assert not [text for text in programs if "_steps" in text or "_objective" in text]


def test_natively_is_for_the_thread_that_asks_for_it() -> None:
    found: list[np.ndarray[Any, Any]] = []
    options: dict[str, Any] = {"beta_loss": 1, "random_state": 0, "max_iter": 5}

    def fit() -> None:
        found.append(to_host(nmf(torch.asarray(V), 4, **options).W))

    with natively():
        thread = threading.Thread(target=fit)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(found[0], nmf(V, 4, **options).W)
