"""Where a run starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp.data import Dense
from nmf_xp.problem.starts import INITS, start
from nmf_xp.testing import Backend, Target
from tests.compiled import eagerly
from tests.problems import DTYPES, noisy


def start_of(target: Target, V: Any, r: int, init: str, seed: Any = 0, dtype: str = "float64") -> tuple[Any, Any]:
    data = Dense(target.asarray(V, dtype))
    W, H = start(data, r, init=init, random_state=seed, members=None, xp=target.xp)
    return target.to_numpy(W), target.to_numpy(H)


@eagerly
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_a_random_start_has_the_sum_of_the_data(target: Target, scale: float, dtype: str) -> None:
    V = scale * noisy(9, 7, 3, zeros=True).V
    W, H = start_of(target, V, 4, "random", dtype=dtype)
    assert (W @ H).sum() == pytest.approx(V.sum(), rel=20 * float(np.finfo(dtype).eps))
    assert min(W.min(), H.min()) > 0
    assert W.max() / W.min() < 11.01
    assert len(np.unique(W)) == W.size


@eagerly
@pytest.mark.parametrize("init", INITS)
def test_a_seed_gives_the_same_start_on_every_backend(target: Target, init: str) -> None:
    V = noisy(9, 7, 3).V
    expected = start_of(Backend.NUMPY.target(), V, 3, init, seed=7)
    for got, wanted in zip(start_of(target, V, 3, init, seed=7), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


@eagerly
def test_the_start_in_float32_is_that_in_float64_rounded(target: Target) -> None:
    V = noisy(9, 7, 3).V
    single, double = (start_of(target, V, 3, "random", dtype=dtype) for dtype in DTYPES)
    for x, y in zip(single, double, strict=True):
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize("init", ["random", "nndsvdar"])
def test_what_a_random_state_may_be(init: str) -> None:
    """An integer, a Generator or a RandomState, each reproducible; a generator moves on; None differs every time."""
    V = noisy(9, 7, 3).V

    def run(random_state: Any) -> Any:
        return np.asarray(nmf_xp.nmf(V, 3, init=init, random_state=random_state, max_iter=2).W)

    np.testing.assert_array_equal(run(3), run(3))
    np.testing.assert_array_equal(run(3), run(np.int64(3)))
    np.testing.assert_array_equal(run(3), run(np.random.default_rng(3)))
    np.testing.assert_array_equal(run(np.random.RandomState(3)), run(np.random.RandomState(3)))
    generator = np.random.default_rng(3)
    assert not np.array_equal(run(generator), run(generator))
    assert not np.array_equal(run(3), run(4))
    assert not np.array_equal(run(None), run(None))


@eagerly
@pytest.mark.parametrize("init", INITS)
def test_a_run_from_each_start_decreases_the_divergence(target: Target, init: str) -> None:
    result = nmf_xp.nmf(
        target.asarray(noisy(9, 7, 3, zeros=True).V), 3, solver="mu", beta_loss=1, init=init, random_state=0
    )
    assert np.all(np.isfinite(target.to_numpy(result.W)))
    assert result.divergence < 0.9 * result.history[0]


@pytest.fixture(scope="module")
def digits() -> Any:
    return pytest.importorskip("sklearn.datasets").load_digits().data


@pytest.mark.parametrize("init", ["nndsvd", "nndsvda", "nndsvdar"])
@pytest.mark.parametrize("rank", [1, 6])
def test_nndsvd_is_that_of_scikit_learn(digits: Any, init: str, rank: int) -> None:
    """On real data, where the decomposition is well conditioned, but for the entries that are filled."""
    theirs = pytest.importorskip("sklearn.decomposition._nmf")._initialize_nmf(digits, rank, init="nndsvd")
    for x, y in zip(start_of(Backend.NUMPY.target(), digits, rank, init), theirs, strict=True):
        kept = (y > 1e-3) | (init == "nndsvd")
        assert kept.mean() > 0.2
        np.testing.assert_allclose(x[kept], y[kept], rtol=1e-3, atol=1e-3)


@eagerly
def test_nndsvd_of_a_matrix_of_low_rank_is_close_to_it(target: Target) -> None:
    """A non-negative matrix of rank 1 is its own start."""
    rng = np.random.default_rng(0)
    V = rng.uniform(0.1, 1.0, size=(9, 1)) @ rng.uniform(0.1, 1.0, size=(1, 7))
    W, H = start_of(target, V, 1, "nndsvd")
    np.testing.assert_allclose(W @ H, V, rtol=1e-12)


@eagerly
@pytest.mark.parametrize("init", ["nndsvd", "nndsvda", "nndsvdar"])
def test_nndsvd_fills_its_zeros_as_its_name_says(target: Target, init: str) -> None:
    V = noisy(9, 7, 3).V
    kept = [x > 0 for x in start_of(target, V, 3, "nndsvd")]
    assert not all(mask.all() for mask in kept)
    for x, mask in zip(start_of(target, V, 3, init), kept, strict=True):
        filled = x[~mask]
        if init == "nndsvd":
            np.testing.assert_array_equal(filled, 0.0)
        elif init == "nndsvda":
            np.testing.assert_allclose(filled, np.sqrt(V.mean() / 3), rtol=1e-12)
        else:
            assert np.all((filled > 0) & (filled < 0.06 * np.sqrt(V.mean() / 3)))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("k", [-30, -3, 7, 40])
def test_a_start_is_the_same_in_other_units(init: str, k: int) -> None:
    """V times 4^k has the start times 2^k, to the last bit."""
    V = noisy(9, 7, 3, zeros=True).V
    plain, scaled = (start_of(Backend.NUMPY.target(), x, 3, init, seed=7) for x in (V, V * 4.0**k))
    for x, y in zip(plain, scaled, strict=True):
        np.testing.assert_array_equal(y, x * 2.0**k)


def test_a_start_given_as_a_list_is_that_given_as_a_tuple() -> None:
    V, W, H = noisy(7, 5, 3)
    as_tuple: Any = nmf_xp.nmf(V, 3, init=(W, H))
    as_list: Any = nmf_xp.nmf(V, 3, init=[W, H])  # type: ignore[arg-type]
    np.testing.assert_array_equal(as_list.W, as_tuple.W)


@eagerly
def test_zeros_of_a_given_start_are_raised_to_the_floor(target: Target) -> None:
    V, W, H = noisy(7, 5, 3)
    W[2], H[:, 1] = 0.0, 0.0
    given = [target.asarray(x) for x in (V, W, H)]
    result = nmf_xp.nmf(given[0], 3, init=(given[1], given[2]), max_iter=200, solver="mu", beta_loss=1)
    assert np.all(np.isfinite(target.to_numpy(result.W)))
    assert result.divergence < 10.0
    np.testing.assert_array_equal(target.to_numpy(given[1]), W)
