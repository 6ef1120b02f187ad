"""The beta-divergence: its definition, its limits at zeros, and its accuracy."""

from __future__ import annotations

import decimal
import functools
import math
from decimal import Decimal
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from nmf_xp import beta_divergence
from nmf_xp.testing import Backend, Target, oracle
from tests import compiled
from tests.problems import BETAS, DTYPES, Matrix, noisy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

EVERY_KIND_OF_BETA = (-2.0, -1e-6, 0.0, 1e-13, 0.5, 1 - 1e-6, 1.0, 1 + 1e-13, 1.5, 2.0, 2 + 1e-13, 3.0, 4.5)


def entry(target: Target, v: ArrayLike, y: ArrayLike, beta: float, dtype: str) -> Matrix:
    """d(v | y) by the library: a stack of problems of one entry, each with H = 1."""
    v, y = (np.asarray(x, dtype=dtype).reshape(-1, 1, 1) for x in np.broadcast_arrays(v, y))
    V, W, H = (target.asarray(x) for x in (v, y, np.ones_like(y)))
    return target.to_numpy(compiled.divergence(target, beta)(V, W, H)).astype(np.float64)


@functools.cache
def exact(v: float, y: float, beta: float) -> tuple[float, float, float]:
    """d(v | y), |y d'(v | y)| and the largest term of d for positive v and y, from 100 digits."""
    with decimal.localcontext(prec=100):
        v_, y_, b = Decimal(v), Decimal(y), Decimal(beta)
        if beta == 1:
            terms = [v_ * (v_ / y_).ln(), -v_, y_]
        elif beta == 0:
            terms = [v_ / y_, -(v_ / y_).ln(), Decimal(-1)]
        else:
            terms = [v_**b / (b * (b - 1)), y_**b / b, -v_ * y_ ** (b - 1) / (b - 1)]
        slope = y_**b - v_ * y_ ** (b - 1)
        d = 0.0 if v == y else float(sum(terms))
        return d, float(abs(slope)), max(float(abs(term)) for term in terms)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_published_formula(target: Target, beta: float, dtype: str) -> None:
    V, W, H = (x.astype(dtype) for x in noisy(7, 5, 3, zeros=beta > 0))
    D = compiled.divergence(target, beta)(*(target.asarray(x) for x in (V, W, H)))
    assert D.shape == ()
    expected = oracle.divergence(V.astype(np.float64), W.astype(np.float64), H.astype(np.float64), beta)
    assert float(D) == pytest.approx(expected, rel=100 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (-1.0, 1 / 4),
        (0.0, 1 - math.log(2)),
        (0.5, 6 - 4 * math.sqrt(2)),
        (1.0, 2 * math.log(2) - 1),
        (2.0, 1 / 2),
        (3.0, 2 / 3),
    ],
)
def test_values_worked_out_by_hand(target: Target, beta: float, expected: float) -> None:
    assert entry(target, 2.0, 1.0, beta, "float64") == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", EVERY_KIND_OF_BETA)
def test_zeros_in_the_data(target: Target, beta: float, dtype: str) -> None:
    """d(0 | y) is y^beta / beta for beta > 0 and infinite for others."""
    y = np.asarray([1e-3, 1.0, 50.0])
    expected = y**beta / beta if beta > 0 else np.full(3, math.inf)
    np.testing.assert_allclose(entry(target, 0.0, y, beta, dtype), expected, rtol=50 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", EVERY_KIND_OF_BETA)
def test_zeros_in_the_model(target: Target, beta: float, dtype: str) -> None:
    """d(v | 0) is v^beta / (beta (beta - 1)) for beta > 1 and infinite for others."""
    v = np.asarray([1e-3, 1.0, 50.0])
    expected = v**beta / (beta * (beta - 1)) if beta > 1 else np.full(3, math.inf)
    np.testing.assert_allclose(entry(target, v, 0.0, beta, dtype), expected, rtol=50 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("beta", BETAS)
def test_zeros_in_both(target: Target, beta: float) -> None:
    """d(0 | 0) is its limit 0 for beta > 0 and infinite for others."""
    assert entry(target, 0.0, 0.0, beta, "float64") == (0.0 if beta > 0 else math.inf)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", EVERY_KIND_OF_BETA)
def test_it_is_accurate_near_its_minimum_and_far_from_it(target: Target, beta: float, dtype: str) -> None:
    """A relative error of eps in y alone changes d by eps |y d'|, and a power p of y has an error of eps |p log y|.

    32 eps times the sum of those and of d itself is allowed. Pairs with terms out of the dtype's range become (1, 1).
    """
    info = np.finfo(dtype)
    eps = float(info.eps)
    pairs = [
        pair if representable(*pair, beta, dtype) else (1.0, 1.0) for pair in close_pairs(dtype) + far_pairs(dtype)
    ]
    v, y = np.asarray(pairs).T
    d, slope = np.asarray([exact(*pair, beta)[:2] for pair in pairs]).T
    powers = np.maximum(np.abs(np.log(v)), np.abs(np.log(y))) * max(abs(beta), abs(beta - 1))
    error = np.abs(entry(target, v, y, beta, dtype) - d)
    wrong = np.flatnonzero(~(error <= 32 * eps * ((1 + powers) * d + slope) + float(info.smallest_normal)))
    assert len(wrong) == 0, [(float(v[i]), float(y[i]), float(d[i]), float(error[i])) for i in wrong]


def close_pairs(dtype: str) -> list[tuple[float, float]]:
    eps = float(np.finfo(dtype).eps)
    number = np.dtype(dtype).type
    return [
        (float(number(v)), float(number(v * (1 + sign * distance))))
        for v in (1e-2, 1.0, 37.0)
        for distance in (0.0, 2 * eps, 1e2 * eps, 1e4 * eps, 1e-3, 0.1, 0.5)
        for sign in (-1, 1)
    ]


def far_pairs(dtype: str) -> list[tuple[float, float]]:
    number = np.dtype(dtype).type
    exponents = [2, 5, 7, 9, 12, 15, 18, 25, 30, 37] + ([75, 150, 290, 307] if dtype == "float64" else [])
    ratios = [10.0 ** (sign * exponent) for exponent in exponents for sign in (-1, 1)]
    pairs = [(ratio, 1.0) for ratio in ratios] + [(1.0, ratio) for ratio in ratios]
    pairs += [(5 * ratio**0.5, ratio**-0.5) for ratio in ratios]
    return [(float(number(v)), float(number(y))) for v, y in pairs]


def representable(v: float, y: float, beta: float, dtype: str) -> bool:
    """Whether neither a term of d nor the quotient v/y is beyond the dtype's range, or nearly."""
    most = float(np.finfo(dtype).max)
    return (
        exact(v, y, beta)[2] * (1 + abs(beta * (beta - 1))) < most / 64 and Decimal(v) / Decimal(y) < Decimal(most) / 4
    )


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_data_are_as_good_as_zeros(target: Target, beta: float, dtype: str) -> None:
    subnormal = float(np.finfo(dtype).smallest_subnormal)
    D = entry(target, [subnormal, subnormal, 1.0], [1.0, subnormal, subnormal], beta, dtype)
    assert D[0] == pytest.approx(1 / beta, rel=10 * float(np.finfo(dtype).eps))
    assert abs(D[1]) <= float(np.finfo(dtype).smallest_normal)
    if beta > 1:
        assert D[2] == pytest.approx(1 / (beta * (beta - 1)), rel=10 * float(np.finfo(dtype).eps))


@hypothesis.given(
    v=st.floats(0.0009765625, 1024.0, width=32),
    ratio=st.floats(0.0009765625, 1024.0, width=32),
    beta=st.sampled_from(BETAS),
)
def test_it_is_positive_and_homogeneous(v: float, ratio: float, beta: float) -> None:
    """d >= 0, 0 only at v = y, and d(sv | sy) = s^beta d(v | y)."""
    target = Backend.NUMPY.target()
    y = v * ratio
    d, slope = float(entry(target, v, y, beta, "float64")[0]), abs(y**beta - v * y ** (beta - 1))
    eps = float(np.finfo(np.float64).eps)
    assert d >= -8 * eps * slope
    assert entry(target, v, v, beta, "float64") == 0
    assert float(entry(target, 8 * v, 8 * y, beta, "float64")[0]) == pytest.approx(
        8**beta * d, rel=1e-12, abs=64 * eps * 8**beta * slope
    )


@pytest.mark.parametrize("beta", BETAS)
def test_it_is_summed_in_float64(target: Target, beta: float) -> None:
    """Entries of float32 are off by eps, to either side; their sum is not off by more."""
    rng = np.random.default_rng(0)
    V, W, H = (rng.uniform(0.5, 1.5, size=shape).astype(np.float32) for shape in ((400, 500), (400, 2), (2, 500)))
    D = compiled.divergence(target, beta)(*(target.asarray(x) for x in (V, W, H)))
    assert str(D.dtype).endswith("float64")
    Y = target.to_numpy(target.asarray(W) @ target.asarray(H)).astype(np.float64)
    expected = math.fsum(oracle.entry_divergence(V.astype(np.float64), Y, beta).ravel())
    assert float(D) == pytest.approx(expected, rel=2e-7)


@pytest.mark.parametrize("beta", BETAS)
def test_the_oracle_has_the_right_gradient(beta: float) -> None:
    """Central differences of `oracle.divergence`, of which `oracle.gradient` is to be the limit."""
    V, W, H = noisy(4, 3, 2, zeros=beta > 0)
    for analytic, factor in zip(oracle.gradient(V, W, H, beta), (W, H), strict=True):
        for index in np.ndindex(factor.shape):
            value, step = factor[index], 1e-5 * factor[index]
            ends = []
            for moved in (value + step, value - step):
                factor[index] = moved
                ends.append(oracle.divergence(V, W, H, beta))
            factor[index] = value
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(analytic[index], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_quotient_that_overflows_does_no_harm(beta: float) -> None:
    v, y = 1e-10, 1e300
    found = float(beta_divergence(np.full((1, 1), v), np.full((1, 1), y), np.ones((1, 1)), beta_loss=beta))
    expected = {0.0: np.log(y) - np.log(v) - 1, 0.5: y**0.5 / 0.5, 1.0: y}[beta]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_is_not_left_out(target: Target, dtype: str) -> None:
    """Zeros in V and WH are, where a quotient of them is none."""
    nan = float("nan")
    D = entry(target, [nan, 1.0, nan, 0.0, 0.0], [1.0, nan, 0.0, nan, 0.0], 1.0, dtype)
    np.testing.assert_array_equal(D, [nan, nan, nan, nan, 0.0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [-1000.0, -20.0, -2.0, -1.0, 0.5, 1.7, 2.5, 3.0, 20.0, 1000.0])
def test_it_is_never_no_number(target: Target, beta: float, dtype: str) -> None:
    most = float(np.finfo(dtype).maxexp) / 4
    v, y = 2.0 ** np.random.default_rng(0).uniform(-most, most, (2, 200))
    y[:20] = v[:20]
    found = entry(target, v, y, beta, dtype)
    assert (found >= 0).all()


def test_a_quotient_beyond_the_range_is_as_large_as_it_can_be() -> None:
    """Where V / WH overflows, the logarithm is at least about that of the largest number: no zero is meant."""
    V, W, H = (np.asarray([[x]]) for x in (1e200, 1e-200, 1.0))
    assert 700e200 < float(beta_divergence(V, W, H, beta_loss=1)) <= 922e200


@pytest.mark.parametrize("n", [5, 80])
@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("stacked", ["V", "W", "H", "VW", "VH"])
def test_one_of_the_three_may_be_a_stack(stacked: str, beta: float, n: int) -> None:
    rng = np.random.default_rng(0)
    shapes = {"V": (n, n), "W": (n, 2), "H": (2, n)}
    V, W, H = (rng.random((2, *s) if name in stacked else s) + 0.01 for name, s in shapes.items())
    found = beta_divergence(V, W, H, beta_loss=beta)
    members = [[x[c] if x.ndim > 2 else x for x in (V, W, H)] for c in range(2)]
    expected = [float(beta_divergence(*member, beta_loss=beta)) for member in members]
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-12)


@pytest.mark.parametrize("kernels", ["0", "1"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_itakura_saito_of_entries_far_below_their_model(
    dtype: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With kernels and without, in which a quick form is for what is near."""
    monkeypatch.setenv("NMF_XP_KERNELS", kernels)
    for quotient in (0.5, 2e-2, 5e-4, 1e-6, 3e-8):
        V = np.full((70, 70), quotient, dtype)
        found = beta_divergence(V, np.ones((70, 1), dtype), np.ones((1, 70), dtype), beta_loss=0)
        exact = V.size * (float(V[0, 0]) - math.log(float(V[0, 0])) - 1)
        assert found == pytest.approx(exact, rel=float(np.finfo(dtype).eps) ** (0.75 if kernels == "0" else 0.95))
