"""Where the iteration starts.

All random numbers and the small dense algebra of NNDSVD are made on the host in float64 and moved to V's device
afterwards, so that one `random_state` gives the same start on every backend.
"""

from __future__ import annotations

import copy
import functools
import math
import numbers
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import libraries, mesh, operators, transfer
from nmf_xp.data import Dense
from nmf_xp.data.blocks import Blockwise, Part, matmul, sweep, transposed_matmul
from nmf_xp.data.constraints import FREE
from nmf_xp.data.grid import Grid

if TYPE_CHECKING:
    import numpy as np

    from nmf_xp.arrays.typing import Array, Namespace
    from nmf_xp.data import Data
    from nmf_xp.data.constraints import Constraints
    from nmf_xp.data.units import Units
    from nmf_xp.problem.posing import Posed

INITS = ("random", "nndsvd", "nndsvda", "nndsvdar")
UNIFORM = (0.1, 1.1)


def random_generator(random_state: Any) -> np.random.Generator | np.random.RandomState:
    """NumPy's generator for a seed, or the one that was given."""
    import numpy as np

    if isinstance(random_state, np.random.Generator | np.random.RandomState):
        return random_state
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        msg = (
            "`random_state` must be None, a non-negative integer, a numpy.random.Generator or a "
            f"numpy.random.RandomState, got {random_state!r}"
        )
        raise type(error)(msg) from None


def seed_of(random_state: Any) -> int:
    """One number from the user's seed or generator, from which all random numbers follow."""
    import numpy as np

    rng = random_generator(random_state)
    return int(rng.integers(2**31) if isinstance(rng, np.random.Generator) else rng.randint(2**31))


def first_factors(posed: Posed, init: Any, r: int, *, random_state: Any, n_restarts: int) -> list[Array]:
    """W and H at the start: those that are given, in the problem's units, or those that the name `init` stands for."""
    if not isinstance(init, str):
        return [posed.factor(f"init[{i}]", x, "WH"[i], r) for i, x in enumerate(init)]
    members = posed.members if n_restarts == 1 else n_restarts
    return start(posed.problem.data, r, init=init, random_state=random_state, members=members, xp=posed.xp)


def start(
    data: Data, n_components: int, *, init: str, random_state: Any, members: int | None, xp: Namespace
) -> list[Array]:
    """W and H for the named method; a stack of `members` of them, drawn one after the other, unless it is None."""
    if mesh.shared(data.values) and not isinstance(random_state, numbers.Integral):
        msg = (
            "`random_state` must be an integer where several processes share `V`, so that all draw the same start, "
            f"got {random_state!r}"
        )
        raise ValueError(msg)
    rng = random_generator(random_state)
    if init == "random":
        return random_start(data, n_components, rng=rng, members=members, xp=xp)
    if members is None:
        return nndsvd_start(data, n_components, fill=init, rng=rng, xp=xp)
    pairs = [nndsvd_start(data.member(i), n_components, fill=init, rng=rng, xp=xp) for i in range(members)]
    return [xp.stack(factors) for factors in zip(*pairs, strict=True)]


def random_start(data: Data, n_components: int, *, rng: Any, members: int | None = None, xp: Namespace) -> list[Array]:
    """Uniform factors in [0.1, 1.1) times one number that makes sum(WH) = sum(V)."""
    import numpy as np

    if members and data.values.ndim < 2:  # sparse data take one pair of factors at a time
        pairs = [random_start(data, n_components, rng=rng, xp=xp) for _ in range(members)]
        return [xp.stack(factors) for factors in zip(*pairs, strict=True)]
    m, n = data.shape[-2:]
    shapes = (m, n_components), (n_components, n)
    V = data.values
    if mesh.shared(V):
        W, H = _own_blocks(V, n_components, rng=rng, members=members)
    else:
        draws = [[rng.uniform(*UNIFORM, size=shape) for shape in shapes] for _ in range(members or 1)]
        stacks = [np.stack(factors) if members else factors[0] for factors in zip(*draws, strict=True)]
        W, H = mesh.from_host(V, *stacks, xp=xp)
    of_data, of_model = totals(data, W, H, xp=xp)
    scale = xp.astype(xp.sqrt(of_data / of_model), V.dtype)
    if members:
        scale = xp.reshape(scale, (members, 1, 1))
    return [W * scale, H * scale]


def _own_blocks(V: Any, n_components: int, *, rng: Any, members: int | None) -> list[Array]:
    """The same numbers where processes share V: each skips what others draw, so none ever holds a whole factor."""
    import numpy as np

    (m, n), r = V.shape, n_components

    def run(begin: int, length: int) -> Any:
        """Part of the sequence of uniform numbers."""
        bits = copy.deepcopy(rng.bit_generator)
        return np.random.Generator(bits.advance(begin)).uniform(*UNIFORM, size=length)

    def of_W(skip: int, rows: slice, _: slice) -> Any:
        return run(skip + rows.start * r, (rows.stop - rows.start) * r).reshape(-1, r)

    def of_H(skip: int, _: slice, columns: slice) -> Any:
        width = columns.stop - columns.start
        return np.stack([run(skip + m * r + k * n + columns.start, width) for k in range(r)])

    def block(draw: Any, index: tuple[slice, ...]) -> Any:
        blocks = [draw(member * (m + n) * r, *index[-2:]).astype(V.dtype) for member in range(members or 1)]
        return np.stack(blocks) if members else blocks[0]

    layout: Any = mesh.layout(V)
    stack = (members,) if members else ()
    W = layout.W.make((*stack, m, r), functools.partial(block, of_W))
    return [W, layout.H.make((*stack, r, n), functools.partial(block, of_H))]


def normal_start(data: Data, n_components: int, *, rng: Any, members: int | None = None, xp: Namespace) -> list[Array]:
    """scikit-learn's random start: sqrt(mean(V) / r) times absolute values of normal numbers, H drawn first."""
    import numpy as np

    m, n = data.shape[-2:]
    scale = np.sqrt(_mean(data, xp=xp) / n_components)
    shapes = (n_components, n), (m, n_components)
    draws = [[np.abs(scale * rng.standard_normal(size=shape)) for shape in shapes] for _ in range(members or 1)]
    H, W = (np.stack(factors) if members else factors[0] for factors in zip(*draws, strict=True))
    return mesh.from_host(data.values, W, H, xp=xp)


def constant_start(data: Data, n_components: int, *, xp: Namespace) -> Array:
    """scikit-learn's W for given H: sqrt(mean(V) / r) everywhere."""
    V = data.values
    value = (_mean(data, xp=xp) / n_components) ** 0.5
    return xp.full((data.shape[-2], n_components), value, dtype=V.dtype, device=libraries.device(V))


def totals(data: Data, W: Array, H: Array, *, xp: Namespace) -> tuple[Array, ...]:
    """Sum of V and sum of WH, (...,)."""
    wide = libraries.accumulator_dtype(xp, libraries.device(data.values))

    def of_block(block: Data, W: Array, H: Array) -> tuple[Array, ...]:
        return block.sum(block.values, dtype=wide, xp=xp), block.total(W, H, dtype=wide, xp=xp)

    def of_rows(block: Data, W: Array, _: Constraints) -> Part:
        return Part(None, of_block(block, W, H))

    if isinstance(data, Blockwise):
        return sweep(of_rows, data, W, FREE, xp=xp).sums
    return data.over_blocks(of_block, W, H) if isinstance(data, Grid) else of_block(data, W, H)


def proportional_start(data: Data, H: Array, *, xp: Namespace) -> Array:
    """W for given H, equal along each row, such that every row of WH has the sum of V's row.

    It depends on no other row and on no random number.
    """
    components = operators.transposed(H)[..., :1, :]  # (1, r)
    tiny = float(xp.finfo(H.dtype).smallest_normal)

    def sums(block: Data, _: Any, H: Array) -> tuple[Array, Array]:
        row_sums = block.contract(block.values, xp.ones_like(H[..., :1, :]), xp=xp)
        return row_sums, block.model_slope(row_sums, xp.sum(H, axis=-2, keepdims=True), None, beta=1.0, xp=xp)

    def start(row_sums: Array, model_sums: Array) -> Array:
        return row_sums / operators.at_least(model_sums, tiny, xp=xp) * xp.ones_like(components)

    def of_rows(block: Data, *_: Any) -> Part:
        return Part(start(*sums(block, None, H)), ())

    if isinstance(data, Grid):
        return xp.concat([start(*parts) for parts in data.over_rows(sums, H)])
    if isinstance(data, Blockwise):
        nothing = xp.zeros((data.shape[0], 0), dtype=H.dtype, device=libraries.device(H))
        return sweep(of_rows, data, nothing, FREE, xp=xp).rows
    return of_rows(data).rows


def nndsvd_start(
    data: Data, n_components: int, *, fill: str, as_scikit_learn: Units | None = None, rng: Any, xp: Namespace
) -> list[Array]:
    """Non-negative double singular value decomposition (Boutsidis & Gallopoulos 2008).

    `nndsvd` leaves zeros, `nndsvda` replaces them by sqrt(mean(V) / r), `nndsvdar` by random numbers of a hundredth of
    that.
    """
    svd = _truncated_svd(data, n_components, rng=rng, xp=xp)
    return nndsvd_factors(data, *svd, fill=fill, as_scikit_learn=as_scikit_learn, rng=rng, xp=xp)


def nndsvd_factors(
    data: Data, U: Any, S: Any, Vt: Any, *, fill: str, as_scikit_learn: Units | None, rng: Any, xp: Namespace
) -> list[Array]:
    """The start that belongs to V's leading singular triplets, which are NumPy arrays.

    What is below 1e-6 of a factor's largest entry is rounding error of the decomposition and becomes 0. The fill has a
    factor's unit, which is the root of V's, so that V in other units has the same start in those. What is done
    `as_scikit_learn` does cuts at 1e-6 itself and fills with the mean of V, both in the user's units, which are given.
    """
    import numpy as np

    tie = float(xp.finfo(data.values.dtype).eps) ** 0.5
    W, H = np.zeros_like(U), np.zeros_like(Vt)
    W[:, 0], H[0] = np.sqrt(S[0]) * np.abs(U[:, 0]), np.sqrt(S[0]) * np.abs(Vt[0])
    for k in range(1, S.shape[0]):
        # Of the two non-negative parts of the k-th singular pair, keep the heavier one.
        sign = 1 if as_scikit_learn is not None else np.sign(U[np.argmax(np.abs(U[:, k])), k]) or 1
        parts = [(np.maximum(s * U[:, k], 0), np.maximum(s * Vt[k], 0)) for s in (sign, -sign)]
        norms = [(np.linalg.norm(u), np.linalg.norm(v)) for u, v in parts]
        weights = [of_u * of_v for of_u, of_v in norms]
        # Of a symmetric V with a negative eigenvalue both weigh the same, and rounding is not to choose.
        even = 0.0 if as_scikit_learn is not None else tie * max(weights)
        heavier = 0 if weights[0] >= weights[1] - even else 1
        if max(weights) > 0:
            scale = np.sqrt(S[k] * max(weights))
            W[:, k], H[k] = (scale * x / norm for x, norm in zip(parts[heavier], norms[heavier], strict=True))
    mean = _mean(data, xp=xp)
    for which, factor in (("W", W), ("H", H)):
        least, size = 1e-6 * factor.max(initial=0), (mean / S.shape[0]) ** 0.5
        if as_scikit_learn is not None:
            exponent = as_scikit_learn.factor(which)
            least, size = math.ldexp(1e-6, -exponent), math.ldexp(mean, as_scikit_learn.v - exponent)
        factor[factor < least] = 0
        zeros = factor == 0
        if fill == "nndsvda":
            factor[zeros] = size
        elif fill == "nndsvdar":
            # As many numbers whatever is zero, or a zero more would make all the others another start.
            normal = rng.standard_normal
            one_each = as_scikit_learn is None
            draws = normal(size=zeros.shape)[zeros] if one_each else normal(size=int(zeros.sum()))
            factor[zeros] = np.abs(size * draws / 100)
    return mesh.from_host(data.values, W, H, xp=xp)


def _mean(data: Data, *, xp: Namespace) -> float:
    """Mean of the observed entries."""
    V = data.values
    m, n = data.shape[-2:]
    device = libraries.device(V)
    if type(data) is Dense:
        return transfer.scalar(data.sum(V, dtype=libraries.accumulator_dtype(xp, device), xp=xp)) / (m * n)
    ones = (xp.ones(shape, dtype=V.dtype, device=device) for shape in ((m, 1), (1, n)))
    total, count = totals(data, *ones, xp=xp)
    return transfer.scalar(total / count)


def _truncated_svd(data: Data, rank: int, *, rng: Any, xp: Namespace) -> tuple[Any, Any, Any]:
    """Leading singular triplets by a randomized range finder (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1).

    V meets only thin matrices, on its own device; those are orthonormalised on the host.
    """
    import numpy as np

    V = data.values
    device = libraries.device(V)
    m, n = data.shape[-2:]
    width = min(rank + 10, m, n)

    def on_device(X: Any) -> Array:
        return transfer.from_host(np.ascontiguousarray(X), xp=xp, dtype=V.dtype, device=device)

    def times(X: Any) -> Any:
        product = matmul(data, on_device(X.T), xp=xp)
        return np.asarray(transfer.to_host(product), dtype=np.float64)

    def transposed_times(X: Any) -> Any:
        product = transposed_matmul(data, on_device(X.T), xp=xp)
        return np.asarray(transfer.to_host(product), dtype=np.float64)

    Q = np.linalg.qr(times(rng.standard_normal(size=(n, width))))[0]
    for _ in range(7):
        Q = np.linalg.qr(transposed_times(Q))[0]
        Q = np.linalg.qr(times(Q))[0]
    U, S, Vt = np.linalg.svd(transposed_times(Q).T, full_matrices=False)
    return (Q @ U)[:, :rank], S[:rank], Vt[:rank]
