"""Check that the built packages hold what they should, and that each works in an empty environment, on every Python.

There `pip install "nmf_xp[EXTRA]"`, as messages say it, must install the extra of what is installed, whether or not the
package index has an nmf_xp.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

SDIST_TOP = {
    "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "PKG-INFO", "README.md", "benchmarks", "ci", "docs",
    "examples", "hatch_build.py", "pyproject.toml", "src", "tests", ".gitignore",
}  # fmt: skip
TRY_IT = """
import sys
import numpy as np
from nmf_xp import nmf
from nmf_xp.arrays.kernels import compiling
result = nmf(np.arange(1.0, 13.0).reshape(4, 3), 2, beta_loss="kullback-leibler", random_state=0)
assert result.W.shape == (4, 2) and result.divergence < 1
assert (compiling.library() is not None) == (sys.argv[1] == "compiled"), compiling.library()
"""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
GLIBC = {"manylinux_2_17": (2, 17)}  # what the name of a wheel promises


def main(folder: str) -> None:
    """Check the one sdist and the one wheel in `folder`."""
    (sdist,), (wheel,) = Path(folder).glob("*.tar.gz"), Path(folder).glob("*.whl")
    with tarfile.open(sdist) as archive:
        top = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    _require(top <= SDIST_TOP, f"{sdist.name} holds more than it should: {sorted(top - SDIST_TOP)}")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    strangers = [name for name in names if not name.startswith(("nmf_xp/", "nmf_xp-"))]
    _require(not strangers, f"{wheel.name} holds more than the package: {strangers}")
    _require("nmf_xp/py.typed" in names, f"{wheel.name} lacks py.typed")
    _require(any(name.endswith("licenses/LICENSE") for name in names), f"{wheel.name} lacks the licence")
    kind = "pure" if wheel.name.endswith("py3-none-any.whl") else "compiled"
    for promised, most in GLIBC.items():
        if promised in wheel.name:
            asked = _glibc(wheel)
            _require(max(asked) <= most, f"{wheel.name} asks for glibc {max(asked)}, more than its name says")
    pythons = [python for python in map(_interpreter, PYTHONS) if python]
    for interpreter in pythons or [sys.executable]:
        with tempfile.TemporaryDirectory() as home:
            _try(interpreter, home, {wheel: kind, sdist: "pure"})
    print(f"{sdist.name} and {wheel.name} ({kind}) are fit to publish, tried on {len(pythons) or 1} Pythons")


def _try(interpreter: str, home: str, packages: dict[Path, str]) -> None:
    """Install each into an environment that is empty but for what it needs, from sources without compiling; use it."""
    subprocess.run([interpreter, "-m", "venv", home], check=True)
    python, environment = str(Path(home) / "bin" / "python"), os.environ | {"NMF_XP_COMPILE": "0"}
    for package, kind in packages.items():
        for words in (["uninstall", "-q", "-y", "nmf_xp"], ["install", "-q", str(package.resolve())]):
            subprocess.run([python, "-m", "pip", *words], check=True, env=environment)
        subprocess.run([python, "-c", TRY_IT, kind], check=True, cwd=home)
        subprocess.run([Path(home) / "bin" / "nmf-xp", "--version"], check=True, cwd=home)
    subprocess.run([python, "-m", "pip", "install", "-q", "nmf_xp[progress]"], check=True, cwd=home)
    subprocess.run([python, "-c", "import tqdm, nmf_xp"], check=True, cwd=home)


def _interpreter(version: str) -> str | None:
    """The path of a Python that is installed and runs; a shim of pyenv must be told the version."""
    for environment in (os.environ, os.environ | {"PYENV_VERSION": version}):
        try:
            ask = [f"python{version}", "-c", "import ensurepip, sys; print(sys.executable)"]
            return subprocess.run(ask, env=environment, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            continue
    return None


def _glibc(wheel: Path) -> set[tuple[int, ...]]:
    """The versions of glibc that its libraries ask for."""
    with zipfile.ZipFile(wheel) as archive:
        texts = [archive.read(name) for name in archive.namelist() if name.endswith(".so")]
    found = {match.decode() for text in texts for match in re.findall(rb"GLIBC_([0-9.]+)", text)}
    return {tuple(map(int, version.split("."))) for version in found}


def _require(condition: bool, message: str) -> None:
    if not condition:
        sys.exit(message)


if __name__ == "__main__":
    main(sys.argv[1])
