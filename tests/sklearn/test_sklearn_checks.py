"""scikit-learn's own checks of its estimators; none is expected to fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from nmf_xp.sklearn import NMF, MiniBatchNMF

if TYPE_CHECKING:
    from collections.abc import Callable

# As scikit-learn runs them on its own estimators: with enough iterations to converge.
ESTIMATORS = [
    NMF(max_iter=500),
    NMF(solver="mu", init="nndsvda", max_iter=1000),
    NMF(solver="auto", max_iter=500),
    MiniBatchNMF(batch_size=10, max_iter=20, fresh_restarts=True),
    MiniBatchNMF(batch_size=10),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::UserWarning")
@parametrize_with_checks(ESTIMATORS)
def test_a_check_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
