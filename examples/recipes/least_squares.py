"""Least squares by gradient descent, with the derivatives proved, and two with wrong signs caught.

    python least_squares.py

prints what the proof says of each, and where each leads.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from nmf_xp.testing import check_gradient


def cost(p: Any, A: Any, y: Any) -> Any:
    """J(p) = |y - A p|^2 / m."""
    xp = array_namespace(p, A, y)
    residual = y - A @ p
    return xp.sum(residual * residual) / A.shape[0]


def gradient(p: Any, A: Any, y: Any) -> Any:
    """dJ/dp = -(2 / m) A^T (y - A p)."""
    xp = array_namespace(p, A, y)
    return (-2 / A.shape[0]) * (xp.matrix_transpose(A) @ (y - A @ p))


def fit(A: Any, y: Any, steps: int, gradient: Any = gradient) -> Any:
    """Minimise J from zero, by steps so short that each one must lower it."""
    xp = array_namespace(A, y)
    length = A.shape[0] / (2 * xp.sum(A * A))
    p = xp.zeros(A.shape[1], dtype=A.dtype, device=device(A))
    for _ in range(steps):
        p = p - length * gradient(p, A, y)
    return p


def without_minus(p: Any, A: Any, y: Any) -> Any:
    """Wrong: the inner derivative of y - A p is -A, and its minus is lost."""
    return -gradient(p, A, y)


def without_parentheses(p: Any, A: Any, y: Any) -> Any:
    """Wrong: y - (b + a x) was written as y - b + a x, for p = (b, a) and A = (1, x)."""
    xp = array_namespace(p, A, y)
    residual = y - A[:, 0] * p[0] + A[:, 1] * p[1]
    return (-2 / A.shape[0]) * (xp.matrix_transpose(A) @ residual)


def line() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Twenty points beside the line y = 2 - x / 2, as A = (1, x) and y."""
    x = np.linspace(0, 3, 20)
    return np.stack([np.ones(20), x], axis=1), 2 - x / 2 + np.cos(5 * x) / 10


def main() -> None:
    """Print what is right and what is caught."""
    A, y = line()
    p = np.asarray([0.3, -0.7])
    for derivative in (gradient, without_minus, without_parentheses):
        report = check_gradient(partial(cost, A=A, y=y), partial(derivative, A=A, y=y), p)
        print(f"{derivative.__name__}: {'right' if report.ok else report.failures[0].detail}")
        costs = [cost(fit(A, y, steps, derivative), A, y) for steps in (0, 1, 10, 100)]
        print("  J after 0, 1, 10, 100 steps: " + ", ".join(f"{c:.4g}" for c in costs))
    error = np.max(np.abs(fit(A, y, 600) - np.linalg.lstsq(A, y, rcond=None)[0]))
    assert error < 1e-12
    print("after 600 steps p agrees with numpy.linalg.lstsq to 1e-12")


if __name__ == "__main__":
    main()
