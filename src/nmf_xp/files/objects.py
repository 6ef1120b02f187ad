"""NumPy's arrays of Python objects, read without running anything: names and numbers, as pandas' users save them.

Such an array is a pickle: a program for a small machine that may import and call whatever it names. NumPy writes it
for text with few of the machine's instructions, and those are read here as a description. An import is a name, a call
is a record of what would be called, and in the end the record must be that of an array of plain values. Anything else
is an error.
"""

from __future__ import annotations

import dataclasses
import math
import pickletools
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.data.sources import npy_header
from nmf_xp.files.archives import npz_sizes
from nmf_xp.files.opening import check_fits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    HostArray = np.ndarray[Any, Any]


class Name(NamedTuple):
    """What a pickle would import."""

    module: str
    name: str


MAKERS = (Name("numpy._core.multiarray", "_reconstruct"), Name("numpy.core.multiarray", "_reconstruct"))
ARRAY, DTYPE = Name("numpy", "ndarray"), Name("numpy", "dtype")
NAMES = {*MAKERS, ARRAY, DTYPE}
"""All that NumPy's pickle of an array names."""
LARGEST = 192  # bytes that an instruction of one byte may take in memory
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES"),
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
KEPT, TAKEN = {"MEMOIZE", "BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}
OTHERS = "it holds pickled Python objects other than text and numbers, which could run any code"


@dataclasses.dataclass
class Made:
    """What a pickle would make: by which call, and the state that it would set."""

    maker: Any
    arguments: Any
    state: Any = None


def read_objects(path: Path) -> dict[str, HostArray]:
    """All arrays of an .npz file, in which those of objects may hold text, numbers, booleans and None."""
    import numpy as np

    sizes, found = npz_sizes(path), {}
    check_fits(path, "what it holds", sum(sizes.values()))
    with zipfile.ZipFile(path) as zipped:
        for member in zipped.infolist():
            with zipped.open(member) as file:
                header = npy_header(file)
            with zipped.open(member) as file:
                if header.dtype.kind == "O":
                    check_fits(path, "what it describes", float(LARGEST * member.file_size))
                    file.read(header.begin)
                    array = objects(file.read(), header.shape)
                else:
                    array = np.lib.format.read_array(file, allow_pickle=False)
            found[member.filename.removesuffix(".npy")] = array
    return found


def objects(pickled: bytes, shape: tuple[int, ...]) -> HostArray:
    """The array of objects of this shape that a pickle describes.

    Raises
    ------
    ValueError
        It describes anything else.
    """
    import numpy as np

    try:
        values = _plain(_described(pickled), shape)
    except (IndexError, KeyError, TypeError) as error:
        msg = "its array of objects is damaged"
        raise ValueError(msg) from error
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _described(pickled: bytes) -> Any:
    """What the instructions would build, with records in the place of imports and calls."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks under each mark
    kept: dict[int, Any] = {}
    for what, value in _instructions(pickled):
        if what in VALUES:
            stack.append(value)
        elif what in CONSTANTS:
            stack.append(CONSTANTS[what])
        elif what in KEPT:
            kept[len(kept) if what == "MEMOIZE" else value] = stack[-1]
        elif what in TAKEN:
            stack.append(kept[value])
        elif what == "GLOBAL":
            stack.append(_name(*value.split(" ", 1)))
        elif what == "STACK_GLOBAL":
            stack.append(_name(*_popped(stack, 2)))
        elif what in ("EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append([] if what == "EMPTY_LIST" else ())
        elif what == "MARK":
            below.append(stack)
            stack = []
        elif what in ("TUPLE", "APPENDS"):
            items, stack = stack, below.pop()
            if what == "TUPLE":
                stack.append(tuple(items))
            else:
                _list(stack[-1]).extend(items)
        elif what in TUPLES:
            stack.append(_popped(stack, TUPLES[what]))
        elif what == "APPEND":
            item = stack.pop()
            _list(stack[-1]).append(item)
        elif what == "REDUCE":
            stack.append(Made(*_popped(stack, 2)))
        elif what == "BUILD":
            state = stack.pop()
            stack[-1] = dataclasses.replace(stack[-1], state=state)
        elif what == "STOP":
            return stack.pop()
        elif what not in ("PROTO", "FRAME"):
            raise ValueError(OTHERS)
    raise IndexError


def _instructions(pickled: bytes) -> Iterator[tuple[str, Any]]:
    """The name of each instruction, and the value that stands with it."""
    try:
        for operation, value, _ in pickletools.genops(pickled):
            yield operation.name, value
    except ValueError as error:  # of what is no pickle, or not all of one
        raise IndexError from error


def _name(module: Any, name: Any) -> Name:
    found = Name(module, name)
    if found not in NAMES:
        raise ValueError(OTHERS)
    return found


def _popped(stack: list[Any], count: int) -> tuple[Any, ...]:
    items = tuple(stack.pop() for _ in range(count))
    return items[::-1]


def _list(x: Any) -> list[Any]:
    if not isinstance(x, list):
        raise TypeError
    return x


def _plain(made: Any, shape: tuple[int, ...]) -> list[Any]:
    """The values of a record of an array of this shape. NumPy lists them row by row, whatever their order in memory."""
    if not isinstance(made, Made) or made.maker not in MAKERS or made.arguments[0] != ARRAY:
        raise ValueError(OTHERS)
    _, stored, dtype, _, values = made.state
    if not isinstance(dtype, Made) or dtype.maker != DTYPE or dtype.arguments[0] != "O8":
        raise ValueError(OTHERS)
    if not all(value is None or type(value) in (str, int, float, bool) for value in _list(values)):
        raise ValueError(OTHERS)
    if stored != shape or len(values) != math.prod(shape):
        raise IndexError
    return values
