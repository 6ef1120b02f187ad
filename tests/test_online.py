"""The online solver: one block of rows after the other."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import beta_divergence, nmf, transform
from nmf_xp.arrays import kernels
from nmf_xp.online import Smoothed, online_nmf, online_start, online_step
from tests.compiled import eagerly
from tests.problems import BETAS, BRANCHES, noisy

if TYPE_CHECKING:
    from nmf_xp.testing import Target


@eagerly
@pytest.mark.parametrize("beta", BRANCHES)
def test_it_comes_near_the_factorization_of_all_rows(target: Target, beta: float) -> None:
    """Every backend and loss, from a stream of which nothing is kept; at least 30 % of the way in nine blocks."""
    V, _, H = noisy(60, 12, 3)
    V = V + 0.1
    state = online_start(target.asarray(H, "float64"), beta_loss=beta)
    for _ in range(3):
        for start in range(0, 60, 20):
            block = target.asarray(V[start : start + 20], "float64")
            step = online_step(state, block, beta_loss=beta, memory=0.9, fresh_max_iter=10, fresh_tol=0)
            state = step.state
    assert tuple(step.W.shape) == (20, 3)
    assert target.to_numpy(step.change).shape == ()
    found = target.to_numpy(state.H)
    start_only, after = (loaded(V, H, beta) for H in (H, found))
    whole = nmf(V, 3, beta_loss=beta, random_state=0, max_iter=300).divergence
    assert after - whole < 0.7 * (start_only - whole)


def loaded(V: Any, H: Any, beta: float) -> float:
    return transform(V, H, beta_loss=beta, max_iter=200).divergence


@eagerly
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_passes_are_the_same_on_every_backend(target: Target, beta: float) -> None:
    V, W, H = noisy(31, 12, 3)
    options: dict[str, Any] = {"batch_size": 8, "max_iter": 3, "beta_loss": beta, "alpha_W": 0.01, "l1_ratio": 0.5}
    expected: Any = online_nmf(V, W, online_start(H, beta_loss=beta), **options)
    state = online_start(target.asarray(H, "float64"), beta_loss=beta)
    got = online_nmf(target.asarray(V, "float64"), target.asarray(W, "float64"), state, **options)
    assert got.steps == expected.steps == 12
    np.testing.assert_allclose(target.to_numpy(got.state.H), expected.state.H, rtol=1e-9)
    np.testing.assert_allclose(target.to_numpy(got.W), expected.W, rtol=1e-9)
    np.testing.assert_allclose(got.costs, expected.costs, rtol=1e-9)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("library", ["scipy", "torch", "jax"])
def test_sparse_is_as_dense(library: str, beta: float) -> None:
    V, W, H = noisy(30, 14, 3, zeros=True)
    if library == "scipy":
        sparse = pytest.importorskip("scipy.sparse").csr_array(V)
        asarray: Any = np.asarray
    elif library == "torch":
        torch = pytest.importorskip("torch")
        asarray = torch.asarray
        sparse = torch.asarray(V).to_sparse_coo()
    else:
        jax = pytest.importorskip("jax")
        asarray = jax.numpy.asarray
        sparse = pytest.importorskip("jax.experimental.sparse").BCOO.fromdense(V)
    options: dict[str, Any] = {"batch_size": 7, "max_iter": 2, "beta_loss": beta}
    dense: Any = online_nmf(V, W, online_start(H, beta_loss=beta), **options)
    got: Any = online_nmf(sparse, asarray(W), online_start(asarray(H), beta_loss=beta), **options)
    np.testing.assert_allclose(np.asarray(got.state.H), dense.state.H, rtol=1e-9)
    np.testing.assert_allclose(np.asarray(got.W), dense.W, rtol=1e-9)


@pytest.mark.parametrize("rule", ["majorizer", "scikit-learn"])
@pytest.mark.parametrize("options", [{}, {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.5}], ids=["free", "penalty"])
@pytest.mark.parametrize("W_is_known", [True, False])
def test_passes_by_products_are_those_of_the_model(
    rule: str, options: dict[str, Any], W_is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the Frobenius loss kernels never make WH; of a block without rows to see, and of many, all is the same."""
    V, W, H = noisy(31, 12, 3, zeros=True)
    V[:9], V[:, 3] = 0.0, 0.0
    settings: Any = {"batch_size": 9, "max_iter": 4, "fresh_max_iter": 3, "rule": rule, **options}
    monkeypatch.setattr(kernels, "LEAST", 0)
    ends: list[Any] = []
    for wanted in ("1", "0"):
        monkeypatch.setenv("NMF_XP_KERNELS", wanted)
        ends.append(online_nmf(V, W if W_is_known else None, online_start(H, rule=rule), **settings))
    for x, y in zip((ends[0].W, *ends[0].state[:4]), (ends[1].W, *ends[1].state[:4]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-100)
    np.testing.assert_allclose(ends[0].costs, ends[1].costs, rtol=1e-9)
    assert ends[0].steps == ends[1].steps
    assert ends[0].W.flags.c_contiguous


def test_a_run_that_ends_within_the_first_pass_has_a_w_for_all_rows() -> None:
    V, _, H = noisy(31, 12, 3)
    done: Any = online_nmf(V, None, online_start(H), batch_size=9, fresh_max_iter=200, callback=lambda *_: True)
    assert done.steps == 1
    exact = loaded(V, done.state.H, 2.0)
    assert float(beta_divergence(V, done.W, done.state.H)) < 1.1 * exact


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-5, 1e-3])
def test_the_cost_keeps_its_digits_near_an_exact_model(noise: float) -> None:
    """Of what products with V give, all digits are lost where V is WH; the residual has them."""
    rng = np.random.default_rng(0)
    W, H = rng.uniform(0.5, 1.0, (40, 3)), rng.uniform(0.5, 1.0, (3, 30))
    V = W @ H * (1.0 + noise * rng.random((40, 30)))
    step: Any = online_step(online_start(H), V, W)
    expected = float(beta_divergence(V, step.W, H)) / 40
    assert float(step.cost) == pytest.approx(expected, rel=1e-9, abs=1e-27)


def test_entries_without_weight_are_not_read() -> None:
    V, W, H = noisy(30, 12, 3)
    weights: Any = np.asarray(np.random.default_rng(0).random(V.shape) < 0.8, dtype=float)
    ends: list[Any] = [
        online_nmf(X, W, online_start(H, beta_loss=1), beta_loss=1, weights=weights, batch_size=7, max_iter=3).state.H
        for X in (V, np.where(weights > 0, V, 1e6))
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("penalty", [{}, {"alpha_W": 0.02, "alpha_H": 0.05, "l1_ratio": 0.3}], ids=["free", "penalty"])
def test_one_batch_that_forgets_all_is_a_multiplicative_update(beta: float, penalty: dict[str, Any]) -> None:
    """With a memory of 0 and all rows in one block, A / B is the multiplicative update of H."""
    V, W, H = noisy(20, 12, 3)
    step: Any = online_step(online_start(H, beta_loss=beta), V, W, beta_loss=beta, memory=0.0, **penalty)
    solver = "mu", {"polish": False}
    expected = nmf(V, 3, init=(W, H), beta_loss=beta, solver=solver, max_iter=1, tol=0, **penalty)
    np.testing.assert_allclose(step.W, expected.W, rtol=1e-10)
    np.testing.assert_allclose(step.state.H, expected.H, rtol=1e-10)
    if not penalty:
        cost = float(beta_divergence(V, step.W, H, beta_loss=beta)) / 20
        assert float(step.cost) == pytest.approx(cost, rel=1e-10)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("rule", ["majorizer", "scikit-learn"])
def test_a_tiny_penalty_changes_no_batch(beta: float, rule: str) -> None:
    V, W, H = noisy(20, 12, 3)
    options: dict[str, Any] = {"beta_loss": beta, "batch_size": 6, "max_iter": 5, "rule": rule}
    ends: list[Any] = [
        online_nmf(V, W, online_start(H, beta_loss=beta, rule=rule), alpha_W=alpha, **options) for alpha in (0.0, 1e-12)
    ]
    np.testing.assert_allclose(ends[1].state.H, ends[0].state.H, rtol=1e-9)
    np.testing.assert_allclose(ends[1].W, ends[0].W, rtol=1e-9)


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
def test_a_heavy_penalty_settles(beta: float) -> None:
    """Where a quadratic penalty is most of the objective, the slope in the denominator makes H swing for ever."""
    V, W, H = noisy(20, 12, 3)
    penalty: dict[str, Any] = {"alpha_W": 3.0, "alpha_H": 3.0}
    passes = {"batch_size": 10, "forget_factor": 0.1}
    ours = nmf(V, 3, init=(W, H), solver=("online", passes), beta_loss=beta, max_iter=100, tol=0, **penalty)
    whole = nmf(V, 3, init=(W, H), beta_loss=beta, max_iter=100, tol=0, **penalty)
    assert ours.objective == pytest.approx(whole.objective, rel=2e-3)


def test_a_column_that_no_entry_was_seen_of_stays_as_it_is() -> None:
    V, W, H = noisy(20, 12, 3)
    weights = np.ones(V.shape)
    weights[:, 4] = 0
    step: Any = online_step(online_start(H), V, W, weights=weights, memory=0.0)
    np.testing.assert_array_equal(step.state.H[:, 4], H[:, 4])
    assert (step.state.H != H)[:, :4].all()


def test_memory_does_not_grow_with_the_number_of_blocks() -> None:
    """The peak of 200 blocks is that of 10 and less than one block more: what else Python keeps is some 400 kB."""
    rng = np.random.default_rng(0)
    rows, columns = 200, 4000

    def peak(count: int) -> int:
        state = online_start(rng.uniform(0.5, 1.5, size=(4, columns)))
        tracemalloc.start()
        for _ in range(count):
            state = online_step(state, rng.uniform(size=(rows, columns)), fresh_max_iter=1).state
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(2)  # imports and caches
    few, many = peak(10), peak(200)
    assert many - few < rows * columns * 8


def test_the_rules_that_end_a_run() -> None:
    V, W, H = noisy(40, 12, 3)
    options: dict[str, Any] = {"batch_size": 10, "max_iter": 2000}
    by_change = online_nmf(V, W, online_start(H), tol=1e-3, max_no_improvement=None, forget_factor=1.0, **options)
    by_cost = online_nmf(V, W, online_start(H), tol=0, max_no_improvement=3, **options)
    by_user = online_nmf(V, W, online_start(H), callback=lambda *seen: seen[0] == 5, **options)
    assert by_change.ended
    assert by_cost.ended
    assert (by_user.ended, by_user.steps, len(by_user.costs)) == (True, 5, 5)
    by_count = online_nmf(V, W, online_start(H), tol=0, max_no_improvement=None, batch_size=10, max_iter=2)
    assert (by_count.ended, by_count.steps, by_count.costs) == (False, 8, ())


@pytest.mark.parametrize(("bad", "what"), [(-1.0, "negative"), (float("nan"), "NaN|missing"), (0.0, "observed")])
def test_bad_weights_of_a_block_are_refused(bad: float, what: str) -> None:
    V, _, H = noisy(8, 5, 2)
    weights = np.full(V.shape, bad)
    with pytest.raises(ValueError, match=f"`(weights|V)` .*({what})"):
        online_step(online_start(H), V, weights=weights)


def test_the_smoothed_cost() -> None:
    smoothed = Smoothed().seen(4.0, 0.5).seen(2.0, 0.5)
    assert smoothed == Smoothed(3.0, 3.0, 0)
    assert smoothed.seen(5.0, 0.5) == Smoothed(4.0, 3.0, 1)
    assert smoothed.seen(5.0, 7.0) == Smoothed(5.0, 3.0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 1.5}, "`memory` must be from 0 to 1"),
        ({"V": np.ones((4, 11))}, "`V` must have 12 columns"),
        ({"V": -np.ones((4, 12))}, "`V` must be non-negative"),
        ({"V": np.zeros((4, 12)), "beta_loss": 0.0}, "`V` must be positive"),
        ({"V": np.ones((4, 12), dtype=np.float32)}, "`H` must have the dtype"),
        ({"W": np.ones((4, 2))}, "`W` must have shape"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    V, _, H = noisy(4, 12, 3)
    options: dict[str, Any] = {"V": V, "W": None, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        online_step(online_start(H), options.pop("V"), options.pop("W"), **options)
