"""Every backend as a fixture, and the settings under which all tests run."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from nmf_xp.testing import Backend, Target
from tests import stand_in
from tests.known_failures import KNOWN_FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator

with contextlib.suppress(ImportError):
    import jax

    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]

CI = bool(os.environ.get("CI"))
NEEDS_A_GPU = {Backend.JAX_GPU, Backend.TORCH_CUDA}
collect_ignore = ["stand_in"]  # libraries, not tests
LEFT_OUT = os.environ.get("BACKENDS_LEFT_OUT", "").split()  # libraries that CI does without, by name

hypothesis.settings.register_profile(
    "nmf_xp",
    deadline=None,
    derandomize=CI,
    max_examples=25,
    # A target is the same for every example of a test.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("nmf_xp")


@pytest.fixture(autouse=True)
def _pictures_are_closed() -> Iterator[None]:
    """matplotlib keeps every figure that is not closed, and warns of the twenty-first."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_dropped() -> Iterator[None]:
    """JAX keeps every program that it compiled: gigabytes over all tests."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


def pytest_report_header() -> list[str]:
    with installed(Backend.CUPY):
        missing = {backend.value: reason for backend in Backend if (reason := backend.missing()) is not None}
    covered = ", ".join(backend.value for backend in Backend if backend.value not in missing)
    skipped = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
    stood_in = ["cupy stands on NumPy: tests/stand_in"] if stand_in.needed() else []
    return [f"backends covered: {covered}", *stood_in, f"backends not covered: {skipped or 'none'}"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        for backend in item.callspec.params.values():
            known = KNOWN_FAILURES.get((backend, item.originalname)) if isinstance(backend, Backend) else None
            if known is not None:
                item.add_marker(pytest.mark.xfail(reason=f"{known.reason}: {known.link}", strict=True))


@pytest.fixture(params=[b for b in Backend if b is not Backend.TORCH_META], ids=lambda backend: backend.value)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Each backend whose arrays have values."""
    yield from _active_target(request.param)


@pytest.fixture(params=list(Backend), ids=lambda backend: backend.value)
def any_target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Each backend, with torch's meta device, whose arrays have a shape and a dtype but no values to read."""
    yield from _active_target(request.param)


def installed(backend: Backend) -> contextlib.AbstractContextManager[object]:
    """The library of a backend, or what stands in for it."""
    return stand_in.installed() if backend is Backend.CUPY and stand_in.needed() else contextlib.nullcontext()


def _active_target(backend: Backend) -> Iterator[Target]:
    with installed(backend):
        yield from _found_target(backend)


def _found_target(backend: Backend) -> Iterator[Target]:
    reason = backend.missing()
    if reason is not None and CI and backend not in NEEDS_A_GPU and backend.library not in LEFT_OUT:
        pytest.fail(f"{backend.value}: {reason}, and CI must cover every backend that runs on a CPU")
    if reason is not None:
        pytest.skip(f"{backend.value}: {reason}")
    target = backend.target()
    with target.active():
        yield target


@pytest.fixture
def devices() -> Iterator[Any]:
    """The stand-in for CuPy, whatever is installed: its devices, and what it counts."""
    with stand_in.installed() as devices:
        yield devices


@pytest.fixture
def cupy(devices: Any) -> Any:
    """The stand-in for CuPy as it is imported."""
    return sys.modules["cupy"]
