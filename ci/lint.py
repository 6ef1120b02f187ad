"""The rules of this project that no public linter knows: layers, backend branches, devices, in-place writes.

A line that breaks a rule for a reason says so with a comment ``# lint: REASON``.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parents[1] / "src" / "nmf_xp"

# A module imports only from those above its own, or from its own group. Imports for the type checker do not count.
LAYERS = [
    ["_typing", "_compat", "_devices", "_faults", "_layout", "_memory", "_threads", "_kernels"],
    ["units", "validation", "problem", "result", "showing"],
    ["data"],
    ["stores", "files"],
    ["divergences", "updates"],
    ["optimality", "_ending"],
    ["solvers", "_lookahead", "_verdict", "_control"],
    ["init", "posing", "checkpoint"],
    ["factorization", "online", "overview"],
    ["selection"],
    ["__init__"],
    ["plot", "report", "sharding", "sklearn", "testing"],
    ["cli", "__main__"],
]
# What may know which array library it has.
BACKEND_AWARE = (
    "_compat",
    "_control",
    "_devices",
    "_faults",
    "_kernels",
    "_layout",
    "_threads",
    "data",
    "sharding",
    "testing",
    "cli",
)
LIBRARIES = {"jax", "torch", "cupy", "dask", "sparse", "array_api_strict"}
BRANCHES = {"is_jax", "is_torch", "is_cupy", "is_dask", "is_numpy"}
# Where every array may be the user's, or one that the user will get. init.py works on NumPy arrays of its own.
CORE = ("_control", "data", "divergences", "optimality", "problem", "solvers", "updates")
CREATION = {"arange", "asarray", "empty", "eye", "full", "linspace", "ones", "zeros"}


class Finding(NamedTuple):
    """A line that breaks a rule."""

    path: str
    line: int
    message: str


def check_source(path: str, text: str) -> list[Finding]:
    """All findings in one file; `path` is relative to the package."""
    tree = ast.parse(text)
    excused = {i for i, line in enumerate(text.splitlines(), 1) if "# lint: " in line}
    module = path.removesuffix(".py").split("/")[0]
    found = [*_layers(module, tree), *_backends(module, path, tree), *_devices(tree), *_bounds(tree)]
    if module in CORE:
        found += _writes(tree)
    return [Finding(path, line, message) for line, message in sorted(found) if line not in excused]


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every module that is imported at run time."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "nmf_xp":
            yield from ((node.lineno, f"nmf_xp.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
        else:
            yield from _imports(node)


def _layers(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    level = {name: i for i, group in enumerate(LAYERS) for name in group}
    if module not in level:
        yield 1, f"the module {module} has no place in the layers of ci/lint.py"
        return
    for line, name in _imports(tree):
        other = name.split(".")[1] if name.startswith("nmf_xp.") else None
        if other is not None and level.get(other, level["__init__"]) > level[module]:
            yield line, f"{module} is below {other} and may not import it"


def _backends(module: str, path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    for line, name in _imports(tree):
        top = name.split(".")[0]
        if top == "array_api_compat" and path != "_compat.py":
            yield line, "array_api_compat is imported in _compat.py and nowhere else"
        if top in LIBRARIES and module not in BACKEND_AWARE:
            yield line, f"{top} is imported outside {', '.join(BACKEND_AWARE)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in BRANCHES and module not in BACKEND_AWARE:
            yield node.lineno, f"{node.attr} asks for the backend outside {', '.join(BACKEND_AWARE)}"


def _devices(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CREATION):
            continue
        if ast.unparse(node.func.value) == "xp" and not any(k.arg in ("device", None) for k in node.keywords):
            yield node.lineno, f"xp.{node.func.attr} without device="


def _bounds(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("xp.clip", "xp.maximum", "xp.minimum")):
            continue
        scalar = any(isinstance(x, ast.Constant) or "float(" in ast.unparse(x) for x in node.args)
        if ast.unparse(node.func) == "xp.clip" or scalar:
            yield node.lineno, "a bound that is a scalar waits for a GPU: _compat.at_least and _compat.at_most do not"


def _writes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign):
            yield node.lineno, "an augmented assignment writes into an array of NumPy or torch"
        elif isinstance(node, ast.Assign) and any(isinstance(target, ast.Subscript) for target in node.targets):
            yield node.lineno, "an assignment to a part of an array"
        elif isinstance(node, ast.Call) and any(keyword.arg == "out" for keyword in node.keywords):
            yield node.lineno, "out= writes into an array"


def main() -> int:
    """Check the package; the exit status says whether it is clean."""
    findings = [
        finding
        for file in sorted(SOURCE.rglob("*.py"))
        for finding in check_source(file.relative_to(SOURCE).as_posix(), file.read_text(encoding="utf-8"))
    ]
    for finding in findings:
        print(f"src/nmf_xp/{finding.path}:{finding.line}: {finding.message}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
