"""Operators that are computed in another way than they are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nmf_xp.arrays.operators import power


@pytest.mark.parametrize("exponent", [-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 0.7, -3.5])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_power_by_roots_is_the_power(exponent: float, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = (rng.gamma(1, size=1000) * 10 ** rng.uniform(-6, 6, 1000)).astype(dtype)
    expected = x.astype("longdouble") ** exponent
    found: Any = power(x, exponent, xp=np)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("exponent", [-1.5, -0.5, 0.5, 1.5, 2.5])
def test_a_power_in_units_of_four_is_the_same(exponent: float) -> None:
    x = np.random.default_rng(0).gamma(1, size=1000)
    np.testing.assert_array_equal(
        power(4.0**5 * x, exponent, xp=np), 2.0 ** (10 * exponent) * power(x, exponent, xp=np)
    )


@pytest.mark.parametrize("exponent", [-1.5, -0.5, 0.5, 1.5])
def test_the_power_of_zero(exponent: float) -> None:
    with np.errstate(divide="ignore"):
        assert power(np.zeros(1), exponent, xp=np)[0] == (0 if exponent > 0 else np.inf)
