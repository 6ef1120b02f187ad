"""What an iteration launches and moves, counted by torch: a GPU pays for each launch, each pass and each wait."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp.arrays import libraries, operators
from nmf_xp.run.hosted import natively
from nmf_xp.solvers import LOSSES, SOLVERS, automatic
from tests import stand_in

if TYPE_CHECKING:
    from nmf_xp.testing import Target
    from tests.counts import Counts

torch = pytest.importorskip("torch")

M, N = 60, 40
CASES = [(solver, beta) for solver in SOLVERS for beta in LOSSES.get(solver, (1.0, 2.0, 0.5, 0.0))]


def iteration(solver: str, beta: float, kind: str = "dense", *, rank: int = 4) -> Counts:
    """The third iteration and no more: what three cost beyond two."""
    from tests.counts import counted

    run = functools.partial(_run, *_problem(kind, beta, rank), solver=solver, beta_loss=beta, tol=0)
    two, three = (counted(functools.partial(run, max_iter=k), size=M * N, width=4) for k in (2, 3))
    for name in ("operators", "uploads", "reads", "passes"):
        setattr(three, name, getattr(three, name) - getattr(two, name))
    return three


def _run(V: Any, W: Any, H: Any, options: dict[str, Any], **more: Any) -> None:
    with natively():  # sparse tensors are on a CPU here, and stand for those on a GPU
        nmf_xp.nmf(V, W.shape[1], init=(W, H), **options, **more)


def _problem(kind: str, beta: float, rank: int) -> tuple[Any, Any, Any, dict[str, Any]]:
    """V, W, H and options; on a device without values, but where V is sparse, which torch has only on others."""
    sparse = kind == "sparse"
    options: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.1, 1.0, size=shape).astype(np.float32) for shape in ((M, N), (M, rank), (rank, N))]
    V, W, H = (torch.asarray(x, device="cpu" if sparse else "meta") for x in arrays)
    if sparse:
        V = torch.where(V > 0.8, V, 0.0).to_sparse_csr()
        options = {"absent": "zero" if beta > 0 else "missing"}
    if kind == "weighted":
        options = {"weights": torch.ones_like(V)}
    if kind == "constrained":
        options = {"alpha_W": 0.01, "l1_ratio": 0.5, "upper_w": 2.0, "upper_h": 2.0}
    return V, W, H, options


@pytest.mark.parametrize("kind", ["dense", "sparse", "weighted", "constrained"])
@pytest.mark.parametrize(("solver", "beta"), CASES)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_an_iteration_uploads_nothing_and_reads_nothing(solver: str, beta: float, kind: str) -> None:
    """Each upload is a copy that the device's queue waits for, and each read waits for the device."""
    counts = iteration(solver, beta, kind)
    assert counts.operators > 0
    assert counts.uploads == 0
    assert counts.reads == 0 or kind == "sparse"  # whose arrays are on a CPU, where it may be asked at no cost


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kullback_leibler_divergence_makes_few_passes(dtype: str) -> None:
    """WH is written; V and WH are read for their distance, that and WH for its quotient, logarithmed; 2 sums."""
    from tests.counts import counted

    V, W, H, _ = _problem("dense", 1.0, 4)
    V, W, H = (x.to(getattr(torch, dtype)) for x in (V, W, H))
    divergence = functools.partial(nmf_xp.beta_divergence, V, W, H, beta_loss=1)
    assert counted(divergence, size=M * N, width=V.element_size()).passes <= 12


@pytest.mark.parametrize(("solver", "beta", "most"), [("cd", 2.0, 250), ("cd-plain", 2.0, 150), ("newton", 1.0, 600)])
def test_sweeps_over_the_components_launch_little(solver: str, beta: float, most: int) -> None:
    """A component that is visited costs a product and a bound, and up to four sweeps visit each of 2 x 20."""
    assert iteration(solver, beta, rank=20).operators <= most


def test_passes_of_an_iteration() -> None:
    """What `automatic` rests on; an iteration of `mm` is three updates with two divergences."""
    most = {("mu", 1.0): 10, ("mu", 2.0): 2, ("cd", 2.0): 2, ("mm", 1.0): 40, ("newton", 1.0): 114}
    counted = {case: iteration(*case).passes for case in most}
    assert all(counted[case] <= most[case] for case in most), counted


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_gpu_gets_the_solver_with_the_fewest_passes(beta: float) -> None:
    """To the divergence of 200 multiplicative updates, on digits: iterations on a CPU times passes of an iteration."""
    V = pytest.importorskip("sklearn.datasets").load_digits().data[::3]
    rng = np.random.default_rng(0)
    start = rng.uniform(0.5, 1.5, size=(V.shape[0], 10)), rng.uniform(0.5, 1.5, size=(10, V.shape[1]))
    options: dict[str, Any] = {"init": start, "beta_loss": beta, "tol": 0, "check_every": 1}
    target = nmf_xp.nmf(V, 10, solver="mu", max_iter=200, **options).divergence

    def reached(seen: nmf_xp.Progress) -> bool:
        return bool(seen.divergence <= target)

    passes = {"mu": 200 * iteration("mu", beta).passes}
    for solver in {1.0: ["newton", "mm", "cd"], 2.0: ["cd", "mm"]}[beta]:
        result = nmf_xp.nmf(V, 10, solver=solver, max_iter=150, callback=reached, **options)
        assert result.divergence <= target
        passes[solver] = result.n_iter * iteration(solver, beta).passes
    assert min(passes, key=passes.__getitem__) == automatic(beta, on_gpu=True), passes


def test_a_gpu_is_known_by_its_arrays() -> None:
    """torch's fake arrays have the device that they are asked for; a JAX array, sparse or not, and NumPy's lie here."""
    fakes = pytest.importorskip("torch._subclasses.fake_tensor").FakeTensorMode()
    with fakes:
        assert libraries.on_gpu(torch.empty((3, 2), device="cuda:1"))
    assert not any(libraries.on_gpu(torch.ones((3, 2), device=device)) for device in ("cpu", "meta"))
    assert not libraries.on_gpu(np.ones((3, 2)))
    jax, sparse = (pytest.importorskip(name) for name in ("jax", "jax.experimental.sparse"))
    on_cpu = jax.device_put(jax.numpy.ones((3, 2)), jax.devices("cpu")[0])
    assert not libraries.on_gpu(on_cpu)
    assert not libraries.on_gpu(sparse.BCOO.fromdense(on_cpu))
    with stand_in.installed():
        import cupy
        import cupyx.scipy.sparse

        V = cupy.ones((6, 5))
        assert libraries.on_gpu(V)
        assert libraries.on_gpu(cupyx.scipy.sparse.csr_matrix(V))
        assert nmf_xp.nmf(V, 2, beta_loss=1, random_state=0, max_iter=3).solver == "mm"


def test_what_is_counted() -> None:
    """A product, a scalar that is uploaded, a view, a read, and a comparison that leaves a byte an entry."""
    from tests.counts import counted

    x = torch.ones((6, 4), dtype=torch.float32)

    def one_of_each() -> None:
        positive = (2.0 * x).T > 0
        torch.maximum(x, torch.asarray(1.0))
        float(positive[0, 0])

    counts = counted(one_of_each, size=24, width=4)
    assert (counts.uploads, counts.reads, counts.passes) == (1, 1, 2 + 1.25 + 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bounds_are_those_of_the_standard(target: Target, dtype: str) -> None:
    """NaN stays, as in `maximum`, and the dtype too."""
    x = np.asarray([[-np.inf, -1.0, 0.25], [np.nan, 0.5, np.inf]], dtype=dtype)
    given = target.asarray(x)
    for bounded, expected in (
        (operators.at_least(given, 0.25, xp=target.xp), np.maximum(x, np.asarray(0.25, dtype=dtype))),
        (operators.at_most(given, 0.25, xp=target.xp), np.minimum(x, np.asarray(0.25, dtype=dtype))),
    ):
        assert bounded.dtype == given.dtype
        np.testing.assert_array_equal(target.to_numpy(bounded), expected)


def test_bounds_have_a_gradient() -> None:
    """1 where `x` is taken and 0 where the bound is, on torch and JAX."""
    jax = pytest.importorskip("jax")
    x = np.asarray([-1.0, 0.0, 0.5, 2.0])
    for bounded, expected in ((operators.at_least, [0.0, 0.0, 1.0, 1.0]), (operators.at_most, [1.0, 1.0, 0.0, 0.0])):
        on_torch = torch.asarray(x).requires_grad_()
        bounded(on_torch, 0.25, xp=libraries.array_namespace(on_torch)).sum().backward()  # type: ignore[attr-defined]
        np.testing.assert_array_equal(on_torch.grad, expected)
        gradient = jax.grad(lambda x, bounded=bounded: bounded(x, 0.25, xp=libraries.array_namespace(x)).sum())
        np.testing.assert_array_equal(gradient(jax.numpy.asarray(x)), expected)
