"""What looks like an array and holds no numbers, or more than its numbers, is refused in a sentence of ours."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import RowBlocks

if TYPE_CHECKING:
    from collections.abc import Callable

V, W, H = np.ones((6, 5)), np.ones((6, 2)), np.ones((2, 5))


class Raises:
    """An array of a library that fails when it is asked for anything."""

    dtype = V.dtype

    def __init__(self, what: str) -> None:
        self._what = what

    @property
    def shape(self) -> Any:
        if self._what == "shape":
            msg = "no shape"
            raise RuntimeError(msg)
        return V.shape

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        if self._what == "__array_namespace__":
            msg = "no\nnamespace"
            raise RuntimeError(msg)
        return np


def nested() -> Any:
    torch = pytest.importorskip("torch")
    return torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged)


def mkldnn() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without MKL-DNN")
    return torch.ones(6, 5).to_mkldnn()


def meta() -> Any:
    return pytest.importorskip("torch").empty(6, 5, device="meta")


def fake() -> Any:
    mode = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode()
    with mode:
        return pytest.importorskip("torch").ones(6, 5)


def deleted() -> Any:
    x = pytest.importorskip("jax.numpy").ones((6, 5))
    x.delete()
    return x


def masked(form: str) -> Any:
    x = pytest.importorskip("scipy.sparse").csr_array(V * np.arange(1, 6)).asformat(form)
    x.data = np.ma.masked_less(x.data, 3)
    return x


KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "nested": (nested, "a nested tensor, whose rows may differ in length; pass"),
    "mkldnn": (mkldnn, "a tensor in the layout of MKL-DNN; pass its `.to_dense()`"),
    "meta": (meta, "a tensor without any, on torch's meta device or a FakeTensor; pass one with numbers"),
    "fake": (fake, "a tensor without any, on torch's meta device or a FakeTensor; pass one with numbers"),
    "deleted": (deleted, "a JAX array that was deleted, or donated to a function; pass one that is still there"),
    "namespace": (
        lambda: Raises("__array_namespace__"),
        "Raises, whose `__array_namespace__` raises RuntimeError: no n",
    ),
    "shape": (lambda: Raises("shape"), "Raises, whose `shape` raises RuntimeError: no shape; pass a NumPy array"),
    **{
        f"masked {form}": (functools.partial(masked, form), "a sparse array with a masked array as its `.data`")
        for form in ("csr", "csc", "coo", "bsr", "dia")
    },
}


def estimator(x: Any) -> Any:
    return pytest.importorskip("nmf_xp.sklearn").NMF(2, max_iter=2).fit(x)


CALLS: dict[str, Callable[[Any], Any]] = {
    "V": lambda x: nmf_xp.nmf(x, 2, random_state=0),
    "V of blocks": lambda x: nmf_xp.nmf(RowBlocks([x, x]), 2),
    "V of ranks": lambda x: nmf_xp.select_rank(x, [1, 2], n_restarts=2, random_state=0),
    "X": estimator,
    "V of a formula": lambda x: nmf_xp.beta_divergence(x, W, H),
    "init[0]": lambda x: nmf_xp.nmf(V, 2, init=(x, H)),
    "weights": lambda x: nmf_xp.nmf(V, 2, weights=x),
}
ONLY_AS_DATA = ("meta", "fake")  # others are refused as those of another library


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_one_sentence(kind: str, call: str) -> None:
    make, what = KINDS[kind]
    if kind in ONLY_AS_DATA and call in ("V of a formula", "init[0]", "weights"):
        return
    with pytest.raises(TypeError) as caught:
        CALLS[call](make())
    name, message = call.split(" of ")[0], str(caught.value)
    assert message.startswith(f"`{name}` must hold numbers that can be read, got ")
    assert what in message
    assert "\n" not in message
