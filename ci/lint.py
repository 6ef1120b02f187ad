"""The rules of this project that no public linter knows: layers, backend branches, devices, in-place writes.

A line that breaks a rule for a reason says so with a comment ``# lint: REASON``.
"""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 400  # lines of a file
WORDS = 30  # of a sentence that a user may read
SOURCE = Path(__file__).parents[1] / "src" / "nmf_xp"

# A module imports only from those above its own, or from its own group, for the type checker too.
LAYERS = [
    ["arrays"],
    ["data"],
    ["files"],
    ["divergences", "updates"],
    ["problem"],
    ["result"],
    ["solvers"],
    ["run"],
    ["factorization", "online"],
    ["selection"],
    ["__init__"],
    ["plot", "scverse", "sharding", "sklearn", "testing"],
    ["cli", "__main__"],
]
# What may know which array library it has.
BACKEND_AWARE = ("arrays", "data", "run", "sharding", "testing", "cli")
LIBRARIES = {"jax", "torch", "cupy", "dask", "sparse", "array_api_strict"}
BRANCHES = {"is_jax", "is_torch", "is_cupy", "is_dask", "is_numpy"}
# Where every array may be the user's, or one that the user will get.
CORE = ("data", "divergences", "problem", "run", "solvers", "updates")
# Within them, what writes into NumPy arrays and lists of its own.
OF_ITS_OWN = ("problem/starts.py", "run/beginning.py", "run/checkpoint/__init__.py", "run/solve.py")
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
    found = [*_length(text), *_layers(module, tree), *_backends(module, path, tree), *_devices(tree), *_bounds(tree)]
    found += _messages(tree)
    if module in CORE and path not in OF_ITS_OWN:
        found += _writes(tree)
    return [Finding(path, line, message) for line, message in sorted(found) if line not in excused]


def _length(text: str) -> Iterator[tuple[int, str]]:
    lines = text.count("\n")
    if lines > LONGEST:
        yield 1, f"{lines} lines are more than {LONGEST}: what is in here that has a name of its own?"


def _imports(tree: ast.AST, *, for_types: bool = False) -> Iterator[tuple[int, str]]:
    """Every module that is imported at run time, or also for the type checker."""
    for node in ast.iter_child_nodes(tree):
        if not for_types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "nmf_xp":
            yield from ((node.lineno, f"nmf_xp.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
        else:
            yield from _imports(node, for_types=for_types)


def _layers(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    level = {name: i for i, group in enumerate(LAYERS) for name in group}
    if module not in level:
        yield 1, f"the module {module} has no place in the layers of ci/lint.py"
        return
    for line, name in _imports(tree, for_types=True):
        other = name.split(".")[1] if name.startswith("nmf_xp.") else None
        if other is not None and level.get(other, level["__init__"]) > level[module]:
            yield line, f"{module} is below {other} and may not import it"


def _backends(module: str, path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    for line, name in _imports(tree):
        top = name.split(".")[0]
        if top == "array_api_compat" and path != "arrays/libraries.py":
            yield line, "array_api_compat is imported in arrays/libraries.py and nowhere else"
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
            yield (
                node.lineno,
                "a bound that is a scalar waits for a GPU: operators.at_least and operators.at_most do not",
            )


def _messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Texts that are no docstrings: a value that is filled in counts as one word."""
    aside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            aside |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in aside or not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts)
        for sentence in re.split(r"(?<=[.!?])\s|\n", text):
            if len(sentence.split()) > WORDS:
                yield node.lineno, f"a sentence of more than {WORDS} words: make it two, or say less"


def _writes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign):
            yield node.lineno, "an augmented assignment writes into an array of NumPy or torch"
        elif isinstance(node, ast.Assign) and any(isinstance(target, ast.Subscript) for target in node.targets):
            yield node.lineno, "an assignment to a part of an array"
        elif isinstance(node, ast.Call) and any(keyword.arg == "out" for keyword in node.keywords):
            yield node.lineno, "out= writes into an array"


def circle(texts: dict[str, str]) -> list[str]:
    """Files that import each other in a circle, in its order; empty where there is none."""
    files = {path.removesuffix(".py").removesuffix("/__init__"): path for path in texts}
    graph: dict[str, set[str]] = {path: set() for path in texts}
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nmf_xp."):
                package = node.module.removeprefix("nmf_xp.").replace(".", "/") if node.module else ""
                names = (f"{package}/{alias.name}" for alias in node.names)
                graph[path] |= {files.get(name, files.get(package, path)) for name in names} - {path}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def main() -> int:
    """Check the package; the exit status says whether it is clean."""
    files = sorted(SOURCE.rglob("*.py"))
    texts = {file.relative_to(SOURCE).as_posix(): file.read_text(encoding="utf-8") for file in files}
    findings = [finding for path, text in texts.items() for finding in check_source(path, text)]
    around = circle(texts)
    if around:
        findings.append(Finding(around[0], 1, f"imports go in a circle: {' <- '.join(around)}"))
    for finding in findings:
        print(f"src/nmf_xp/{finding.path}:{finding.line}: {finding.message}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
