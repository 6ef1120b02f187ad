"""Check that the built packages hold what they should, and that the wheel works in an empty environment."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

SDIST_TOP = {
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "PKG-INFO", "README.md", "benchmarks", "ci", "docs", "examples",
    "pyproject.toml", "src", "tests", ".gitignore",
}  # fmt: skip
TRY_IT = """
import numpy as np
from nmf_xp import nmf
result = nmf(np.arange(1.0, 13.0).reshape(4, 3), 2, beta_loss="kullback-leibler", random_state=0)
assert result.W.shape == (4, 2) and result.divergence < 1
"""


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
    with tempfile.TemporaryDirectory() as home:
        venv.create(home, with_pip=True)
        python = Path(home) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", wheel.resolve()], check=True)
        subprocess.run([python, "-c", TRY_IT], check=True, cwd=home)
        subprocess.run([Path(home) / "bin" / "nmf-xp", "--version"], check=True, cwd=home)
    print(f"{sdist.name} and {wheel.name} are fit to publish")


def _require(condition: bool, message: str) -> None:
    if not condition:
        sys.exit(message)


if __name__ == "__main__":
    main(sys.argv[1])
