"""Each rule of ci/lint.py finds what it is for, and the package is clean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scripts import load

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="module")
def lint() -> ModuleType:
    return load("ci/lint.py")


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("updates.py", "from nmf_xp.factorization import nmf", "updates is below factorization"),
        ("data/dense.py", "from nmf_xp import updates", "data is below updates"),
        ("updates.py", "from nmf_xp import nmf", "updates is below nmf"),
        ("odd.py", "", "has no place in the layers"),
        ("updates.py", "def f():\n    import jax", "jax is imported outside"),
        ("data/dense.py", "import array_api_compat", "imported in _compat.py and nowhere else"),
        ("init.py", "_compat.is_torch(x)", "asks for the backend"),
        ("init.py", "xp.zeros(3, dtype=x.dtype)", "xp.zeros without device="),
        ("updates.py", "xp.clip(W, low, high)", "_compat.at_least"),
        ("updates.py", "xp.maximum(W, 0.0)", "_compat.at_least"),
        ("updates.py", "xp.minimum(W, 0.5 * float(info.max))", "_compat.at_least"),
        ("updates.py", "W *= 2", "augmented assignment"),
        ("solvers/mu.py", "W[0] = 1", "assignment to a part"),
        ("_control.py", "xp.add(a, b, out=a)", "out= writes"),
    ],
)
def test_a_rule_finds_what_it_is_for(lint: ModuleType, path: str, text: str, message: str) -> None:
    assert [message in finding.message for finding in lint.check_source(path, text)] == [True]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("updates.py", "from nmf_xp.data import as_data"),
        ("data/dense.py", "if TYPE_CHECKING:\n    from nmf_xp.updates import slopes"),
        ("_control.py", "import jax"),
        ("init.py", "xp.zeros(3, device=device)"),
        ("init.py", "xp.zeros_like(x)"),
        ("init.py", "W[0] = 1"),
        ("updates.py", "xp.maximum(W, U)"),
        ("updates.py", "n += 1  # lint: a Python int"),
    ],
)
def test_a_rule_lets_the_rest_pass(lint: ModuleType, path: str, text: str) -> None:
    assert lint.check_source(path, text) == []


def test_the_package_is_clean(lint: ModuleType) -> None:
    assert lint.main() == 0
