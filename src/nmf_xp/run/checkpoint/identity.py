"""What makes two runs the same: the numbers of the problem, and the options that say what is computed from them."""

from __future__ import annotations

import hashlib
import numbers
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, threads, transfer
from nmf_xp.data import Sparse
from nmf_xp.data.grid import Grid
from nmf_xp.data.sources import Rows
from nmf_xp.data.sparse_formats import from_sparse
from nmf_xp.data.streamed import Streamed
from nmf_xp.problem.starts import random_generator
from nmf_xp.run.checkpoint.storage import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np

    from nmf_xp.arrays.typing import Array
    from nmf_xp.problem.posing import Posed
    from nmf_xp.run.position import Schedule

BLOCK = 2**22  # bytes that are hashed at a time


def options(posed: Posed, W: Array, schedule: Schedule, **others: Any) -> dict[str, Any]:
    """The options of a run that starts from W, by the names that its user knows."""
    members = W.shape[0] if W.ndim > 2 else None
    described = {
        **others,
        "n_components": W.shape[-1],
        "beta_loss": posed.beta,
        "check_every": schedule.check_every,
        **of_data(posed),
        "the number of members": members,
    }
    # Members that have ended cannot be taken up again, so what they ended by is part of the run.
    return described if members is None else {**described, "tol": schedule.tol}


def of_data(posed: Posed) -> dict[str, Any]:
    """What V is, whatever stands in it."""
    return {
        "the shape of V": [*posed.stack, *posed.shape],
        "the dtype": libraries.dtype_name(posed.values.dtype),
        "the array library": str(posed.xp.__name__).removeprefix("array_api_compat."),
    }


def contents(posed: Posed, given: list[Any] | None) -> dict[str, str]:
    """Hashes of the arrays of a problem: V, its weights, the constraints, and the start if it was given."""
    data: Any = posed.problem.data
    hashes = _of_stream if isinstance(data, Streamed) else _of_grid if isinstance(data, Grid) else _of_arrays
    entries, weights = hashes(data)
    return {
        "V": _hash([*entries, *posed.units]),
        "weights": _hash(weights),
        "the penalties, fixed entries or bounds of W": _hash(list(posed.problem.w)),
        "the penalties, fixed entries or bounds of H": _hash(list(posed.problem.h)),
        "init": _hash(given or []),
    }


def refuse_another(path: Path, found: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise where the header that was found is not that of the run here, with what differs."""
    before, now = found["options"], here["options"]
    names = sorted(before.keys() | now.keys())
    differences = [f"{x} was {before.get(x)} and is {now.get(x)}" for x in names if before.get(x) != now.get(x)]
    if not differences:
        before, now = found["contents"], here["contents"]
        differences = [f"{name} is not what it was" for name in now if before.get(name) != now[name]]
    if differences:
        what = f"is the checkpoint of another run: {', '.join(differences)}"
        msg = f"{path}: {what}; name another file, or remove this one to begin anew"
        raise CheckpointError(msg)


def _of_arrays(data: Any) -> tuple[list[Any], list[Any]]:
    """What there is to hash of V in memory, and of its weights."""
    base = getattr(data, "base", data)
    entries = [base.values, *((base.i, base.j) if isinstance(base, Sparse) else ())]
    weights = [x for name, x in zip(data._fields, data, strict=True) if name != "base"] if base is not data else []
    return entries, [type(data).__name__ if weights else None, *weights]


def _of_stream(data: Streamed) -> tuple[list[Any], list[Any]]:
    """The same of V that is read block by block; where one block ends does not count."""
    beside = [_running(x.blocks()) if isinstance(x, Rows) else x for x in (data.weights, data.exposure)]
    return [_running(data.raw())], [*beside, *data.options[1:]]


def _of_grid(data: Grid) -> tuple[list[Any], list[Any]]:
    """The same of a dask array, each block of which is hashed where it is."""
    entries, weights = zip(*data.each(_of_block), strict=True)
    return [data.row_starts, data.column_starts, *entries], [*weights, *data.options]


def _of_block(block: Any, *beside: Any) -> tuple[str, str]:
    return _hash(_arrays_of(block)), _hash(list(beside) or [None])


def _arrays_of(block: Any) -> list[Any]:
    """Arrays that say all of a block, whose rows or entries follow on those of the block before."""
    if libraries.sparse_library(block) is None:
        return [block]
    data = from_sparse(block)
    return [data.values, data.j, data.along.starts[1:] - data.along.starts[:-1]]


def _running(blocks: Iterable[Any]) -> str:
    """One hash of blocks of rows, the same however the rows are divided."""
    import numpy as np

    digests: list[Any] = []
    for block in blocks:
        arrays = [transfer.to_host(x) for x in _arrays_of(block)]
        if not digests:
            digests = [hashlib.blake2b(f"{x.dtype.str} {x.shape[1:]}".encode(), digest_size=16) for x in arrays]
        for digest, x in zip(digests, arrays, strict=True):
            digest.update(np.ascontiguousarray(x).data)
    return "".join(digest.hexdigest() for digest in digests)


def seed(random_state: Any) -> Any:
    """A seed as JSON: None and an integer as they are, the state of a generator as its hash."""
    if random_state is None or isinstance(random_state, numbers.Integral):
        return None if random_state is None else int(random_state)
    generator: Any = random_generator(random_state)
    state = generator.get_state(legacy=False) if hasattr(generator, "get_state") else generator.bit_generator.state
    return hashlib.blake2b(repr(_plain(state)).encode(), digest_size=16).hexdigest()


def _plain(state: Any) -> Any:
    """A generator's state without arrays."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in sorted(state.items())}
    return state.tolist() if hasattr(state, "tolist") else state


def _hash(leaves: list[Any]) -> str:
    """Hash of arrays and numbers, in blocks that threads share; the same for every memory order."""
    import numpy as np

    digest = hashlib.blake2b(digest_size=16)
    with threads.held_blas():
        for leaf in leaves:
            if not libraries.is_array(leaf):
                digest.update(f"{leaf!r}\n".encode())
                continue
            array = np.atleast_1d(transfer.to_host(leaf))
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            height = max(1, BLOCK * len(array) // array.nbytes)
            blocks = [array[i : i + height] for i in range(0, len(array), height)]
            for part in threads.run(_digest, blocks):
                digest.update(part)
    return digest.hexdigest()


def _digest(block: np.ndarray[Any, Any]) -> bytes:
    block = block if block.flags.c_contiguous else block.copy(order="C")
    return hashlib.blake2b(block.data).digest()
