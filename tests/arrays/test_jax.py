"""What JAX promises and we must keep: jit, vmap, grad, no recompilation, 32 bits by default."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import Status
from nmf_xp.testing import oracle
from tests.problems import BETAS, BRANCHES, DTYPES, noisy, various

if TYPE_CHECKING:
    from collections.abc import Callable

jax = pytest.importorskip("jax")
jnp = jax.numpy

COMPILATION = "/jax/core/compile/backend_compile_duration"


@functools.cache
def told() -> list[str]:
    """The event of each compilation by XLA, from now on: JAX 0.8 has no public way to end its telling."""
    seen: list[str] = []

    def listen(event: str, _: float, **__: Any) -> None:
        if event == COMPILATION:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return seen


@pytest.fixture
def compilations() -> list[str]:
    """The event of each compilation by XLA in a test."""
    told().clear()
    return told()


def arrays(beta: float = 1.0, *, seed: int = 0, dtype: str = "float64") -> tuple[Any, ...]:
    return tuple(jnp.asarray(x, dtype=dtype) for x in noisy(7, 5, 3, seed=seed, zeros=beta > 0))


CALLS: dict[str, Callable[..., Any]] = {
    "beta_divergence": lambda V, W, H, beta: nmf_xp.beta_divergence(V, W, H, beta_loss=beta),
    "update_w": lambda V, W, H, beta: nmf_xp.update_w(V, W, H, beta_loss=beta),
    "update_h": lambda V, W, H, beta: nmf_xp.update_h(V, W, H, beta_loss=beta),
    "nmf": lambda V, _W, _H, beta: nmf_xp.nmf(V, 3, solver="mu", beta_loss=beta, random_state=0, tol=1e-3, max_iter=57),
    "nmf from a start": lambda V, W, H, beta: nmf_xp.nmf(
        V, 3, init=(W, H), solver="mu", beta_loss=beta, tol=0, max_iter=57
    ),
    "nmf with callback": lambda V, W, H, beta: nmf_xp.nmf(
        V, 3, init=(W, H), solver="mu", beta_loss=beta, callback=lambda _: None
    ),
    "transform": lambda V, _, H, beta: nmf_xp.transform(V, H, solver="mu", beta_loss=beta, tol=1e-3, max_iter=57),
}


@pytest.mark.parametrize("beta", [1.0, 3.0])
@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_with_the_same_shapes_compiles_nothing(name: str, beta: float, compilations: list[str]) -> None:
    jax.clear_caches()
    jax.block_until_ready(CALLS[name](*arrays(beta), beta))
    assert len(compilations) > 0  # the count does count
    other = arrays(beta, seed=1)
    compilations.clear()
    result = CALLS[name](*other, beta)
    jax.block_until_ready(result)
    assert not isinstance(result, nmf_xp.Result) or (result.divergence, result.kkt_residual, result.status)
    assert compilations == []


@pytest.mark.parametrize("name", ["beta_divergence", "update_w", "update_h"])
@pytest.mark.parametrize("beta", BRANCHES)
def test_the_functions_work_under_jit_and_vmap(name: str, beta: float) -> None:
    function = CALLS[name]
    eager = function(*arrays(beta), beta)
    compiled = jax.jit(lambda V, W, H: function(V, W, H, beta))(*arrays(beta))
    np.testing.assert_allclose(compiled, eager, rtol=1e-13)
    V, W, H = (jnp.asarray(x) for x in various(5, 4, 2, count=6, seed=0, zeros=beta > 0))
    stack = function(V, W, H, beta)
    mapped = jax.vmap(lambda V, W, H: function(V, W, H, beta))(V, W, H)
    np.testing.assert_allclose(mapped, stack, rtol=1e-12)
    many_starts = jax.vmap(lambda W: function(V[0], W, H[0], beta))(W)
    for i in range(6):
        np.testing.assert_allclose(many_starts[i], function(V[0], W[i], H[0], beta), rtol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_the_analytic_one(beta: float, dtype: str) -> None:
    given = arrays(beta, dtype=dtype)
    D = jax.jit(jax.grad(lambda V, W, H: nmf_xp.beta_divergence(V, W, H, beta_loss=beta), argnums=(1, 2)))
    exact = [np.asarray(x, dtype=np.float64) for x in given]
    Y = exact[1] @ exact[2]
    size = np.abs(Y ** (beta - 1)).max() + np.abs(exact[0] * Y ** (beta - 2)).max()
    for got, expected in zip(D(*given), oracle.gradient(exact[0], exact[1], exact[2], beta), strict=True):
        assert got.dtype == given[0].dtype
        np.testing.assert_allclose(got, expected, rtol=1e-10 if dtype == "float64" else 1e-4, atol=1e-6 * size)


@pytest.mark.parametrize("beta", BETAS)
def test_the_gradient_is_the_limit_of_differences(beta: float) -> None:
    """Forward and reverse mode, in all three arguments where V is positive."""
    from jax.test_util import check_grads

    V, W, H = (jnp.asarray(x) for x in noisy(4, 3, 2))
    check: Any = check_grads
    check(lambda *args: nmf_xp.beta_divergence(*args, beta_loss=beta), (V, W, H), order=1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [beta for beta in BETAS if beta > 0])
def test_the_gradient_is_finite_where_the_data_are_zero(beta: float) -> None:
    V = np.asarray([[0.0, 1.0, 1e-30], [0.0, 0.0, 1e30]])
    W, H = np.asarray([[0.5], [2.0]]), np.asarray([[1.0, 3.0, 1e-3]])
    gradient = jax.grad(lambda W, H: nmf_xp.beta_divergence(jnp.asarray(V), W, H, beta_loss=beta), argnums=(0, 1))
    for got, expected in zip(gradient(jnp.asarray(W), jnp.asarray(H)), oracle.gradient(V, W, H, beta), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize("beta", BRANCHES)
@pytest.mark.parametrize("tol", [0.0, 1e-3])
def test_a_factorization_inside_jit_is_that_outside(beta: float, tol: float) -> None:
    options: dict[str, Any] = {"solver": "mu", "beta_loss": beta, "tol": tol, "max_iter": 57, "check_every": 10}

    def run(V: Any, W: Any, H: Any) -> nmf_xp.Result:
        return nmf_xp.nmf(V, 3, init=(W, H), **options)

    assert_same(jax.jit(run)(*arrays(beta)), run(*arrays(beta)))


def test_a_random_start_inside_jit_is_that_outside() -> None:
    V = arrays()[0]
    assert_same(
        jax.jit(lambda V: nmf_xp.nmf(V, 3, solver="mu", beta_loss=1, random_state=4))(V),
        nmf_xp.nmf(V, 3, solver="mu", beta_loss=1, random_state=4),
    )


def test_integers_inside_jit_are_factorized_as_outside() -> None:
    V = jnp.asarray(np.random.default_rng(0).poisson(3.0, size=(7, 5)))
    assert_same(jax.jit(lambda V: nmf_xp.nmf(V, 2, random_state=0))(V), nmf_xp.nmf(V, 2, random_state=0))


def test_a_transformation_inside_jit_is_that_outside() -> None:
    V, _, H = arrays()
    assert_same(
        jax.jit(lambda V, H: nmf_xp.transform(V, H, solver="mu", beta_loss=1))(V, H),
        nmf_xp.transform(V, H, solver="mu", beta_loss=1),
    )


def assert_same(got: nmf_xp.Result, expected: nmf_xp.Result) -> None:
    np.testing.assert_allclose(np.asarray(got.W), np.asarray(expected.W), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(np.asarray(got.H), np.asarray(expected.H), rtol=1e-10, atol=1e-14)
    assert (got.n_iter, got.status, got.solver, got.beta) == (
        expected.n_iter,
        expected.status,
        expected.solver,
        expected.beta,
    )
    assert got.history == pytest.approx(expected.history, rel=1e-10)
    assert got.divergence == pytest.approx(expected.divergence, rel=1e-10)
    assert got.kkt_residual == pytest.approx(expected.kkt_residual, rel=1e-6, abs=1e-12)


def test_factorizations_under_vmap_end_each_for_itself() -> None:
    V, W, H = (jnp.asarray(x) for x in various(5, 4, 2, count=4, seed=2, zeros=True))

    def run(V: Any, W: Any, H: Any) -> nmf_xp.Result:
        return nmf_xp.nmf(V, 2, init=(W, H), solver="mu", beta_loss=1, tol=1e-3, max_iter=300)

    together: Any = jax.jit(jax.vmap(run))(V, W, H)
    alone = [run(V[i], W[i], H[i]) for i in range(4)]
    assert len({result.n_iter for result in alone}) > 1
    assert [int(n) for n in together.n_iter] == [result.n_iter for result in alone]
    assert [Status.of(getattr(status, "value", status)) for status in together.status] == [r.status for r in alone]
    for i, result in enumerate(alone):
        np.testing.assert_allclose(together.W[i], np.asarray(result.W), rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(together.divergence[i], result.divergence, rtol=1e-9, atol=1e-13)


def test_transformations_under_vmap_are_those_alone() -> None:
    V, _, H = (jnp.asarray(x) for x in various(5, 4, 2, count=4, seed=2, zeros=True))
    options: dict[str, Any] = {"solver": "mu", "beta_loss": 1, "tol": 0, "max_iter": 30}
    together = jax.vmap(lambda V, H: nmf_xp.transform(V, H, **options).W)(V, H)
    for i in range(4):
        np.testing.assert_allclose(together[i], np.asarray(nmf_xp.transform(V[i], H[i], **options).W), rtol=1e-10)


def test_the_updates_serve_a_loop_of_ones_own() -> None:
    V, W, H = arrays()

    def loop(W: Any, H: Any) -> Any:
        def step(_: Any, factors: Any) -> Any:
            W = nmf_xp.update_w(V, *factors, beta_loss=1)
            return W, nmf_xp.update_h(V, W, factors[1], beta_loss=1)

        return jax.lax.fori_loop(0, 50, step, (W, H))

    as_it_comes = "mu", {"polish": False}
    expected = nmf_xp.nmf(V, 3, init=(W, H), solver=as_it_comes, beta_loss=1, tol=0, max_iter=50)
    # The floors are others: that of a run follows the size of V.
    np.testing.assert_allclose(jax.jit(loop)(W, H)[0], np.asarray(expected.W), rtol=1e-12, atol=1e-130)


def test_products_are_in_full_precision_unless_the_user_chose_another() -> None:
    """On a GPU the default would be TF32 for float32."""
    V, W, H = (x.astype("float32") for x in arrays())
    functions: tuple[Any, ...] = (
        lambda V, W, H: nmf_xp.update_w(V, W, H, beta_loss=1),
        lambda V, W, H: nmf_xp.beta_divergence(V, W, H, beta_loss=1),
        lambda V, W, H: nmf_xp.nmf(V, 3, init=(W, H), beta_loss=1, max_iter=2, tol=0).W,
    )
    for function in functions:
        products = [line for line in jax.jit(function).lower(V, W, H).as_text().splitlines() if "dot_general" in line]
        assert products
        assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)
        with jax.default_matmul_precision("bfloat16"):
            assert "HIGHEST" not in jax.jit(function).lower(V, W, H).as_text()


def test_a_result_may_be_returned_by_a_compiled_function() -> None:
    result = jax.jit(lambda V, W, H: nmf_xp.nmf(V, 3, init=(W, H), tol=1e-3))(*arrays())
    leaves, structure = jax.tree_util.tree_flatten(result)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree_util.tree_unflatten(structure, leaves)
    assert (again.status, again.n_iter, again.divergence) == (result.status, result.n_iter, result.divergence)
    assert repr(again) == repr(result)


def test_what_needs_values_is_refused_inside_jit() -> None:
    V = arrays()[0]
    with pytest.raises(ValueError, match=r"^`init` must be 'random' or \(W, H\) in a compiled function, got 'nndsvda'"):
        jax.jit(lambda V: nmf_xp.nmf(V, 3, init="nndsvda"))(V)
    with pytest.raises(ValueError, match=r"^`callback` and `progress` must be left out in a compiled function"):
        jax.jit(lambda V: nmf_xp.nmf(V, 3, callback=lambda _: None))(V)


def test_without_x64_everything_is_float32_and_says_nothing() -> None:
    with jax.enable_x64(False):
        V, W, H = arrays(dtype="float32")
        results = [nmf_xp.nmf(V, 3, init=(W, H), solver="mu", beta_loss=1), nmf_xp.nmf(V > 0, 3, random_state=0)]
        results += [jax.jit(lambda V: nmf_xp.nmf(V, 3, random_state=0))(V), nmf_xp.nmf(V, 3, init="nndsvda")]
        for result in results:
            assert {str(x.dtype) for x in (result.W, result.H)} == {"float32"}
            assert np.isfinite(result.divergence)
        assert str(nmf_xp.beta_divergence(V, W, H).dtype) == "float32"
