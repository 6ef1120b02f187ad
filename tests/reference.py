"""What a problem asks, in plain NumPy float64 and apart from the library: divergence, objective, optimality conditions.

The divergence of an entry is `oracle.entry_divergence`, the formulas of the papers as they are printed; weights,
penalties, fixed entries and upper bounds are added here.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.testing import oracle

if TYPE_CHECKING:
    Matrix = np.ndarray[Any, Any]

SMALLEST = 1e-300
"""Below this, numbers of float64 lose digits."""


@dataclass(frozen=True)
class Terms:
    """What is asked of one factor besides the fit: l1 sum(W) + l2/2 sum(W^2), fixed entries, upper bounds."""

    l1: float = 0.0
    l2: float = 0.0
    fixed: Matrix | None = None
    upper: Matrix | None = None

    def penalty(self, W: Matrix) -> float:
        with np.errstate(all="ignore"):
            linear = self.l1 * float(np.sum(W)) if self.l1 else 0.0
            return linear + (0.5 * self.l2 * float(np.sum(W * W)) if self.l2 else 0.0)

    @property
    def penalised(self) -> bool:
        return self.l1 > 0 or self.l2 > 0

    @property
    def bounded(self) -> bool:
        return self.fixed is not None or self.upper is not None


@dataclass(frozen=True)
class Question:
    """V (m, n) in float64 with 0 where nothing is observed, its weights of the same shape, and the terms of W and H."""

    V: Matrix
    beta: float
    weights: Matrix
    w: Terms = field(default_factory=Terms)
    h: Terms = field(default_factory=Terms)
    given_h: bool = False  # whether W alone is sought

    @property
    def convex(self) -> bool:
        return self.given_h and 1 <= self.beta <= 2

    @property
    def far_beyond(self) -> bool:
        """Whether a penalty weighs 1e19 times what the data do, beside which these vanish in float32."""
        size = 4.0**self.exponent
        with np.errstate(all="ignore"):
            data = float(np.max(self.weights)) * size**self.beta
            weights = [t.l1 * size**0.5 for t in (self.w, self.h)] + [t.l2 * size for t in (self.w, self.h)]
            return max(weights) > 1e19 * data

    @functools.cached_property
    def exponent(self) -> int:
        """The k for which V times 4^-k is of order one. All is computed there, so that no power overflows."""
        high = float(np.max(self.V))
        return 0 if high == 0 else math.floor(math.log2(high) / 2)

    def _model(self, W: Matrix, H: Matrix) -> tuple[Matrix, Matrix, int, int]:
        """V and WH times 4^-k, and the powers of two a + b = 2k by which W and H were divided, each of order one."""
        k = self.exponent
        high = float(np.max(W))
        a = k if high == 0 else math.floor(math.log2(high))
        return np.ldexp(self.V, -2 * k), np.ldexp(W, -a) @ np.ldexp(H, a - 2 * k), a, 2 * k - a

    def divergence(self, W: Matrix, H: Matrix) -> float:
        V, Y, *_ = self._model(W, H)
        with np.errstate(all="ignore"):
            return float(_times_two_to(np.sum(self._entries(V, Y)), 2 * self.exponent * self.beta))

    def objective(self, W: Matrix, H: Matrix) -> float:
        return self.divergence(W, H) + self.w.penalty(W) + self.h.penalty(H)

    def _entries(self, V: Matrix, Y: Matrix) -> Matrix:
        """The weighted divergence of each entry, with its limits where V or Y is zero."""
        beta = self.beta
        with np.errstate(all="ignore"):
            d = oracle.entry_divergence(V, Y, beta)
            if beta > 0 and beta not in (1.0, 2.0):
                d = np.where(V == 0, Y**beta / beta, d)
            lost = (V > 0) & (Y == 0)
            limit = V**beta / (beta * (beta - 1)) if beta > 1 else np.inf
            d = np.where(lost, limit, d)
            return np.where(self.weights == 0, 0.0, self.weights * np.maximum(d, 0.0))

    def slopes(self, W: Matrix, H: Matrix) -> tuple[tuple[Matrix, Matrix], tuple[Matrix, Matrix]]:
        """For W and for H the parts of the gradient, (what raises it, what lowers it), each in units of its own."""
        V, Y, a, b = self._model(W, H)
        scale = 2 * self.exponent * (self.beta - 1)
        with np.errstate(all="ignore"):
            pull = np.where((V == 0) | (self.weights == 0), 0.0, self.weights * V * Y ** (self.beta - 2))
            push = np.where(self.weights == 0, 0.0, self.weights * Y ** (self.beta - 1))
            Wa, Hb = np.ldexp(W, -a), np.ldexp(H, -b)
            along = _product(push, Hb.T) + _times_two_to(self.w.l1 + self.w.l2 * W, -scale - b)
            down = _product(Wa.T, push) + _times_two_to(self.h.l1 + self.h.l2 * H, -scale - a)
        return (along, _product(pull, Hb.T)), (down, _product(Wa.T, pull))

    def residual(self, W: Matrix, H: Matrix) -> float:
        """The largest |min(w / largest of its component, 1 - pull / push)| of the entries that are not fixed."""
        of_w, of_h = self.slopes(W, H)
        violation = _violation(W, *of_w, self.w, W.max(axis=0, keepdims=True))
        if not self.given_h:
            violation = max(violation, _violation(H, *of_h, self.h, H.max(axis=1, keepdims=True)))
        return violation

    def rounding(self, W: Matrix, H: Matrix, eps: float) -> float:
        """How far the objective may be off when W and H are exact and the model is computed in a dtype of that `eps`.

        Each entry of Y is a sum of r products, so it and its powers are right to u = (|beta - 2| + |beta - 1| + 1)
        (r + 8) eps. That moves D by u sum |y d'| + u^2 sum |y^2 d''| at most, and the sums over the entries by a few
        eps of themselves. What the formulas of the oracle lose to cancellation in float64 is added.
        """
        V, Y, *_ = self._model(W, H)
        beta, double = self.beta, float(np.finfo(np.float64).eps)
        u = (abs(beta - 2) + abs(beta - 1) + 1) * (W.shape[-1] + 8) * eps
        with np.errstate(all="ignore"):
            weights = np.where(np.isfinite(Y), self.weights, 0.0)
            data = np.where((V > 0) & (Y > 0), weights * V * Y ** (beta - 1), 0.0)
            model = np.where(Y > 0, weights * Y**beta, 0.0)
            power = np.where(V > 0, weights * V**beta, 0.0)
            far = np.where(data > 0, np.abs(np.log(V / Y)), 0.0)
            first, second = float(np.sum(np.abs(model - data))), float(np.sum(model + data))
            terms = float(np.sum(model + data + power * (1 + far)))
            bound = u * first + u * u * second + 64 * double * terms
            bound = float(_times_two_to(bound, 2 * self.exponent * self.beta))
        own = self.objective(W, H)
        return bound + (32 * eps * own if np.isfinite(own) else 0.0) + SMALLEST


def _times_two_to(x: Any, exponent: float) -> Any:
    """x 2^exponent, where the power alone may overflow."""
    whole = math.floor(exponent)
    return np.ldexp(x * 2.0 ** (exponent - whole), whole)


def _product(A: Matrix, B: Matrix) -> Matrix:
    """A @ B where 0 times infinity is 0."""
    if np.isfinite(A).all() and np.isfinite(B).all():
        return A @ B
    finite = np.where(np.isfinite(A), A, 0.0) @ np.where(np.isfinite(B), B, 0.0)
    infinite = np.isinf(A).astype(float) @ (B > 0) + (A > 0).astype(float) @ np.isinf(B)
    return np.where(infinite > 0, np.inf, finite)


def _violation(W: Matrix, push: Matrix, pull: Matrix, terms: Terms, size: Matrix) -> float:
    with np.errstate(all="ignore"):
        # Where nothing pulls or pushes, an entry does not matter: it should be zero.
        slope = np.where(push > 0, 1.0 - pull / push, np.where(pull > 0, -np.inf, 1.0))
        relative = np.where(size > 0, W / size, 0.0)
        violation = np.minimum(relative, slope)
        if terms.upper is not None:
            violation = np.maximum(violation, np.where(size > 0, (W - terms.upper) / size, -np.inf))
    if terms.fixed is not None:
        violation = np.where(terms.fixed, 0.0, violation)
    return float(np.max(np.abs(violation)))
