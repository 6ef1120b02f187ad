"""The public functions as a target runs them, compiled once for each loss."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest

import nmf_xp
from nmf_xp.testing import Backend

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.testing import Target

eagerly = pytest.mark.parametrize(
    "target",
    [backend for backend in Backend if backend not in (Backend.TORCH_META, Backend.JAX_JIT)],
    ids=lambda backend: backend.value,
    indirect=True,
)
"""For tests that call the library as it is, not as the target compiles it: there jax:jit would repeat jax."""


@functools.cache
def divergence(target: Target, beta: float) -> Callable[..., Any]:
    """D(V | WH) as a function of V, W and H."""
    return target.compile(functools.partial(nmf_xp.beta_divergence, beta_loss=beta))


@functools.cache
def update_w(target: Target, beta: float) -> Callable[..., Any]:
    """The new W as a function of V, W and H."""
    return target.compile(functools.partial(nmf_xp.update_w, beta_loss=beta))


@functools.cache
def update_h(target: Target, beta: float) -> Callable[..., Any]:
    """The new H as a function of V, W and H."""
    return target.compile(functools.partial(nmf_xp.update_h, beta_loss=beta))


def factorize(target: Target, V: Any, W: Any, H: Any, **options: Any) -> nmf_xp.Result:
    """`nmf` from a given start."""
    run = target.compile(lambda V, W, H: nmf_xp.nmf(V, W.shape[-1], init=(W, H), **options))
    return run(V, W, H)
