"""How JAX divides a matrix among devices, and where its factors lie: W along V's rows, H along its columns.

A device that holds some rows and columns of V needs those rows of W and those columns of H, and no others. So W is
divided as V's rows are, and repeated over the devices that share rows; H likewise. Where the factors lie so, a sum over
some devices is all that an update asks of the others, and it is as large as a block of a factor.

The arrays keep the arithmetic of one: XLA makes the program of each device from that for the whole, which it does on
mesh axes of type Auto. V on axes of type Explicit is looked at through an Auto mesh of the same devices, which moves
nothing, and the factors are given back on the user's mesh.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays import libraries, transfer

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.arrays.typing import Array, Namespace

WANTED = (
    "lay it out by `nmf_xp.sharding.load_blocks`, or by `jax.device_put(V, NamedSharding(mesh, "
    "PartitionSpec('rows', 'columns')))` over a mesh with these two axes"
)


class Layout(NamedTuple):
    """A matrix over a mesh: the mesh axes that divide its rows, and those that divide its columns."""

    mesh: Any
    rows: Any = None
    columns: Any = None

    @property
    def W(self) -> Layout:
        """The layout of the left factor."""
        return Layout(self.mesh, self.rows, None)

    @property
    def H(self) -> Layout:
        """The layout of the right factor."""
        return Layout(self.mesh, None, self.columns)

    def sharding(self, ndim: int = 2) -> Any:
        """JAX's own description; the members of a stack are not divided."""
        from jax.sharding import NamedSharding, PartitionSpec

        axes = (self.rows, self.columns) if ndim > 1 else ()
        spec: Any = PartitionSpec
        return NamedSharding(self.mesh, spec(*[None] * (ndim - len(axes)), *axes))

    def put(self, x: Any) -> Any:
        """The array in this layout, from wherever it is; an axis of length 1 is repeated."""
        import jax

        axes = [axis if length > 1 else None for axis, length in zip(self[1:], (1, 1, *x.shape)[-2:], strict=True)]
        sharding = Layout(self.mesh, *axes).sharding(x.ndim)
        if x.is_fully_addressable and not sharding.is_fully_addressable:  # an array of this process alone
            return jax.make_array_from_callback(x.shape, sharding, transfer.to_host(x).__getitem__)
        return jax.device_put(x, sharding)

    def spread(self, x: Any, shape: tuple[int, ...]) -> Any:
        """The array broadcast to a shape, in this layout."""
        return _broadcast(shape, self.sharding(len(shape)))(self.put(x))

    def make(self, shape: tuple[int, ...], block: Callable[[tuple[slice, ...]], Any]) -> Any:
        """An array of which each process makes its own blocks, each of them once."""
        import jax

        made: dict[tuple[tuple[int, int, int], ...], Any] = {}

        def load(index: Any) -> Any:
            ranges = tuple(part.indices(length) for part, length in zip(index, shape, strict=True))
            if ranges not in made:
                made[ranges] = block(tuple(slice(start, stop) for start, stop, _ in ranges))
            return made[ranges]

        return jax.make_array_from_callback(shape, self.sharding(len(shape)), load)


def layout(V: Any) -> Layout | None:
    """How V lies on a mesh; None where it lies on a single device, or cannot tell because it is traced."""
    if not libraries.on_mesh(V):
        return None
    from jax.sharding import NamedSharding

    if not isinstance(V.sharding, NamedSharding):
        msg = f"`V` must be divided by a NamedSharding, got {type(V.sharding).__name__}; {WANTED}"
        raise TypeError(msg)
    if V.ndim != 2 and V.sharding.mesh.size > 1:
        msg = f"`V` must be one matrix where it is divided among devices, got shape {tuple(V.shape)}; {WANTED}"
        raise ValueError(msg)
    return _of(V)


def _of(x: Any) -> Layout:
    """How the last two axes lie; a sharding need not name the last axes."""
    spec = x.sharding.spec
    return Layout(x.sharding.mesh, *(None, None, *spec, *[None] * (x.ndim - len(spec)))[-2:])


def shared(V: Any) -> bool:
    """Whether other processes hold blocks of V."""
    return libraries.on_mesh(V) and not V.is_fully_addressable


def with_auto_axes(V: Any) -> Any:
    """V on a mesh whose axes are of type Auto; as it is where it lies on a single device, or on such a mesh."""
    found = layout(V)
    if found is None:
        return V
    from jax.sharding import AxisType, Mesh

    if all(kind == AxisType.Auto for kind in found.mesh.axis_types):
        return V
    return found._replace(mesh=Mesh(found.mesh.devices, found.mesh.axis_names)).put(V)


def from_host(V: Any, W: Any, H: Any, *, xp: Namespace) -> list[Array]:
    """NumPy's W and H as arrays of V's library and dtype, where V's layout wants them."""
    found = layout(V)
    if found is None:
        return [transfer.from_host(x, xp=xp, dtype=V.dtype, device=libraries.device(V)) for x in (W, H)]
    W, H = W.astype(V.dtype), H.astype(V.dtype)
    return [found.W.make(W.shape, W.__getitem__), found.H.make(H.shape, H.__getitem__)]


def place_like(x: Any, ndim: int) -> Any:
    """Where an array with the last axes of x is to be, so that it lies as x does."""
    return _of(x).sharding(ndim) if libraries.on_mesh(x) else libraries.device(x)


def laid_out(V: Any, W: Any, H: Any, weights: Any) -> tuple[Any, Any, Any]:
    """W, H and weights (or None) where V's layout wants them; unchanged where V lies on a single device."""
    found = layout(V)
    if found is None:
        return W, H, weights
    return found.W.put(W), found.H.put(H), None if weights is None else like(V, weights)


def like(V: Any, x: Any) -> Any:
    """An array that broadcasts to V's shape, so broadcast and laid out; unchanged where V lies on a single device."""
    found = layout(V)
    return x if found is None else found.spread(x, V.shape)


def give_back(x: Any, layout: Layout | None) -> Any:
    """A factor on the mesh of the user's V."""
    if layout is None or x.sharding.mesh == layout.mesh:
        return x
    import jax

    return jax.device_put(x, jax.sharding.NamedSharding(layout.mesh, x.sharding.spec))


@functools.lru_cache(maxsize=64)
def _broadcast(shape: tuple[int, ...], sharding: Any) -> Callable[[Any], Any]:
    jax = sys.modules["jax"]
    return jax.jit(functools.partial(jax.numpy.broadcast_to, shape=shape), out_shardings=sharding)
