"""Files that a command writes and that are something else too, through whatever links lead to them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmf_xp.cli import main
from nmf_xp.run.checkpoint.place import folder_of
from tests.cli.test_cli import V, here, load

__all__ = ["here"]
POSIX = pytest.mark.skipif(os.name != "posix", reason="links, modes and owners are POSIX's")
FIT = ["fit", "V.npz", "-k", "2", "--random-state", "0", "--max-iter", "20"]


def content(folder: Path) -> dict[Path, Any]:
    return {p: p.readlink() if p.is_symlink() else p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def refusal(capsys: pytest.CaptureFixture[str], path: str, other: str, name: str = "--out") -> None:
    said = f"nmf-xp: error: {path}: is given by {name} and is also what {other} names; name another file\n"
    assert capsys.readouterr().err == said


@pytest.fixture
def files(here: Path) -> Path:
    np.savez("V.npz", V=V)
    np.savez("weights.npz", V=np.ones(V.shape))
    Path("sub").mkdir()
    assert main([*FIT, "--checkpoint", "run.npz", "--checkpoint-every", "10", "--out", "W.npz", "--tol", "0"]) == 0
    if os.name == "posix":
        for name in ("V", "run", "weights", "new"):
            Path(f"link-to-{name}.npz").symlink_to(f"{name}.npz")
        Path("sub/up").symlink_to("..")
    return here


WAYS = {
    "V.npz": "FILE",
    "./sub/../V.npz": "FILE",
    "weights.npz": "--weights",
    "run.npz": "--checkpoint",
    "sub/../run.npz": "--checkpoint",
    "{folder}/out.npz": "--checkpoint",
    "{previous}": "--checkpoint",
}
if os.name == "posix":
    WAYS |= {
        "link-to-V.npz": "FILE",
        "sub/up/V.npz": "FILE",
        "link-to-weights.npz": "--weights",
        "link-to-run.npz": "--checkpoint",
        "sub/up/link-to-run.npz": "--checkpoint",
    }


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("out", WAYS)
def test_factors_are_not_written_over_what_the_run_reads_or_keeps(
    files: Path, out: str, force: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(Path("run.npz"))
    name = out.format(folder=folder, previous=next(folder.glob("previous-*")))
    before = content(files)
    capsys.readouterr()
    for path in (name, str(files / name)):
        words = [*FIT, "--weights", "weights.npz", "--checkpoint", "run.npz", "--resume", "--out", path, *force]
        assert main(words) == 2
        refusal(capsys, str(Path(path)), WAYS[out])
        assert content(files) == before


def test_a_folder_that_is_read_gets_no_output(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tenx = files / "tenx"
    tenx.mkdir()
    (tenx / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate real general\n2 3 2\n1 1 1\n2 3 4\n")
    monkeypatch.chdir(tenx)
    assert main(["fit", ".", "-k", "1"]) == 2
    said = "tenx.factors.npz: is given by --out and lies in the folder that FILE names; name another file"
    assert capsys.readouterr().err == f"nmf-xp: error: {said}\n"
    assert main(["fit", ".", "-k", "1", "--out", "../cells.npz"]) == 0
    assert (files / "cells.npz").is_file()
    assert list(tenx.iterdir()) == [tenx / "matrix.mtx"]


def test_a_checkpoint_that_is_not_there_yet_is_not_the_output(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for out in ["new.npz", "./new.npz", *(["link-to-new.npz"] if os.name == "posix" else [])]:
        for force in ([], ["--force"]):
            assert main([*FIT, "--checkpoint", "new.npz", "--out", out, *force]) == 2
            refusal(capsys, str(Path(out)), "--checkpoint")
    assert not Path("new.npz").exists()


def test_a_checkpoint_is_not_what_the_run_reads(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = content(files)
    for path, other in (("V.npz", "FILE"), ("weights.npz", "--weights"), ("W.npz", "--start")):
        words = [*FIT, "--weights", "weights.npz", "--start", "W.npz", "--checkpoint", path, "--resume"]
        assert main(words) == 2
        refusal(capsys, path, other, "--checkpoint")
    assert content(files) == before


def test_an_earlier_output_may_be_replaced_by_what_began_with_it(files: Path) -> None:
    assert main([*FIT, "--start", "W.npz", "--out", "W.npz"]) == 2
    assert main([*FIT, "--start", "W.npz", "--out", "W.npz", "--force"]) == 0
    assert load("W.npz")["W"].shape == (20, 2)


@POSIX
def test_force_leaves_links_modes_and_owners(files: Path) -> None:
    assert main([*FIT, "--out", "link-to-new.npz"]) == 0  # a link to nothing yet
    assert Path("link-to-new.npz").is_symlink()
    owner = (os.getuid(), os.getgid())
    if os.geteuid() == 0:
        owner = (12345, 23456)
        os.chown("new.npz", *owner)
    for mode in (0o600, 0o444, 0o640):
        Path("new.npz").chmod(mode)
        before = Path("new.npz").read_bytes()
        assert main([*FIT, "--out", "link-to-new.npz", "--force"]) == 0
        assert Path("link-to-new.npz").readlink() == Path("new.npz")
        found = Path("new.npz").stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode, *owner)
        assert Path("new.npz").read_bytes() != before


@POSIX
def test_a_pipe_and_a_circle_are_no_outputs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.npz")
    Path("null.npz").symlink_to(os.devnull)
    Path("circle.npz").symlink_to("circle.npz")
    capsys.readouterr()
    for name in ("pipe.npz", "null.npz"):
        for force in ([], ["--force"]):
            assert main([*FIT, "--out", name, *force]) == 2
            said = f"nmf-xp: error: {name}: is a device, a pipe or a socket, not a file; name another one\n"
            assert capsys.readouterr().err == said
    assert main([*FIT, "--out", "circle.npz", "--force"]) == 2
    assert capsys.readouterr().err == "nmf-xp: error: circle.npz: cannot be written: its links go in a circle\n"


def test_an_output_that_comes_to_be_there_during_the_run_stays(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nmf_xp.cli import fit

    def written(*_: Any) -> dict[str, Any]:
        Path("late.npz").write_bytes(b"the user's")
        return {}

    monkeypatch.setattr(fit, "_overview", written)
    assert main([*FIT, "--out", "late.npz"]) == 2
    assert Path("late.npz").read_bytes() == b"the user's"
    said = capsys.readouterr().err.strip()
    assert "late.npz: has come to be there in the meantime; what was to be written is in " in said
    assert load(said.rpartition(" ")[2])["W"].shape == (20, 2)


@POSIX
def test_a_page_is_not_written_over_its_factors(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("page.html").symlink_to("W.npz")
    before = content(files)
    capsys.readouterr()
    for force in ([], ["--force"]):
        assert main(["report", "W.npz", "--out", "page.html", *force]) == 2
        refusal(capsys, "page.html", "FILE")
    assert content(files) == before


def test_the_demo_and_the_conformance_report_replace_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("nmf-xp-demo.png", "report.json"):
        Path(name).write_bytes(b"the user's")
    for words in (["demo"], ["conformance", "--json", "report.json", "--backend", "numpy"]):
        assert main(words) == 2
        assert capsys.readouterr().err.endswith("exists already; say --force to replace it\n")
    assert {Path(name).read_bytes() for name in ("nmf-xp-demo.png", "report.json")} == {b"the user's"}


def test_a_second_run_on_the_command_line_is_one_sentence(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nmf_xp.run.checkpoint.place import Place

    capsys.readouterr()
    with Place("run.npz"):
        assert main([*FIT, "--checkpoint", "run.npz", "--resume", "--tol", "0", "--out", "again.npz"]) == 2
    said = "run.npz: is in use by another run; wait until that has ended, or name another file"
    assert capsys.readouterr().err == f"nmf-xp: error: {said}\n"
    assert not Path("again.npz").exists()
