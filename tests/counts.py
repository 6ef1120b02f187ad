"""What a function launches and moves on a device, counted on torch tensors, which may be on the device "meta"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

FROM_HOST = {torch.asarray, torch.tensor, torch.as_tensor, torch.scalar_tensor}


class Counts(TorchDispatchMode):
    """Operators, uploads and reads of values since it was entered, and passes over arrays of `size` numbers and more.

    An operator is what a device is asked to run; a view is none. An upload is an array made of Python numbers on the
    host. A pass is one read or write of `size` numbers of `width` bytes.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size, self.width = size, width
        self.operators, self.uploads, self.reads, self.passes = 0, 0, 0, 0.0
        self._uploads = _Uploads(self)

    def __enter__(self) -> Counts:
        super().__enter__()  # type: ignore[no-untyped-call]
        self._uploads.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uploads.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        if any(x.alias_info is not None and not x.alias_info.is_write for x in func._schema.returns):
            return result  # a view
        self.operators += 1
        for x in tree_leaves((args, kwargs, result)):
            if isinstance(x, torch.Tensor) and x.numel() >= self.size:
                self.passes += x.numel() * x.element_size() / (self.size * self.width)
        return result


class _Uploads(TorchFunctionMode):
    """The part of `Counts` that sees functions before their numbers are arrays."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.counts.uploads += func in FROM_HOST and not isinstance(args[0], torch.Tensor)
        return func(*args, **(kwargs or {}))


def counted(function: Callable[[], object], *, size: int, width: int) -> Counts:
    """The counts of one call."""
    with Counts(size, width) as counts:
        function()
    return counts
