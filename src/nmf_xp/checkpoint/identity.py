"""What makes two runs the same: the numbers of the problem, and the options that say what is computed from them."""

from __future__ import annotations

import hashlib
import numbers
from typing import TYPE_CHECKING, Any

from nmf_xp import _compat, _threads
from nmf_xp.checkpoint.storage import CheckpointError
from nmf_xp.data import Sparse
from nmf_xp.init import random_generator

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from nmf_xp._control import Schedule
    from nmf_xp._typing import Array
    from nmf_xp.posing import Posed

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
        "the dtype": _compat.dtype_name(posed.values.dtype),
        "the array library": str(posed.xp.__name__).removeprefix("array_api_compat."),
    }


def contents(posed: Posed, given: list[Any] | None) -> dict[str, str]:
    """Hashes of the arrays of a problem: V, its weights, the constraints, and the start if it was given."""
    data: Any = posed.problem.data
    base = getattr(data, "base", data)
    entries = [base.values, *((base.i, base.j) if isinstance(base, Sparse) else ())]
    weights = [x for name, x in zip(data._fields, data, strict=True) if name != "base"] if base is not data else []
    return {
        "V": _hash([*entries, posed.exponent]),
        "weights": _hash([type(data).__name__ if weights else None, *weights]),
        "the penalty, fixed entries or upper bound of W": _hash(list(posed.problem.w)),
        "the penalty, fixed entries or upper bound of H": _hash(list(posed.problem.h)),
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
    with _threads.held_blas():
        for leaf in leaves:
            if not _compat.is_array(leaf):
                digest.update(f"{leaf!r}\n".encode())
                continue
            array = np.atleast_1d(_compat.to_host(leaf))
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            height = max(1, BLOCK * len(array) // array.nbytes)
            blocks = [array[i : i + height] for i in range(0, len(array), height)]
            for part in _threads.run(_digest, blocks):
                digest.update(part)
    return digest.hexdigest()


def _digest(block: np.ndarray[Any, Any]) -> bytes:
    block = block if block.flags.c_contiguous else block.copy(order="C")
    return hashlib.blake2b(block.data).digest()
