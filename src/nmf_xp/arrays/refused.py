"""What looks like an array and holds no numbers that can be read, or more than its numbers: refused at the door.

All else would end somewhere within, in the words of another library.
"""

from __future__ import annotations

import operator
import sys
from typing import Any

from nmf_xp.arrays import libraries

SHAPE = operator.attrgetter("shape")
MOST = 8  # items of a pair of factors, or of a list of terms
UNREAD = ("meta tensors", "DataDependentOutputException", "_local_scalar_dense", "fake tensor")


def check(name: str, x: Any) -> None:
    """Refuse such an argument; of a tuple or list, such an item."""
    if x is None or isinstance(x, (str, int, float)) or libraries.is_numpy(x):
        return
    if isinstance(x, (tuple, list)):
        for i, item in enumerate(x[:MOST]):
            if not isinstance(item, tuple | list):
                check(f"{name}[{i}]", item)
        return
    kind = _kind(x)
    if kind is not None:
        msg = f"`{name}` must hold numbers that can be read, got {kind}"
        raise TypeError(msg)


def checked(name: str, x: Any) -> Any:
    """The same argument, if it is none to refuse."""
    check(name, x)
    return x


def explain(names: tuple[str, ...], error: Exception) -> None:
    """One sentence where torch was asked for a number of a tensor that has none; `names` are those of the arguments."""
    said = f"{type(error).__name__} {error}"
    if "torch" not in sys.modules or isinstance(error, TypeError) or not any(words in said for words in UNREAD):
        return
    name = "X" if "X" in names else "V"
    msg = (
        f"`{name}` must hold numbers that can be read, got a tensor without any, on torch's meta device or a "
        "FakeTensor; pass one with numbers"
    )
    raise TypeError(msg) from None


def _kind(x: Any) -> str | None:
    """What the argument is and what to pass instead; None where nothing is wrong with it."""
    if libraries.is_torch(x):
        return _kind_of_tensor(x)
    if libraries.is_jax(x):
        ask: Any = getattr(x, "is_deleted", None)  # a traced array does not know it
        deleted = not libraries.is_traced(x) and ask is not None and ask()
        return (
            "a JAX array that was deleted, or donated to a function; pass one that is still there" if deleted else None
        )
    if type(x).__module__.startswith("scipy.sparse"):
        masked = libraries.is_masked(getattr(x, "data", None))
        rest = "whose mask would be ignored; fill its `.data`, or leave these entries out and say absent='missing'"
        return f"a sparse array with a masked array as its `.data`, {rest}" if masked else None
    return _kind_of_other(x)


def _kind_of_tensor(x: Any) -> str | None:
    if getattr(x, "is_nested", False):
        return "a nested tensor, whose rows may differ in length; pass `torch.nested.to_padded_tensor(..., 0.0)` of it"
    if getattr(x, "is_quantized", False):
        return "a quantized tensor; pass its `.dequantize()`"
    if getattr(x, "is_mkldnn", False):
        return "a tensor in the layout of MKL-DNN; pass its `.to_dense()`"
    return None


def _kind_of_other(x: Any) -> str | None:
    """Of a library that is not known: whether it can be asked for its namespace and shape."""
    if not hasattr(type(x), "__array_namespace__"):
        return None
    name = f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
    questions: Any = {"`__array_namespace__`": operator.methodcaller("__array_namespace__"), "`shape`": SHAPE}
    for what, asked in questions.items():
        try:
            asked(x)
        except Exception as error:
            said = " ".join(str(error).split()) or "no reason"
            return f"{name}, whose {what} raises {type(error).__name__}: {said}; pass a NumPy array of its values"
    return None
