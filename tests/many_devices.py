"""What test_sharding.py runs in processes of their own, with several virtual devices: ``python -m tests.many_devices``.

Each scenario compares V on many devices with the same V in NumPy, without kernels: the same steps, and no compilation.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils, sparse
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import nmf_xp
from nmf_xp.data import as_data
from nmf_xp.problem.starts import start
from nmf_xp.sharding import load_blocks
from tests.problems import various

if TYPE_CHECKING:
    from collections.abc import Callable

jnp = jax.numpy
M, N, R = 512, 256, 4
SOLVERS = [("newton", 1), ("mm", 0.5), ("cd", 2), ("cd-plain", 2), ("mu", 3)]
GRIDS = [(8, 1), (4, 2), (2, 4), (1, 8)]


def data(m: int = M, n: int = N) -> Any:
    return np.asarray(various(m, n, R, count=1, seed=0, zeros=False)[0][0])


def mesh_of(grid: tuple[int, int], kind: Any = AxisType.Auto) -> Any:
    return Mesh(np.asarray(jax.devices()).reshape(grid), ("rows", "columns"), axis_types=(kind, kind))


def divided(x: Any, grid: tuple[int, int] = (4, 2), *axes: Any, kind: Any = AxisType.Auto) -> Any:
    spec: Any = PartitionSpec
    return jax.device_put(x, NamedSharding(mesh_of(grid, kind), spec(*(axes or ("rows", "columns")))))


def on_host(x: Any) -> Any:
    return np.asarray(x) if isinstance(x, jax.Array) else x


def same(got: Any, expected: Any, *, rtol: float = 1e-6) -> None:
    """To rounding, which some solvers amplify."""
    for name in ("W", "H"):
        x, y = np.asarray(getattr(got, name)), np.asarray(getattr(expected, name))
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * float(y.max()))
    assert (got.n_iter, got.status, got.solver) == (expected.n_iter, expected.status, expected.solver)
    np.testing.assert_allclose(got.divergence, expected.divergence, rtol=rtol)


def along(result: Any, V: Any) -> None:
    """W along V's rows, H along its columns, on V's own mesh."""
    rows, columns = (*V.sharding.spec, None, None)[:2]
    for x, axes in ((result.W, (rows, None)), (result.H, (None, columns))):
        spec: Any = PartitionSpec
        wanted = NamedSharding(V.sharding.mesh, spec(*axes))
        assert x.sharding.mesh == wanted.mesh
        assert x.sharding.is_equivalent_to(wanted, 2), (x.sharding, wanted)


def solvers(folder: str) -> None:
    """Every solver that `auto` picks, and others; the programs of these are compared with the model, in this order."""
    X = data()
    V = divided(X)
    results = {}
    for solver, beta in SOLVERS:
        options: dict[str, Any] = {"solver": solver, "beta_loss": beta, "random_state": 0, "tol": 1e-9}
        got = results[solver] = nmf_xp.nmf(V, R, max_iter=20, **options)
        same(got, nmf_xp.nmf(X, R, max_iter=20, **options))
        along(got, V)
        kept = options | {"checkpoint": f"{folder}/{solver}.npz"}
        nmf_xp.nmf(V, R, max_iter=10, **kept)
        resumed = nmf_xp.nmf(V, R, max_iter=20, **kept)
        along(resumed, V)
        for name in ("W", "H", "history"):
            np.testing.assert_array_equal(getattr(resumed, name), getattr(got, name))
    elsewhere = nmf_xp.nmf(divided(X, (2, 4)), R, max_iter=30, **kept)
    same(elsewhere, nmf_xp.nmf(X, R, max_iter=30, **options))
    for solver, beta in SOLVERS[:2]:
        given: dict[str, Any] = {"solver": solver, "beta_loss": beta, "max_iter": 10}
        new = nmf_xp.transform(V, results[solver].H, **given)
        same(new, nmf_xp.transform(X, on_host(results[solver].H), **given))
        along(new, V)


def blocks_of_start(V: Any, init: str) -> list[Any]:
    """The shapes of the blocks of W and H on a device before the first iteration."""
    factors: Any = start(as_data(V), R, init=init, random_state=0, members=None, xp=jnp)
    return [x.addressable_shards[0].data.shape for x in factors]


def grids() -> None:
    """The programs of these four are compared with the model, in this order."""
    X = data()
    expected = nmf_xp.nmf(X, R, solver="mu", beta_loss=1, random_state=0, max_iter=10)
    for grid in GRIDS:
        V = divided(X, grid)
        assert blocks_of_start(V, "random") == [(M // grid[0], R), (R, N // grid[1])]
        got = nmf_xp.nmf(V, R, solver="mu", beta_loss=1, random_state=0, max_iter=10)
        same(got, expected)
        along(got, V)


def layouts() -> None:
    """Any division by rows and columns, explicit mesh axes, devices that repeat V."""
    X = data()
    options: dict[str, Any] = {"solver": "mu", "random_state": 0, "max_iter": 5}
    expected = nmf_xp.nmf(X, R, **options)
    for axes in (("rows", None), (None, "rows"), ("columns", "rows"), (("rows", "columns"), None), (None, None)):
        V = divided(X, (4, 2), *axes)
        got = nmf_xp.nmf(V, R, **options)
        same(got, expected)
        along(got, V)
    V = divided(X, kind=AxisType.Explicit)
    seen: list[Any] = []
    got = nmf_xp.nmf(V, R, callback=lambda progress: seen.append(progress.W), **options)
    same(got, expected)
    along(got, V)
    assert seen[0].sharding.mesh == V.sharding.mesh
    along(nmf_xp.transform(V, got.H, solver="mu"), V)
    one = Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("rows", "columns"), axis_types=(AxisType.Explicit,) * 2)
    spec: Any = PartitionSpec
    V = jax.device_put(X, NamedSharding(one, spec("rows", "columns")))
    got = nmf_xp.nmf(V, R, **options)
    same(got, expected)
    along(got, V)
    stack = jax.device_put(np.stack([X, X]), NamedSharding(one, spec()))
    assert nmf_xp.nmf(stack, R, random_state=0, max_iter=2).W.shape == (2, M, R)


def options() -> None:
    """What goes with V is laid out as V is, wherever it comes from."""
    X = data()
    V = divided(X)
    rng = np.random.default_rng(1)
    W, H, weights = (jnp.asarray(rng.uniform(0.1, 1, shape)) for shape in ((M, R), (R, N), (M, N)))
    holes = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    counts = np.ceil(X).astype(int)
    cases: list[tuple[Any, Any, dict[str, Any]]] = [
        (V, X, {"weights": weights, "solver": "auto"}),
        (V, X, {"weights": weights[:, :1], "n_restarts": 3}),
        (divided(holes), holes, {"weights": weights[0, :], "missing": "nan"}),
        (divided(counts), counts, {"init": "nndsvda", "upper_h": 3 * H}),
        (1e200 * V, 1e200 * X, {"normalize": "H"}),
        (V, X, {"init": (W, H), "alpha_W": 0.01, "l1_ratio": 0.5, "upper_w": 0.8, "fixed_h": H > 0.9}),
        (V, X, {"init": (jnp.stack([W, 2 * W]), H), "tol": 0}),
    ]
    settings: dict[str, Any] = {"random_state": 0, "max_iter": 8, "check_every": 4, "solver": "mu", "beta_loss": 1}
    for x, y, given in cases:
        got = nmf_xp.nmf(x, R, **(settings | given))
        expected = nmf_xp.nmf(y, R, **(settings | jax.tree.map(on_host, given)))
        same(got, expected)
        along(got, x)
    assert blocks_of_start(V, "nndsvd") == [(M // 4, R), (R, N // 2)]
    axes: dict[str, Any] = {"kind": AxisType.Explicit}
    along_r = divided(W, (2, 4), "rows", "columns", **axes), divided(H, (4, 2), "rows", "columns", **axes)
    got = nmf_xp.nmf(V, R, init=along_r, solver="mu", max_iter=5)
    same(got, nmf_xp.nmf(X, R, init=(on_host(W), on_host(H)), solver="mu", max_iter=5))
    along(got, V)


def functions() -> None:
    """The pure functions; results lie on V's mesh."""
    X = data()
    rng = np.random.default_rng(1)
    W, H, weights = (jnp.asarray(rng.uniform(0.1, 1, shape)) for shape in ((M, R), (R, N), (M, N)))
    V = divided(X, kind=AxisType.Explicit)
    for function in (nmf_xp.update_w, nmf_xp.update_h, nmf_xp.beta_divergence):
        got: Any = function(V, W, H, beta_loss=1, weights=weights)
        host = (X, *map(on_host, (W, H)))
        expected = function(*host, beta_loss=1, weights=on_host(weights))
        np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-12, atol=1e-12)
        assert got.ndim == 0 or got.sharding.mesh == V.sharding.mesh


def errors() -> None:
    """Bad values are found where they are; layouts that do not serve are refused."""
    X = data()
    kinds = ["float64", "float32"]
    for value, what in ((np.nan, "NaN"), (np.inf, "an infinity"), (-1.0, "a negative one")):
        bad = X.copy()
        bad[300, 70] = bad[301, 2] = value
        with pytest.raises(ValueError, match=rf"{what} at index \(300, 70\)"):
            nmf_xp.nmf(divided(bad), R)
    with pytest.raises(ValueError, match=r"^`V` must be one matrix where it is divided .* lay it out by `nmf_xp.shard"):
        nmf_xp.nmf(divided(np.stack([X, X]), (4, 2), None, "rows", "columns"), R)
    old: Any = importlib.import_module("jax._src.sharding_impls").GSPMDSharding  # as V had it from JAX before 0.10
    with pytest.raises(TypeError, match=r"^`V` must be divided by a NamedSharding, got GSPMDSharding; lay it out by"):
        nmf_xp.nmf(jax.device_put(X, old.get_replicated(jax.devices())), R)
    spec: Any = PartitionSpec
    many = jax.device_put(sparse.BCOO.fromdense(jnp.eye(16)), NamedSharding(mesh_of((4, 2)), spec()))
    with pytest.raises(ValueError, match=r"^`V` must lie on one device where it is sparse, got 8 devices; make it"):
        nmf_xp.nmf(many, 2)
    with pytest.raises(ValueError, match=r"^`mesh` must divide V of shape \(12, 8\) evenly, got a grid of \(8, 1\)"):
        load_blocks((12, 8), lambda rows, columns: X[rows, columns], mesh=mesh_of((8, 1)))
    with pytest.raises(ValueError, match=r"^`load` must return a block of shape \(128, 128\) and dtype float64 for"):
        load_blocks((M, N), lambda rows, _: X[rows, :], mesh=mesh_of((4, 2)))
    with pytest.raises(ValueError, match=r"dtype float64 for rows \d+:\d+ and .* got a block .* and dtype float32$"):
        load_blocks((M, N), lambda *_: X[:128, :128].astype(kinds.pop(0)), mesh=mesh_of((4, 2)))


def process(index: str, port: str, folder: str) -> None:
    """One of two processes with four devices each."""
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(index))
    X = data()
    loaded: list[tuple[int, int]] = []

    def load(rows: slice, columns: slice) -> Any:
        loaded.append((rows.start, columns.start))
        return X[rows, columns]

    V = load_blocks((M, N), load)
    assert len(loaded) == len(set(loaded)) == 4, "each block of this process once"
    with pytest.raises(ValueError, match=r"^`random_state` must be an integer where several processes share `V`"):
        nmf_xp.nmf(V, R)
    with pytest.raises(
        ValueError, match=r"^`checkpoint` must be left out where several processes share `V`, got .*call"
    ):
        nmf_xp.nmf(V, R, random_state=0, checkpoint=f"{folder}/run.npz")
    with pytest.raises(ValueError, match=r"NaN at index \(300, 70\)"):
        nmf_xp.nmf(jnp.where(V == V[300, 70], jnp.nan, V), R)
    found: dict[str, Any] = {}
    gather: Any = multihost_utils.process_allgather
    seen: list[Any] = []
    for name, given in runs().items():
        result = nmf_xp.nmf(V, R, callback=lambda progress: seen.append(progress), **given)
        along(result, V)
        assert result.W.addressable_shards[0].data.shape[0] < M
        found |= {f"{name} {x}": gather(getattr(result, x), tiled=True) for x in ("W", "H")}
        found[f"{name} history"] = np.asarray(result.history)
        found[f"{name} divergence"] = np.asarray(result.divergence)
    np.testing.assert_allclose(gather(seen[-1].W, tiled=True), found["own W"], atol=1e-9)  # which has exact zeros
    loadings = nmf_xp.transform(V, result.H, beta_loss=2)
    found["transform W"] = gather(loadings.W, tiled=True)
    np.savez(f"{folder}/{index}.npz", **found)


def runs() -> dict[str, dict[str, Any]]:
    """What two processes factorize as one does."""
    X = data()
    given = jnp.asarray(X[:, :R]), jnp.asarray(X[:R, :])
    return {
        "newton": {"random_state": 0, "beta_loss": 1, "max_iter": 20},
        "restarts": {"random_state": 0, "n_restarts": 3, "solver": "mu", "max_iter": 20},
        "nndsvda": {"random_state": 0, "init": "nndsvda", "solver": "mu", "max_iter": 5},
        "own": {"init": given, "weights": jnp.asarray(X / X.max()), "max_iter": 20},
    }


SCENARIOS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (solvers, grids, layouts, options, functions, errors, process)
}

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    SCENARIOS[sys.argv[1]](*sys.argv[2:])
