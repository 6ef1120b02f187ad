"""Kernels that are compiled with the wheel: the same numbers at each level of processor, and never a wrong one."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import nmf
from nmf_xp.arrays.kernels import ahead, compiling

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADERS = Path(sysconfig.get_path("include"), "Python.h").exists()
COMPILER = shutil.which(os.environ.get("CC", "cc").split()[0]) if HEADERS else None
needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="no C compiler and headers of Python, as https://docs.python.org/3/extending names them"
)
FIRST = """
import sys, time
import numpy as np
from nmf_xp import nmf
V = np.random.default_rng(0).poisson(3.0, (200, 100)).astype(float)
result = nmf(V, 5, beta_loss=1, random_state=0, max_iter=20)
print(repr(float(result.divergence)), "numba" in sys.modules)
"""
HEADER = """
static const Variant variants[] = {{0, 0, {0}}};
static const Kernel kernels[] = {{"none", "", 0, 0, 1}};
enum { KERNELS = 1, LEVELS = 1 };
static const char *const levels[] = {"of another"};
#define SOURCE "any"
static const int least[] = {99};
"""


@pytest.fixture
def library() -> Iterator[Any]:
    found = compiling.library()
    if found is None:
        if "CI" in os.environ and COMPILER is not None:
            pytest.fail("CI must have the compiled kernels where it can: pip install -e . makes them")
        pytest.skip("no compiled kernels: pip install . with a C compiler makes them, https://gcc.gnu.org")
    level = found.used()
    yield found
    found.use(level)


def _run(code: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_first_call_loads_no_compiler(library: Any) -> None:
    divergence, compiler = _run(FIRST)
    assert compiler == "False"
    expected, without = _run(FIRST, NMF_XP_KERNELS="0")
    assert without == "False"
    assert float(divergence) == pytest.approx(float(expected), rel=1e-9)


def test_numba_makes_the_same_of_them(library: Any) -> None:
    divergence, compiler = _run(FIRST, NMF_XP_KERNELS="numba")
    assert compiler == "True"
    assert float(divergence) == pytest.approx(float(_run(FIRST)[0]), rel=1e-9)


CASES: dict[str, dict[str, Any]] = {
    "newton": {"beta_loss": 1},
    "mu": {"beta_loss": 1, "solver": "mu"},
    "cd": {"beta_loss": 2},
    "cd-kl": {"beta_loss": 1, "solver": "cd"},
    "mm": {"beta_loss": 0.5},
    "weighted": {"beta_loss": 2, "weights": np.random.default_rng(1).random((90, 70))},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_each_level_of_this_processor_gives_the_same(case: str, dtype: str, library: Any) -> None:
    V = np.random.default_rng(0).poisson(3.0, (90, 70)).astype(dtype)
    found = {}
    for level in ahead.levels():
        try:
            library.use(level)
        except ValueError:
            continue
        found[level] = nmf(V, 5, random_state=0, max_iter=10, tol=0, **CASES[case]).divergence
    assert found
    np.testing.assert_allclose(list(found.values()), found[library.used()], rtol=1e-3 if dtype == "float32" else 1e-9)


def test_what_does_not_fit_is_refused_and_never_read(library: Any) -> None:
    number = library.index("divergence.row_divergence")
    x = np.ones(8)
    assert library.call(number, x, x) == 0.0
    frozen = x.view()
    frozen.flags.writeable = False
    assert library.call(number, frozen, frozen) == 0.0
    explicit = pickle.loads(pickle.dumps(np.frombuffer(x.tobytes(), "<f8")))  # a dtype that says its byte order
    assert library.call(number, explicit, explicit) == 0.0
    for arguments, rule in (
        ((x, x.astype("f4")), "another dtype or of other dimensions"),
        ((x.astype("f2"), x.astype("f2")), "another dtype or of other dimensions"),
        ((x.astype("i4"), x.astype("i4")), "a dtype for which it was not compiled"),
        ((x.astype(">f8"), x.astype(">f8")), "another dtype or of other dimensions"),
        ((x.reshape(2, 4), x), "other dimensions"),
        ((np.ones(16)[::2], x), "not contiguous"),
        ((x,), "too few or too many"),
        ((x, x, x), "too few or too many"),
        (([1.0], x), "bytes-like"),
        ((None, x), "bytes-like"),
    ):
        with pytest.raises(TypeError, match=rule):
            library.call(number, *arguments)
    with pytest.raises(TypeError, match="number of a kernel"):
        library.call(10**6, x, x)
    with pytest.raises(TypeError, match="number of a kernel"):
        library.call()
    with pytest.raises(KeyError, match="no kernel"):
        library.index("divergence.other")
    with pytest.raises(ValueError, match="not of this processor"):
        library.use("x86-64-v9")


def test_what_was_compiled_of_another_source_is_left_out(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "source", lambda: "another")
    assert compiling.library.__wrapped__() is None


@needs_compiler
def test_a_library_for_another_processor_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    """Its code would end the process; the twins, or numba, take its place."""
    assert COMPILER is not None
    (tmp_path / "kernels.h").write_text(HEADER)
    include = [f"-I{tmp_path}", f"-I{sysconfig.get_path('include')}"]
    command = [
        COMPILER,
        "-shared",
        "-fPIC",
        *include,
        str(ahead.HERE / "library.c"),
        "-o",
        f"{tmp_path}/_compiled.abi3.so",
    ]
    if sys.platform == "darwin":
        command += ["-undefined", "dynamic_lookup"]
    subprocess.run(command, check=True)
    done = subprocess.run([sys.executable, "-c", "import _compiled"], cwd=tmp_path, capture_output=True, text=True)
    assert "ImportError: the kernels were compiled for another processor" in done.stderr


def test_memory_that_is_not_there_is_an_error(library: Any) -> None:
    """A kernel that finds no memory for what it works with says so, and its caller can go on."""
    code = """
import resource
import numpy as np
from nmf_xp.arrays.kernels import compiling, newton
V = np.broadcast_to(np.ones(1), (4, 2 * 10**7))
W, sums = np.ones((4, 1)), np.ones((4, 1))
H = np.ones((1, 2 * 10**7))
correlation = np.ones((1, 1))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 10**8, used + 10**8))
try:
    newton.step_rows(V, W, H, sums, (correlation, 0.0, 0.0, 1e-9, 1e-300, 1, 1), False)
except MemoryError as error:
    print("MemoryError")
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("the limit is set as Linux does: https://docs.python.org/3/library/resource.html")
    assert _run(code) == ["MemoryError"]
