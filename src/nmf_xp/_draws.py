"""Parts of NumPy's sequence of uniform numbers, so that each process draws its own block of a factor and no more."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

RANGE = (0.1, 1.1)
CHUNK = 2**20  # numbers that are drawn and dropped at a time


def block(rng: Any, skip: int, shape: tuple[int, ...], index: tuple[slice, ...]) -> Any:
    """``rng.uniform(*RANGE, size=shape)[index]`` of the draw that begins `skip` numbers on; `rng` stays as it is."""
    import numpy as np

    lengths = [part.stop - part.start for part in index]
    out = np.empty(lengths)
    # The last axes that are taken as a whole are drawn in one.
    split = len(shape)
    while split and lengths[split - 1] == shape[split - 1]:
        split -= 1
    split = max(split - 1, 0)
    rest = math.prod(shape[split + 1 :])
    rng, at = copy.deepcopy(rng), 0
    for lead in np.ndindex(*lengths[:split]):
        origin = (*(part.start + i for part, i in zip(index, lead, strict=False)), index[split].start)
        begin = skip + int(np.ravel_multi_index(origin, shape[: split + 1])) * rest
        advance(rng, begin - at)
        out[lead] = rng.uniform(*RANGE, size=lengths[split:])
        at = begin + lengths[split] * rest
    return out


def advance(rng: Any, n: int) -> None:
    """Let a generator go on as if n uniform numbers had been drawn."""
    import numpy as np

    bits = getattr(rng, "bit_generator", None)
    if isinstance(bits, np.random.PCG64 | np.random.PCG64DXSM):  # one step a number
        before: Any = bits.state
        bits.advance(n)
        state: Any = bits.state
        bits.state = state | {name: before[name] for name in ("has_uint32", "uinteger")}
        return
    for start in range(0, n, CHUNK):
        rng.uniform(size=min(CHUNK, n - start))
