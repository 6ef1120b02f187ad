"""The default call where a process may do less than usual: read-only folders, a full disk, no /proc, one processor."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nmf_xp import nmf

if TYPE_CHECKING:
    from pathlib import Path

FIT = """
import numpy as np
from nmf_xp import nmf
V = np.random.default_rng(0).random((90, 70))
print(repr(float(nmf(V, 5, random_state=0, max_iter=30).divergence)))
"""
SURROUNDINGS = {
    "no place for the cache": """
import numba.core.caching as caching
def refuse(self):
    raise PermissionError(13, "read-only")
for locator in caching.CacheImpl._locator_classes:
    locator.ensure_cache_path = refuse
""",
    "a cache on a full disk": """
import numba.core.caching as caching
def full(*_):
    raise OSError(28, "No space left on device")
caching.IndexDataCacheFile.save = full
caching.IndexDataCacheFile.load = lambda *_: None
""",
    "a damaged cache": """
import numba.core.caching as caching
def damaged(*_):
    raise EOFError("Ran out of input")
caching.IndexDataCacheFile.load = damaged
""",
    "no /proc": """
import pathlib
read = pathlib.Path.read_text
def without_proc(self, *args, **options):
    if str(self).startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory")
    return read(self, *args, **options)
pathlib.Path.read_text = without_proc
""",
    "one processor": """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
""",
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_default_call_works(name: str, tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="the kernels need numba: https://numba.pydata.org")
    V = np.random.default_rng(0).random((90, 70))
    expected = float(nmf(V, 5, random_state=0, max_iter=30).divergence)
    code = SURROUNDINGS[name] + FIT
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) == pytest.approx(expected, rel=1e-6)
