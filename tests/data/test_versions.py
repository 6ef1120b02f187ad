"""Workers and schedulers with another package, another NumPy or without kernels are refused by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import nmf
from nmf_xp.arrays import kernels
from nmf_xp.data.versions import _source
from tests.clusters import HERE, cluster, until, worker
from tests.problems import noisy

da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

V = noisy(90, 24, 3).V
SOURCE = Path(nmf_xp.__file__).parent
OPTIONS: dict[str, Any] = {"beta_loss": 1.0, "random_state": 0, "max_iter": 22, "tol": 1e-30, "check_every": 5}


def never(block_info: Any = None) -> Any:
    """The loader of a V that must not be asked for."""
    msg = "V was loaded"
    raise AssertionError(msg)


def copied(folder: Path, changes: dict[str, str]) -> Path:
    """The package elsewhere, with text at the end of some of its files."""
    shutil.copytree(SOURCE, folder / "nmf_xp", ignore=shutil.ignore_patterns("__pycache__"))
    installed = folder / f"nmf_xp-{nmf_xp.__version__}.dist-info"
    installed.mkdir()
    text = f"Metadata-Version: 2.1\nName: nmf_xp\nVersion: {nmf_xp.__version__}\n"
    (installed / "METADATA").write_text(text, encoding="utf-8")
    for name, text in changes.items():
        with (folder / "nmf_xp" / name).open("a", encoding="utf-8") as file:
            file.write(text)
    return folder


OTHERS: dict[str, tuple[dict[str, str], str, str]] = {
    "a release": ({"__init__.py": '__version__ = "0.0.9"\n'}, "nmf_xp 0.0.9", rf"nmf_xp {nmf_xp.__version__}"),
    "kernels": (
        {"arrays/kernels/multiplicative.py": "# other\n"},
        rf"nmf_xp {nmf_xp.__version__} with source [0-9a-f]{{8}}",
        "the same with source [0-9a-f]{8}",
    ),
    "an earlier source": (
        {"data/versions.py": "del versions\n"},
        rf"nmf_xp {nmf_xp.__version__} with another source",
        "the same with source [0-9a-f]{8}",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_worker_with_another_package_is_refused_by_name_before_v_is_loaded(name: str, tmp_path: Path) -> None:
    changes, theirs, ours = OTHERS[name]
    D = da.map_blocks(never, chunks=((30, 30), (24,)), dtype=V.dtype, meta=np.empty((0, 0)))
    with cluster(1, **HERE) as (here, client), worker(here.scheduler_address, copied(tmp_path, changes)) as address:
        rule = rf"^`V` is on a dask cluster whose worker {address} has {theirs}, and this process {ours}; make them"
        with pytest.raises(RuntimeError, match=rule):
            nmf(D, 3, **OPTIONS)
        assert not client.futures


AT_THE_START = {
    "no nmf_xp, and this process nmf_xp": (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(name, path, target=None):\n"
        "        if name == 'nmf_xp': raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent)\n"
    ),
    "NumPy 1.99, and this process NumPy 2": "import numpy\nnumpy.__version__ = '1.99.1'\n",
}


@pytest.mark.parametrize("said", AT_THE_START)
def test_a_worker_without_the_package_or_with_another_numpy_is_refused_by_name(said: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_THE_START[said], encoding="utf-8")
    with cluster(0, **HERE) as (here, _), worker(here.scheduler_address, tmp_path) as address:
        rule = rf"whose worker {address} has {said}"
        with pytest.raises(RuntimeError, match=rule):
            nmf(da.from_array(V, chunks=(30, 24)), 3, **OPTIONS)


def test_a_scheduler_with_another_package_is_refused_by_name(tmp_path: Path) -> None:
    """It reads the tasks, and hands them on."""
    path = copied(tmp_path / "package", {"__init__.py": '__version__ = "0.0.9"\n'})
    file = tmp_path / "scheduler.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(path), os.environ.get("PYTHONPATH", "")))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(file.exists)
        with distributed.Client(scheduler_file=str(file)) as client:
            rule = rf"whose scheduler {client.scheduler.address} has nmf_xp 0.0.9, and this process nmf_xp \d"
            with pytest.raises(RuntimeError, match=rule):
                nmf(da.from_array(V, chunks=(30, 24)), 3, **OPTIONS)
    finally:
        process.kill()
        process.wait()


def test_the_source_is_the_same_with_other_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for ends, text in {"unix": b"a = 1\nb = 2\n", "windows": b"a = 1\r\nb = 2\r\n", "other": b"a = 1\nb = 3\n"}.items():
        (tmp_path / ends / "inner").mkdir(parents=True)
        (tmp_path / ends / "inner" / "part.py").write_bytes(text)
        (tmp_path / ends / "notes.txt").write_text(ends, encoding="utf-8")
        monkeypatch.setattr("nmf_xp.data.versions.resources.files", lambda _, ends=ends: tmp_path / ends)
        found[ends] = _source.__wrapped__()
    assert found["unix"] == found["windows"] != found["other"]


def test_a_worker_without_kernels_is_refused_also_where_it_joins_later() -> None:
    """Here it gets the blocks of a worker that dies, which would go on with other last digits."""
    assert kernels.compiles(), "these tests need the kernels: install a C compiler or numba"
    with cluster(1) as (here, client), contextlib.ExitStack() as stack:

        def replace(progress: Any) -> None:
            if progress.iteration == 10:
                addresses.append(stack.enter_context(worker(here.scheduler_address, NMF_XP_KERNELS="0")))
                client.sync(here.scheduler.retire_workers, names=[0])

        addresses: list[str] = []
        rule = r"has no kernels \(no numba, or NMF_XP_KERNELS=0\), and this process (compiled kernels|kernels of)"
        with pytest.raises(RuntimeError, match=rule) as caught:
            nmf(da.from_array(V, chunks=(30, 24)), 3, callback=replace, **OPTIONS)
        assert f"whose worker {addresses[0]} has" in str(caught.value)


def test_a_worker_that_comes_back_changed_to_its_old_address_is_refused_by_its_tasks() -> None:
    assert kernels.compiles(), "these tests need the kernels: install a C compiler or numba"

    def switch_off() -> None:
        os.environ["NMF_XP_KERNELS"] = "0"

    with cluster(1) as (_, client):

        def change(progress: Any) -> None:
            if progress.iteration == 10:
                client.run(switch_off)

        (address,) = client.nthreads()
        with pytest.raises(
            RuntimeError,
            match=rf"whose worker {address} has no kernels .* this process (compiled kernels|kernels of)",
        ):
            nmf(da.from_array(V, chunks=(30, 24)), 3, callback=change, **OPTIONS)


def test_workers_and_client_without_kernels_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMF_XP_KERNELS", "0")
    with cluster(1):
        result = nmf(da.from_array(V, chunks=(30, 24)), 3, **OPTIONS)
    np.testing.assert_allclose(result.H, nmf(V, 3, solver="mu", **OPTIONS).H, rtol=1e-10)
