"""What importing nmf_xp costs: no array library, and no optional dependency."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIBRARIES = {"numpy", "cupy", "jax", "jaxlib", "torch", "dask", "scipy", "sparse", "array_api_strict"}
OPTIONAL = {
    "sklearn",
    "pandas",
    "polars",
    "pyarrow",
    "narwhals",
    "xarray",
    "anndata",
    "h5py",
    "tqdm",
    "matplotlib",
    "PIL",
    "safetensors",
    "zarr",
    "threadpoolctl",
    "numba",
    "hypothesis",
    "pytest",
}


def imported_by(code: str) -> set[str]:
    """Top-level modules that `code` adds to those of Python's own start, in a new process."""
    script = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_it_imports_no_array_library() -> None:
    imported = imported_by("import nmf_xp")
    assert "nmf_xp" in imported
    assert not imported & (LIBRARIES | OPTIONAL)


def test_a_frame_of_pandas_imports_no_other_library_of_tables() -> None:
    pytest.importorskip("pandas")
    # pandas 3 loads pyarrow with the first names of columns, which is its own affair.
    table = "import pandas as p; t = p.DataFrame({'a': [1., 2]}, index=['x', 'y']); known = set(sys.modules)"
    use = f"{table}; import nmf_xp; r = nmf_xp.nmf(t, 1)"
    added = imported_by(f"{use}; r.to_frame('W'); r.top(); r.explained; before |= known")
    assert "nmf_xp" in added
    assert not added & (OPTIONAL - {"threadpoolctl", "pandas"})


@pytest.mark.parametrize("name", ["numpy", "torch", "jax", "array_api_strict"])
def test_using_one_array_library_imports_no_other(name: str) -> None:
    pytest.importorskip(name)
    module = "jax.numpy" if name == "jax" else name
    use = f"import {module} as m; known = set(sys.modules); import nmf_xp; nmf_xp.nmf(m.ones((3, 2)), 1)"
    added = imported_by(f"{use}; before |= known")  # what the library imports on its own is its own affair
    assert "nmf_xp" in added
    assert not added & (LIBRARIES - {"numpy", name, f"{name}lib"})
    assert not added & (OPTIONAL - {"threadpoolctl"})
