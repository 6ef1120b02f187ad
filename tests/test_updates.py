"""The multiplicative updates: what they compute, and what holds for every problem."""

from __future__ import annotations

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import nmf_xp
from nmf_xp.arrays import kernels
from nmf_xp.testing import Target, oracle
from nmf_xp.updates import factor_floor, power_parts
from tests import compiled
from tests.problems import BETAS, BRANCHES, DTYPES, Factorization, Matrix, noisy, various

SHAPES = ((1, 1, 1), (5, 3, 2), (3, 4, 6))  # (m, n, r): a number; ordinary; more components than the data have
STACKS = ((1, 6, 1), (5, 4, 2), (3, 3, 3), (4, 3, 7))
STACK = 52  # of each of them: 208 problems for each backend, dtype and beta
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


@st.composite
def problems(draw: st.DrawFn, *, zeros: bool) -> Factorization:
    """V from 0 or 1e-3 to 1e3, and positive factors of a size with it."""
    m, n, r = draw(st.sampled_from(SHAPES))
    positive = st.floats(0.0009765625, 1024.0, width=32)
    entries = st.just(0.0) | positive if zeros else positive
    V = draw(arrays(np.float64, (m, n), elements=entries))
    W, H = (draw(arrays(np.float64, shape, elements=st.floats(0.03125, 32.0, width=32))) for shape in ((m, r), (r, n)))
    return Factorization(V, W, H)


def problem_and_beta() -> st.SearchStrategy[tuple[Factorization, float]]:
    return st.one_of(
        st.tuples(problems(zeros=True), st.sampled_from([beta for beta in BETAS if beta > 0])),
        st.tuples(problems(zeros=False), st.sampled_from([beta for beta in BETAS if beta <= 0])),
    )


def on(target: Target, problem: Factorization, dtype: str) -> tuple[tuple[Any, ...], Factorization]:
    """The problem as arrays of the target, and with the values that they hold."""
    on_target = tuple(target.asarray(x, dtype) for x in problem)
    return on_target, Factorization(*(x.astype(dtype).astype(np.float64) for x in problem))


def floor_of(target: Target, dtype: str, beta: float) -> float:
    return factor_floor(getattr(target.xp, dtype), beta=beta, xp=target.xp)


def distance(x: Matrix, y: Matrix) -> float:
    """The relative distance in norm."""
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_fifty_iterations_agree_with_the_oracle(target: Target, beta: float, dtype: str) -> None:
    (V, W, H), expected = on(target, noisy(4, 9, 2, zeros=beta > 0), dtype)
    for _ in range(50):
        W = compiled.update_w(target, beta)(V, W, H)
        H = compiled.update_h(target, beta)(V, W, H)
    W_expected, H_expected = oracle.factorize(*expected, beta, 50, floor_of(target, dtype, beta))
    assert distance(target.to_numpy(W), W_expected) <= TOLERANCE[dtype]
    assert distance(target.to_numpy(H), H_expected) <= TOLERANCE[dtype]
    D, D_expected = (
        compiled.divergence(target, beta)(V, W, H),
        oracle.divergence(expected.V, W_expected, H_expected, beta),
    )
    assert float(D) == pytest.approx(D_expected, rel=TOLERANCE[dtype])


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_update_raises_the_divergence(target: Target, beta: float, dtype: str) -> None:
    eps = float(np.finfo(dtype).eps)
    for seed, shape in enumerate(STACKS):
        problem = various(*shape, count=STACK, seed=seed, zeros=beta > 0)
        floor = floor_of(target, dtype, beta)
        (V, W, H), exact = on(
            target, problem._replace(W=np.maximum(problem.W, floor), H=np.maximum(problem.H, floor)), dtype
        )
        previous = measured(exact, beta)
        for iteration in range(10):
            for rule in (compiled.update_w, compiled.update_h):
                new = rule(target, beta)(V, W, H)
                W, H = (new, H) if rule is compiled.update_w else (W, new)
                exact = exact._replace(W=float64(target, W), H=float64(target, H))
                current = measured(exact, beta)
                rose = current - previous > oracle.rounding_bound(*exact, beta, eps)
                assert not np.any(rose), (rule.__name__, shape, iteration, np.flatnonzero(rose))
                previous = current


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
def test_the_rounding_bound_catches_a_stale_model(beta: float) -> None:
    V, W, H = noisy(7, 5, 3)
    H *= 0.1
    W_new, H_new = oracle.update_w(V, W, H, beta), oracle.update_h(V, W, H, beta)  # H's update should have had W_new
    rise = oracle.divergence(V, W_new, H_new, beta) - oracle.divergence(V, W, H, beta)
    assert rise > oracle.rounding_bound(V, W_new, H_new, beta, float(np.finfo(np.float32).eps))


@hypothesis.given(case=problem_and_beta(), dtype=st.sampled_from(DTYPES))
def test_an_update_keeps_kind_sign_and_inputs(target: Target, case: tuple[Factorization, float], dtype: str) -> None:
    problem, beta = case
    given, exact = on(target, problem, dtype)
    for rule, old in ((compiled.update_w, given[1]), (compiled.update_h, given[2])):
        new = rule(target, beta)(*given)
        assert_same_kind(new, old)
        values = target.to_numpy(new)
        assert np.all(np.isfinite(values))
        assert np.all(values > 0)
    for x, before in zip(given, exact, strict=True):
        np.testing.assert_array_equal(float64(target, x), before)


@hypothesis.given(case=problem_and_beta())
def test_an_update_uses_exactly_the_factors_that_it_is_given(target: Target, case: tuple[Factorization, float]) -> None:
    problem, beta = case
    (V, W, H), exact = on(target, problem, "float64")
    floor = floor_of(target, "float64", beta)
    new_W = compiled.update_w(target, beta)(V, W, H)
    np.testing.assert_allclose(target.to_numpy(new_W), oracle.update_w(*exact, beta, floor), rtol=1e-12)
    new_H = compiled.update_h(target, beta)(V, new_W, H)  # WH is no longer what it was
    expected = oracle.update_h(exact.V, target.to_numpy(new_W), exact.H, beta, floor)
    np.testing.assert_allclose(target.to_numpy(new_H), expected, rtol=1e-12)


@hypothesis.given(case=problem_and_beta(), exponent=st.integers(-12, 12), dtype=st.sampled_from(DTYPES))
def test_an_update_is_scale_equivariant(
    target: Target, case: tuple[Factorization, float], exponent: int, dtype: str
) -> None:
    problem, beta = case
    scale = 2.0**exponent
    (V, W, H), _ = on(target, problem, dtype)
    floor, rtol = floor_of(target, dtype, beta), 200 * float(np.finfo(dtype).eps)
    hypothesis.assume(min(1.0, scale) * min(problem.W.min(), problem.H.min()) > floor)
    plain = float64(target, compiled.update_w(target, beta)(V, W, H))
    scaled = float64(target, compiled.update_w(target, beta)(V * scale, W * scale, H))
    np.testing.assert_allclose(scaled, scale * plain, rtol=rtol, atol=floor * max(1.0, scale))
    plain = float64(target, compiled.update_h(target, beta)(V, W, H))
    scaled = float64(target, compiled.update_h(target, beta)(V * scale, W, H * scale))
    np.testing.assert_allclose(scaled, scale * plain, rtol=rtol, atol=floor * max(1.0, scale))


@hypothesis.given(case=problem_and_beta(), dtype=st.sampled_from(DTYPES))
def test_the_update_of_h_is_that_of_w_transposed(target: Target, case: tuple[Factorization, float], dtype: str) -> None:
    problem, beta = case
    (V, W, H), _ = on(target, problem, dtype)
    transpose = target.xp.matrix_transpose
    turned = compiled.update_w(target, beta)(transpose(V), transpose(H), transpose(W))
    np.testing.assert_allclose(
        target.to_numpy(compiled.update_h(target, beta)(V, W, H)),
        target.to_numpy(turned).T,
        rtol=100 * float(np.finfo(dtype).eps),
    )


@pytest.mark.parametrize("beta", BRANCHES)
def test_a_member_of_a_stack_is_updated_as_if_alone(target: Target, beta: float) -> None:
    problem = various(5, 4, 2, count=6, seed=3, zeros=beta > 0)
    (V, W, H), _ = on(target, Factorization(*(x.reshape(2, 3, *x.shape[1:]) for x in problem)), "float64")
    for rule in (compiled.update_w, compiled.update_h, compiled.divergence):
        together = target.to_numpy(rule(target, beta)(V, W, H)).reshape(6, -1)
        for i in range(6):
            member, _ = on(target, Factorization(*(x[i] for x in problem)), "float64")
            alone = target.to_numpy(rule(target, beta)(*member)).reshape(-1)
            np.testing.assert_allclose(together[i], alone, rtol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_exact_model_is_a_fixed_point(target: Target, beta: float, dtype: str) -> None:
    problem = noisy(7, 5, 3)
    (_, W, H), exact = on(target, problem, dtype)
    V = target.asarray(exact.W @ exact.H, dtype)
    rtol = 50 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(float64(target, compiled.update_w(target, beta)(V, W, H)), exact.W, rtol=rtol)
    np.testing.assert_allclose(float64(target, compiled.update_h(target, beta)(V, W, H)), exact.H, rtol=rtol)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_update_needs_no_values(any_target: Target, beta: float, dtype: str) -> None:
    problem = noisy(7, 5, 3, zeros=beta > 0)
    V, W, H = (any_target.asarray(x, dtype) for x in problem)
    assert_same_kind(compiled.update_w(any_target, beta)(V, W, H), W)
    assert_same_kind(compiled.update_h(any_target, beta)(V, W, H), H)
    D = compiled.divergence(any_target, beta)(V, W, H)
    assert (D.shape, device(D)) == ((), device(V))


@pytest.mark.parametrize("beta", [beta for beta in BETAS if beta > 0])
def test_zeros_of_the_data_and_of_the_factors_are_ordinary(target: Target, beta: float) -> None:
    V, W, H = noisy(7, 5, 3, zeros=True)
    V[0], W[1], H[:, 2], V[:, 4] = 0, 0, 0, 0
    given, _ = on(target, Factorization(V, W, H), "float64")
    for rule in (compiled.update_w, compiled.update_h):
        new = target.to_numpy(rule(target, beta)(*given))
        assert np.all(np.isfinite(new))
        assert np.all(new >= floor_of(target, "float64", beta))


@pytest.mark.parametrize(("name", "beta"), [("frobenius", 2.0), ("kullback-leibler", 1.0), ("itakura-saito", 0.0)])
def test_names_of_losses_stand_for_their_beta(name: str, beta: float) -> None:
    V, W, H = noisy(7, 5, 3)
    np.testing.assert_array_equal(nmf_xp.update_w(V, W, H, beta_loss=name), nmf_xp.update_w(V, W, H, beta_loss=beta))
    np.testing.assert_array_equal(nmf_xp.update_h(V, W, H, beta_loss=name), nmf_xp.update_h(V, W, H, beta_loss=beta))
    assert nmf_xp.beta_divergence(V, W, H, beta_loss=name) == nmf_xp.beta_divergence(V, W, H, beta_loss=beta)


def assert_same_kind(new: Any, old: Any) -> None:
    assert type(new) is type(old)
    assert (tuple(new.shape), new.dtype, device(new)) == (tuple(old.shape), old.dtype, device(old))


def device(x: Any) -> str:
    return str(getattr(x, "device", "cpu"))


def measured(problem: Factorization, beta: float) -> Matrix:
    """The divergence of each problem of a stack, in float64 by the oracle."""
    return np.sum(oracle.entry_divergence(problem.V, problem.W @ problem.H, beta), axis=(-2, -1))


def float64(target: Target, x: Any) -> Matrix:
    return target.to_numpy(x).astype(np.float64)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_floor_is_the_least_power_of_two_at_which_no_update_overflows(dtype: str, beta: float) -> None:
    exponents = {
        "float32": {-1.0: -21, 0.0: -43, 0.5: -43, 1.0: -43, 3.0: -43},
        "float64": {-1.0: -218, 0.0: -436, 0.5: -436, 1.0: -436, 3.0: -436},
    }
    floor = factor_floor(np.dtype(dtype), beta=beta, xp=np)
    assert floor == 2.0 ** exponents[dtype][beta]
    largest_entry: Any = np.asarray(2.0 ** (np.finfo(dtype).maxexp // 8), dtype=dtype)
    summands = 2.0**23
    model: Any = np.asarray(floor, dtype=dtype) ** 2
    with np.errstate(over="ignore"):
        numerator = float(power_parts(largest_entry, model, beta=beta, xp=np)[0])
    assert summands * numerator < float(np.finfo(dtype).max)
    assert np.isfinite(summands * model ** (beta - 1))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.5])
@pytest.mark.parametrize(
    "shapes", [((), ()), ((7,), (7,)), ((5, 7), (5, 7)), ((5, 7), (3, 5, 7)), ((3, 5, 7), (3, 5, 7))]
)
def test_powers_of_any_shape(shapes: tuple[Any, Any], beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With kernels too, and where one V has many models."""
    monkeypatch.setattr(kernels, "LEAST", 0)
    rng = np.random.default_rng(0)
    V, Y = (np.asarray(rng.random(shape)) + 0.1 for shape in shapes)
    found: Any = power_parts(V, Y, beta=beta, xp=np)
    quotient, power = found
    np.testing.assert_allclose(quotient, V * Y ** (beta - 2), rtol=1e-13)
    np.testing.assert_allclose(power, Y ** (beta - 1), rtol=1e-13)


PAIRS = [("numpy", "int64"), ("numpy", "uint8"), ("numpy", "bool"), ("numpy", "float16")]
PAIRS += [("torch", "int32"), ("torch", "bool"), ("torch", "float16"), ("torch", "bfloat16")]
PAIRS += [("jax.numpy", "int32"), ("jax.numpy", "bool"), ("jax.numpy", "float16"), ("jax.numpy", "bfloat16")]


@pytest.mark.parametrize(("module", "dtype"), PAIRS)
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_data_of_any_dtype_are_taken_as_nmf_takes_them(module: str, dtype: str, beta: float) -> None:
    xp = pytest.importorskip(module)
    x = np.random.default_rng(0).poisson(3.0, (9, 7)).astype(float)
    V = (
        xp.asarray(x if dtype != "bool" else x > 2).astype(dtype)
        if module != "torch"
        else xp.asarray(x).to(getattr(xp, dtype))
    )
    r = nmf_xp.nmf(V, 2, beta_loss=beta, random_state=0, max_iter=3)
    host = np.asarray(V.float() if module == "torch" else V).astype(float)
    W, H = (np.asarray(factor).astype(float) for factor in (r.W, r.H))
    rtol = 1e-12 if r.W.dtype in (np.float64, getattr(xp, "float64", None)) else 1e-4
    assert float(nmf_xp.beta_divergence(V, r.W, r.H, beta_loss=beta)) == pytest.approx(float(r.divergence), rel=rtol)
    for update, exact in ((nmf_xp.update_w, oracle.update_w), (nmf_xp.update_h, oracle.update_h)):
        got = update(V, r.W, r.H, beta_loss=beta)
        assert got.dtype == r.W.dtype
        np.testing.assert_allclose(np.asarray(got), exact(host, W, H, beta), rtol=rtol * 10, atol=rtol)


@pytest.mark.parametrize("dtype", ["float16", "longdouble", "complex128", "bfloat16"])
def test_dtypes_that_cannot_be_right_are_refused(dtype: str) -> None:
    kind: Any = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype
    V, W, H = (np.ones(shape).astype(kind) for shape in ((3, 2), (3, 1), (1, 2)))
    if V.dtype == np.float64:
        pytest.skip("longdouble is float64 here")
    for function in (nmf_xp.update_w, nmf_xp.update_h, nmf_xp.beta_divergence):
        with pytest.raises(TypeError, match=r"^`[VW]` must .*, got .*; cast it"):
            function(V, W, H)
    if dtype != "float16":
        with pytest.raises(TypeError, match=r"^`V` must .*, got dtype .*; cast it"):
            nmf_xp.nmf(V, 1)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
def test_gradients_are_numbers_where_a_row_of_v_is_zero(beta: float) -> None:
    """A quotient of zero has no slope under a root; no entry depends on it, and its derivative is zero."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    V, H = torch.tensor(rng.gamma(1, size=(6, 5))), torch.tensor(rng.gamma(1, size=(2, 5)))
    V[3] = 0
    W = torch.tensor(rng.random((6, 2)), requires_grad=True)
    updated: Any = nmf_xp.update_w(V, W, H, beta_loss=beta)
    (gradient,) = torch.autograd.grad(updated.sum(), W)
    assert torch.isfinite(gradient).all()
    assert (gradient[3] == 0).all()
