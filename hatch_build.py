"""What the build of a wheel adds to hatchling's: the kernels compiled ahead, where a C compiler is at hand.

Where it is not, or compiling fails, the wheel is a pure one that works everywhere, and the build says so.
`NMF_XP_COMPILE` in the environment decides otherwise: 0 leaves the kernels out. Names of levels of processor ask for
these, in the place of the best of this machine, and for an error where they cannot be had. `NMF_XP_PLATFORM` is the
platform in the wheel's name. Both are for releases (`ci/wheels.sh`).
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = "nmf_xp/arrays/kernels"
LIBRARY = "_compiled.abi3.so"
NEEDED = ["numba>=0.61", "numpy>=2", "array-api-compat>=1.12"]


class CompileKernels(BuildHookInterface):
    """Compile the kernels before a wheel is made."""

    room: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """What compiling needs, where it is to be tried."""
        return NEEDED if self.target_name == "wheel" and _can_compile() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, into the source tree for an editable installation and beside it for others."""
        if self.target_name != "wheel" or not _can_compile():
            return
        editable = version == "editable"
        self.room = tempfile.TemporaryDirectory()
        folder = Path(self.root, "src", KERNELS) if editable else Path(self.room.name)
        levels = _asked().split()
        command = [sys.executable, "-m", f"{KERNELS.replace('/', '.')}.ahead", "--out", str(folder / LIBRARY)]
        command += ["--levels", *levels] if levels else []
        path = os.pathsep.join([str(Path(self.root, "src")), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        environment = os.environ | {"PYTHONPATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            if levels:
                raise RuntimeError(done.stderr)
            self.app.display_warning(f"The kernels are left to numba, when they are called.\n{done.stderr}")
            return
        tag = os.environ.get("NMF_XP_PLATFORM", sysconfig.get_platform()).replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{tag}"
        if not editable:
            build_data["force_include"][str(folder / LIBRARY)] = f"{KERNELS}/{LIBRARY}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what the wheel has now."""
        if self.room is not None:
            self.room.cleanup()


def _asked() -> str:
    return os.environ.get("NMF_XP_COMPILE", "")


def _can_compile() -> bool:
    """Whether kernels are wanted, and can be made for this processor and Python, by a compiler with headers."""
    known = platform.machine() in {"x86_64", "aarch64", "arm64"} and sys.platform in {"linux", "darwin"}
    usual = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
    compiler = shutil.which(shlex.split(os.environ.get("CC", "cc"))[0])
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return known and usual and _asked() != "0" and compiler is not None and headers.exists()
