"""Ctrl-C while a kernel is loaded or compiled: the next call works, and its numbers are right."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("numba", reason="the kernels need numba: https://numba.pydata.org")

LOADED = """
import os, signal, sys
import numpy as np
from nmf_xp import nmf

def fit():
    return nmf(V, 5, beta_loss=1, random_state=0, max_iter=20)

signal.signal(signal.SIGINT, signal.default_int_handler)
V = np.random.default_rng(0).random((200, 100))
at, seen = int(sys.argv[1]), 0

def interrupt(event, arguments):
    global seen
    if event == "import" and arguments[0].startswith("numba"):
        seen += 1
        if seen == at:
            signal.raise_signal(signal.SIGINT)

sys.addaudithook(interrupt)
try:
    fit()
except KeyboardInterrupt:
    print("interrupted")
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
found = fit().divergence
os.environ["NMF_XP_KERNELS"] = "0"
print(abs(found / fit().divergence - 1) < 1e-6)
"""

COMPILED = """
import signal, sys
import numpy as np
from nmf_xp.arrays.kernels import compiling, divergence

signal.signal(signal.SIGINT, signal.default_int_handler)
V, Y = np.random.default_rng(0).random((2, 500))
source = divergence.row_divergence.py_func
calls, at = 0, 0

def interrupt(frame, event, argument):
    global calls
    calls += event == "call"
    if calls == at:
        calls += 1
        signal.raise_signal(signal.SIGINT)

def compiled(number, name):
    global calls, at
    calls, at = 0, number
    # Each is a function of its own, so that none is found on the disk.
    kernel = compiling.jit(type(source)(source.__code__.replace(co_name=name), source.__globals__, name))
    sys.setprofile(interrupt)
    try:
        kernel(V, Y)
        return kernel, False
    except KeyboardInterrupt:
        return kernel, True
    finally:
        sys.setprofile(None)

expected = divergence.row_divergence(V, Y)
compiled(-1, "first")  # what numba does but once
compiled(-1, "whole")
total, answered = calls, 0
for i in range(12):
    kernel, interrupted = compiled(total * (i + 1) // 13, f"kernel_{i}")
    answered += interrupted
    assert kernel(V, Y) == expected
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print(answered)
"""


def _run(code: str, *arguments: str, cache: str | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "NMF_XP_KERNELS": "numba", **({} if cache is None else {"NUMBA_CACHE_DIR": cache})},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("at", [1, 40, 120])
def test_an_interrupt_while_numba_is_loaded_is_answered_when_it_is(at: int) -> None:
    assert _run(LOADED, str(at)) == ["interrupted", "True"]


def test_an_interrupt_while_a_kernel_is_compiled_is_answered_when_it_is(tmp_path: Path) -> None:
    (answered,) = _run(COMPILED, cache=str(tmp_path))
    assert answered == "12"
