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
        ("data/dense.py", "if TYPE_CHECKING:\n    from nmf_xp.updates import slopes", "data is below updates"),
        ("updates.py", 401 * "\n", "401 lines are more than 400"),
        ("odd.py", "", "has no place in the layers"),
        ("updates.py", "def f():\n    import jax", "jax is imported outside"),
        ("data/dense.py", "import array_api_compat", "imported in arrays/libraries.py and nowhere else"),
        ("problem/starts.py", "libraries.is_torch(x)", "asks for the backend"),
        ("problem/starts.py", "xp.zeros(3, dtype=x.dtype)", "xp.zeros without device="),
        ("updates.py", "xp.clip(W, low, high)", "operators.at_least"),
        ("updates.py", "xp.maximum(W, 0.0)", "operators.at_least"),
        ("updates.py", "xp.minimum(W, 0.5 * float(info.max))", "operators.at_least"),
        ("updates.py", "W *= 2", "augmented assignment"),
        ("solvers/mu.py", "W[0] = 1", "assignment to a part"),
        ("run/loop.py", "xp.add(a, b, out=a)", "out= writes"),
        ("cli/fit.py", f"msg = f'{{x}}: {31 * 'word '}'", "a sentence of more than 30 words"),
    ],
)
def test_a_rule_finds_what_it_is_for(lint: ModuleType, path: str, text: str, message: str) -> None:
    assert [message in finding.message for finding in lint.check_source(path, text)] == [True]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("updates.py", "from nmf_xp.data import as_data"),
        ("updates.py", "if TYPE_CHECKING:\n    from nmf_xp.data import Data"),
        ("run/loop.py", "import jax"),
        ("problem/starts.py", "xp.zeros(3, device=device)"),
        ("problem/starts.py", "xp.zeros_like(x)"),
        ("problem/starts.py", "W[0] = 1"),
        ("updates.py", "xp.maximum(W, U)"),
        ("updates.py", "n += 1  # lint: a Python int"),
    ],
)
def test_a_rule_lets_the_rest_pass(lint: ModuleType, path: str, text: str) -> None:
    assert lint.check_source(path, text) == []


def test_a_circle_is_found_that_is_for_the_type_checker_only(lint: ModuleType) -> None:
    one = "if TYPE_CHECKING:\n    from nmf_xp.data.b import x"
    two = "from nmf_xp.data import a"
    assert set(lint.circle({"data/a.py": one, "data/b.py": two})) == {"data/a.py", "data/b.py"}
    assert lint.circle({"data/a.py": one, "data/b.py": ""}) == []


def test_the_package_is_clean(lint: ModuleType) -> None:
    assert lint.main() == 0
