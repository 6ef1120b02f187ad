"""Arrays of JAX and torch in the host's memory are computed with by NumPy's kernels, and come back as their own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import L1, Progress, nmf, transform
from nmf_xp.arrays import kernels
from nmf_xp.arrays.transfer import to_host
from nmf_xp.run.hosted import natively

if TYPE_CHECKING:
    from collections.abc import Callable

jax = pytest.importorskip("jax", reason="jax is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
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
