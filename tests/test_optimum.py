"""The minimum that others are measured by."""

from __future__ import annotations

import numpy as np

from tests.optimum import loadings
from tests.reference import Question, Terms


def test_the_minimum_is_one() -> None:
    """What the others are measured by: no random step improves it, and L-BFGS-B agrees with NNLS where both go."""
    rng = np.random.default_rng(0)
    V, H = rng.gamma(1.0, 1.0, (4, 9)), rng.gamma(0.5, 1.0, (3, 9))
    for beta in (1.0, 1.5, 2.0):
        terms = Terms(l1=0.3, l2=0.2, upper=np.full((4, 3), 0.8))
        question = Question(V, beta, rng.random(V.shape), terms, given_h=True)
        W = loadings(question, H)
        least = question.objective(W, H)
        for _ in range(200):
            moved = np.clip(W + 10.0 ** rng.uniform(-6, 0) * rng.normal(size=W.shape), 0, 0.8)
            assert question.objective(moved, H) >= least * (1 - 1e-12)
    nearly = Question(V, 2 - 1e-9, np.ones_like(V), given_h=True)
    exactly = Question(V, 2.0, np.ones_like(V), given_h=True)
    np.testing.assert_allclose(loadings(nearly, H), loadings(exactly, H), atol=1e-4)
