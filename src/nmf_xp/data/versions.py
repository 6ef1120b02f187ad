"""What a process computes with, as far as it decides the numbers: asked of every worker before it gets a task."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from importlib import resources
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import kernels
from nmf_xp.arrays.kernels import compiling

if TYPE_CHECKING:
    from collections.abc import Iterator


def versions() -> dict[str, str]:
    """Those of this process. Two with the same ones compute the same but for the last digits, where machines differ.

    A plain dictionary, which a process with another version of this file can read.
    """
    import numpy as np

    import nmf_xp

    return {
        "release": f"nmf_xp {nmf_xp.__version__}",
        "source": _source(),
        "kernels": _compiler() if kernels.compiles() else "no kernels (no numba, or NMF_XP_KERNELS=0)",
        "numpy": "NumPy " + ".".join(np.__version__.split(".")[:2]),
    }


def unlike(theirs: dict[str, str], ours: dict[str, str]) -> tuple[str, str] | None:
    """In words, the first that differs in the two; None where none does."""
    differing = [name for name, here in ours.items() if theirs.get(name) != here]
    if not differing:
        return None
    if differing[0] == "source":
        there = f"source {theirs['source']}" if "source" in theirs else "another source"
        return f"{ours['release']} with {there}", f"the same with source {ours['source']}"
    return theirs.get(differing[0], "another one"), ours[differing[0]]


@functools.cache
def _compiler() -> str:
    ready = compiling.library()
    if ready is not None:
        return f"compiled kernels for {ready.used()}"
    return f"kernels of numba {importlib.metadata.version('numba')}"


@functools.cache
def _source() -> str:
    """A hash of the text of the package, the same for both kinds of line ends.

    It is read once: what is installed later does not change what has been imported.
    """
    digest = hashlib.blake2b(digest_size=4)
    for path, file in sorted(_files("", resources.files("nmf_xp"))):
        digest.update(path.encode() + file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def _files(path: str, folder: Any) -> Iterator[tuple[str, Any]]:
    for item in folder.iterdir():
        name = f"{path}/{item.name}"
        if item.is_dir():
            yield from _files(name, item)
        elif name.endswith(".py"):
            yield name, item
