"""The default call where a process may do less than usual: nothing to write, no /proc, no home, part of a processor."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nmf_xp import nmf
from nmf_xp.arrays import blas, groups, memory, threads

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    "half of a processor": """
import pathlib
from nmf_xp.arrays import blas, groups
pathlib.Path("cpu.max").write_text("50000 100000")
groups.ROOT = pathlib.Path.cwd()
assert blas.processors() == 1
""",
    "OMP_NUM_THREADS": """
import os
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "7"
""",
    "more threads than processors": """
import os
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "9"
""",
    "no threadpoolctl": """
import sys
sys.modules["threadpoolctl"] = None
""",
    "BLAS that cannot be set": """
import threadpoolctl
threadpoolctl.OpenBLASController.set_num_threads = lambda *_: None
""",
    "BLAS that does not know its threads": """
import threadpoolctl
threadpoolctl.OpenBLASController.get_num_threads = lambda _: None
threadpoolctl.OpenBLASController.set_num_threads = lambda *_: None
""",
    "a read-only home": """
import os, sys
def refuse(event, arguments):
    writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event in ("os.mkdir", "os.rename", "os.remove"):
        raise OSError(30, "Read-only file system")
sys.addaudithook(refuse)
""",
    "a small /dev/shm": """
import sys
def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith("/dev/shm"):
        raise OSError(28, "No space left on device")
sys.addaudithook(refuse)
""",
    "full disks": """
import os, sys
def refuse(event, arguments):
    if event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        raise OSError(28, "No space left on device")
sys.addaudithook(refuse)
""",
    "no folder for temporary files": """
import os, tempfile
os.environ["TMPDIR"] = os.path.abspath("nowhere")
def none():
    raise FileNotFoundError(2, "No usable temporary directory found")
tempfile._get_default_tempdir = none
""",
    "no home": """
import os, pathlib
for name in ("HOME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
    os.environ.pop(name, None)
def none(*_):
    raise RuntimeError("Could not determine home directory.")
pathlib.Path.home = pathlib.Path.expanduser = none
""",
}


@pytest.mark.parametrize("name", SURROUNDINGS)
@pytest.mark.parametrize("kernels", ["compiled", "numba"])
def test_the_default_call_works(kernels: str, name: str, tmp_path: Path) -> None:
    V = np.random.default_rng(0).random((90, 70))
    expected = float(nmf(V, 5, random_state=0, max_iter=30).divergence)
    code = SURROUNDINGS[name] + FIT
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NMF_XP_KERNELS": kernels},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) == pytest.approx(expected, rel=1e-6)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the control groups, in which this process is in `service` within `slice`."""
    monkeypatch.setattr(groups, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(groups, "OWN", tmp_path / "own")
    (tmp_path / "own").write_text("4:memory:/slice/service\n2:cpu,cpuacct:/slice/service\n0::/slice/service\n")
    groups.processors.cache_clear()
    yield tmp_path / "cgroup"
    groups.processors.cache_clear()


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("folder", "files", "expected"),
    [
        ("", {"cpu__max": "50000 100000\n"}, 1),
        ("", {"cpu__max": "max 100000\n"}, None),
        ("slice/service", {"cpu__max": "150000 100000\n"}, 2),
        ("slice", {"cpu__max": "300000 100000\n"}, 3),
        ("cpu", {"cpu__cfs_quota_us": "50000\n", "cpu__cfs_period_us": "100000\n"}, 1),
        ("cpu", {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}, None),
        ("cpu/slice/service", {"cpu__cfs_quota_us": "400000\n", "cpu__cfs_period_us": "100000\n"}, 4),
        ("cpu", {"cpu__cfs_quota_us": "400000\n"}, None),
        ("other", {"cpu__max": "50000 100000\n"}, None),
    ],
)
def test_the_time_that_a_group_may_have_is_counted(
    tree: Path, folder: str, files: dict[str, str], expected: int | None
) -> None:
    _write(tree / folder, **files)
    assert groups.processors() == expected
    assert blas.processors() <= (expected or 10**6)


def test_the_least_share_of_the_groups_around_counts(tree: Path) -> None:
    for folder, quota in (("", "max"), ("slice", "200000"), ("slice/service", "900000")):
        _write(tree / folder, cpu__max=f"{quota} 100000")
    assert groups.processors() == 2


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        ("", {"memory__max": "9000", "memory__current": "5000", "memory__stat": "anon 4000\nfile 1000\n"}),
        ("slice", {"memory__max": "9000", "memory__current": "5000", "memory__stat": "anon 4000\nfile 1000\n"}),
        (
            "memory/slice/service",
            {
                "memory__limit_in_bytes": "9000",
                "memory__usage_in_bytes": "5000",
                "memory__stat": "cache 1\ntotal_cache 1000\n",
            },
        ),
    ],
)
def test_the_memory_that_a_group_has_left_is_counted(tree: Path, folder: str, files: dict[str, str]) -> None:
    assert groups.memory() is None
    _write(tree / folder, **files)
    assert groups.memory() == 5000
    assert memory.available() <= 5000


def test_blas_has_one_thread_where_there_is_half_a_processor(tree: Path) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    _write(tree, cpu__max="50000 100000")
    seen = []

    def threads_now() -> set[int]:
        return {library.num_threads for library in blas._controller().lib_controllers}

    V = np.random.default_rng(0).random((60, 40))
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        with threads.held_blas():
            assert (threads.count(), threads_now()) == (1, {1})
        nmf(V, 3, random_state=0, max_iter=20, tol=1e-12, callback=lambda _: seen.append(threads_now()))
        assert threads_now() == {3}
    assert seen == [{3}] * len(seen)
    assert seen
