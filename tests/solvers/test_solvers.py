"""Every solver on every kind of data it takes: it never raises the objective, and it ends at a stationary point.

But for `online`, which may do both: it is held to multiplicative updates.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from nmf_xp import Status, data, nmf, transform
from nmf_xp.arrays import kernels
from nmf_xp.arrays.transfer import to_host
from nmf_xp.solvers import LOSSES, SOLVERS, automatic
from nmf_xp.solvers.extrapolation import Extrapolated
from nmf_xp.solvers.newton import Newton
from nmf_xp.testing import Backend, Target
from tests.compiled import eagerly
from tests.problems import BETAS, noisy

CASES = [(name, beta) for name in SOLVERS for beta in BETAS if beta in LOSSES.get(name, (beta,))]
NEW = [(name, beta) for name, beta in CASES if name not in ("mu", "online")]
MAIN = [("newton", 1.0), ("cd", 1.0), ("cd", 2.0), ("mm", 0.5), ("mm", 3.0)]
KINDS = ("dense", "tall", "sparse", "weighted", "masked", "penalised", "fixed", "bounded", "stack")


@pytest.fixture(autouse=True)
def with_kernels_and_without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NumPy kernels serve the small arrays of these tests too; on its read-only arrays they never do."""
    monkeypatch.setattr(kernels, "LEAST", 0)
    if "readonly" in request.node.name:
        monkeypatch.setenv("NMF_XP_KERNELS", "0")


def problem(kind: str, beta: float) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Data and the options that go with the kind."""
    rng = np.random.default_rng(7)
    m, n, r = (40, 6, 3) if kind == "tall" else (12, 9, 3)
    V = rng.gamma(1.0, 2.0, size=(m, n)) + (0.05 if beta <= 0 else 0.0)
    if beta > 0:
        V *= rng.random(V.shape) < 0.7
        V[2], V[:, 4] = 0, 0
    init = [rng.uniform(0.2, 1.2, size=shape) for shape in ((m, r), (r, n))]
    options: dict[str, Any] = {}
    match kind:
        case "weighted":
            options["weights"] = rng.uniform(0.1, 3.0, V.shape)
        case "masked":
            options["weights"] = (rng.random(V.shape) < 0.7).astype(float)
        case "penalised":
            options |= {"alpha_W": 0.05, "alpha_H": 0.1, "l1_ratio": 0.5}
        case "fixed":
            options |= {"fixed_w": rng.random((m, r)) < 0.2, "fixed_h": np.arange(r)[:, None] == np.zeros(n)}
        case "bounded":
            options |= {"upper_w": 0.9, "upper_h": 2.0}
        case "stack":
            V = np.stack([V, 3 * V[::-1], V + 0.5])
            init = [np.stack([x, x[::-1], 2 * x]) for x in init]
    options["init"] = tuple(init)
    return V, options


def on(target: Target, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the target's arrays."""

    def moved(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(moved, x))
        return target.asarray(x) if isinstance(x, np.ndarray) else x

    return {name: moved(x) for name, x in options.items()}


def made_sparse(target: Target, V: Any) -> Any:
    """V in the sparse format of the target's library; skipped where there is none."""
    from nmf_xp.testing.checks import _sparse_maker
    from nmf_xp.testing.report import Skip

    try:
        return _sparse_maker(target)(V)
    except Skip as reason:
        pytest.skip(f"{target.name}: {reason}, see the table in docs/data-kinds.md")


@pytest.mark.parametrize("backend", [Backend.NUMPY, Backend.NUMPY_READONLY], ids=["kernels", "without"])
@pytest.mark.parametrize(
    ("solver", "beta", "kind"),
    [
        (*case, kind) for case in NEW for kind in KINDS if kind != "sparse" or case[1] > 0
    ],  # zeros and beta <= 0: infinite
)
def test_the_objective_never_rises_on_numpy(
    backend: Backend, solver: str, beta: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "LEAST", 0)
    monkeypatch.setenv("NMF_XP_KERNELS", "1" if backend is Backend.NUMPY else "0")
    never_rises(backend.target(), solver, beta, kind)


@eagerly
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("solver", "beta"), MAIN)
def test_the_objective_never_rises(target: Target, solver: str, beta: float, kind: str) -> None:
    never_rises(target, solver, beta, kind)


def never_rises(target: Target, solver: str, beta: float, kind: str) -> None:
    V, options = problem(kind, beta)
    given = target.asarray(V)
    if kind == "sparse":
        given = made_sparse(target, given)
    result = nmf(given, 3, beta_loss=beta, solver=solver, max_iter=25, tol=1e-300, check_every=1, **on(target, options))
    histories = result.history if kind == "stack" else (result.history,)
    for history in histories:
        assert len(history) > 5
        assert np.isfinite(history).all()
        assert np.max(np.diff(history)) <= 1e-11 * history[0]
        assert history[-1] < history[0]
    for name in ("W", "H"):
        x = target.to_numpy(getattr(result, name))
        assert np.isfinite(x).all()
        assert x.min() >= 0
    if kind == "fixed":
        for name, mask, before in zip("WH", (options["fixed_w"], options["fixed_h"]), options["init"], strict=True):
            np.testing.assert_array_equal(target.to_numpy(getattr(result, name))[mask], before[mask])
    if kind == "bounded":
        assert target.to_numpy(result.W).max() <= 0.9
        assert target.to_numpy(result.H).max() <= 2.0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "penalised"])
@pytest.mark.parametrize("beta", BETAS)
def test_online_with_one_batch_that_forgets_all_is_mu(beta: float, kind: str) -> None:
    V, options = problem(kind, beta)
    if kind == "sparse":
        if beta <= 0:
            return  # zeros, which are infinitely far
        V = made_sparse(Backend.NUMPY.target(), V)
    options |= {"beta_loss": beta, "max_iter": 7, "tol": 0, "alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 1.0}
    expected = nmf(V, 3, solver="mu", **options)
    result = nmf(V, 3, solver=("online", {"forget_factor": 0.0}), **options)
    for x, y in ((result.W, expected.W), (result.H, expected.H)):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


ONLINE = ("online", {"batch_size": 8})


@pytest.mark.parametrize("kind", ["tall", "masked", "penalised", "fixed", "bounded", "stack"])
@pytest.mark.parametrize("beta", BETAS)
def test_online_goes_most_of_the_way_of_mu(beta: float, kind: str) -> None:
    """At least 80 % in as many passes (82 seen), 40 % for beta <= 0 (46); the last batch has fewer rows."""
    V, options = problem(kind, beta)
    options |= {"beta_loss": beta, "max_iter": 30, "tol": 1e-300, "check_every": 15}
    result, expected = (nmf(V, 3, solver=solver, **options) for solver in (ONLINE, "mu"))
    histories = zip(*((x.history if kind == "stack" else (x.history,)) for x in (result, expected)), strict=True)
    for ours, theirs in histories:
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
        assert ours[0] - ours[-1] > (0.8 if beta > 0 else 0.4) * (theirs[0] - theirs[-1])
    if kind == "fixed":
        kept = options["fixed_h"]
        np.testing.assert_array_equal(result.H[kept], options["init"][1][kept])
    if kind == "bounded":
        assert max(result.W.max() - 0.9, result.H.max() - 2.0) <= 0


@eagerly
@pytest.mark.parametrize(("kind", "beta"), [("masked", 1.0), ("stack", 3.0)])
def test_online_does_on_every_backend_what_it_does_on_numpy(target: Target, beta: float, kind: str) -> None:
    """Sparse ones are in `test_online.py`."""
    V, options = problem(kind, beta)
    passes: dict[str, Any] = {"beta_loss": beta, "max_iter": 2, "tol": 1e-300, "check_every": 2}
    passes["solver"] = ("online", {"batch_size": 6})
    result, expected = nmf(target.asarray(V), 3, **passes, **on(target, options)), nmf(V, 3, **passes, **options)
    np.testing.assert_allclose(target.to_numpy(result.H), expected.H, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(result.history, expected.history, rtol=1e-9)


def test_online_ends_where_passes_change_nothing_more_and_goes_through_rises() -> None:
    V, W, H = noisy(60, 12, 3)
    options: dict[str, Any] = {"init": (W, H), "beta_loss": 1.0, "check_every": 1}
    result = nmf(V, 3, solver=("online", {"batch_size": 10}), tol=1e-9, max_iter=3000, **options)
    assert result.status is Status.CONVERGED
    assert abs(result.history[-1] - result.history[-2]) <= 1e-9 * result.history[-1]
    least = nmf(V, 3, solver="newton", tol=1e-12, max_iter=500, **options)
    options |= {"init": (least.W, least.H), "max_iter": 5, "tol": 1e-12}
    hasty = nmf(V, 3, solver=("online", {"batch_size": 10, "forget_factor": 0.0}), **options)
    assert hasty.history[1] > 1.001 * hasty.history[0]
    assert hasty.status is Status.MAX_ITER


@eagerly
@pytest.mark.parametrize("kind", ["dense", "masked", "penalised"])
@pytest.mark.parametrize(("solver", "beta"), MAIN)
def test_every_backend_does_what_numpy_does(target: Target, solver: str, beta: float, kind: str) -> None:
    V, options = problem(kind, beta)
    expected = nmf(V, 3, beta_loss=beta, solver=solver, max_iter=4, tol=0, **options)
    result = nmf(target.asarray(V), 3, beta_loss=beta, solver=solver, max_iter=4, tol=0, **on(target, options))
    for name in ("W", "H"):
        x, y = target.to_numpy(getattr(result, name)), np.asarray(getattr(expected, name))
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9 * y.max())  # rounding grows with each iteration


@pytest.mark.parametrize(("solver", "beta"), [case for case in NEW if 1 <= case[1] <= 2])
@pytest.mark.parametrize("kind", ["dense", "weighted", "masked", "penalised", "bounded", "stack"])
def test_transform_finds_the_minimum(solver: str, beta: float, kind: str) -> None:
    """One factor is a convex problem: every solver tends to the same minimum."""
    V, options = problem(kind, beta)
    options = {name: x for name, x in options.items() if name in ("weights", "alpha_W", "l1_ratio", "upper_w")}
    H = np.random.default_rng(1).uniform(0.1, 1.0, size=(3, V.shape[-1]))
    results = [
        transform(V, H, beta_loss=beta, solver=name, max_iter=20000, tol=1e-14, **options) for name in ("mu", solver)
    ]
    found, expected = (np.asarray(result.objective) for result in results)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert np.sum(results[1].n_iter) < np.sum(results[0].n_iter)


@pytest.mark.parametrize(("solver", "beta"), [("newton", 1.0), ("cd", 1.0), ("cd", 2.0), ("mm", 0.5), ("mm", 1.5)])
def test_it_needs_far_fewer_iterations(solver: str, beta: float) -> None:
    """From the same start to what multiplicative updates reach in 300 iterations; a cycle of `mm` is three of them."""
    V, W, H = noisy(60, 40, 4, zeros=beta > 0)
    goal = nmf(V, 4, init=(W, H), beta_loss=beta, solver="mu", max_iter=300, tol=0).divergence
    result = nmf(
        V, 4, init=(W, H), beta_loss=beta, solver=solver, max_iter=300, tol=0, check_every=1,
        callback=lambda progress: progress.divergence <= goal * (1 + 1e-4),
    )  # fmt: skip
    assert result.status is Status.STOPPED
    assert result.n_iter <= 60


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_step_that_was_dropped_is_no_convergence(beta: float) -> None:
    """With a check at each iteration, extrapolation is dropped now and then, and the run goes on."""
    V, W, H = noisy(60, 40, 5, zeros=True)
    result = nmf(V, 5, init=(W, H), beta_loss=beta, solver="cd", max_iter=400, tol=1e-9, check_every=1)
    drops = [i for i, (x, y) in enumerate(zip(result.history, result.history[1:], strict=False)) if x == y]
    assert drops
    assert drops[0] < result.n_iter - 2
    assert all(b - a > 1 for a, b in itertools.pairwise(drops) if b < result.n_iter - 1)


@pytest.mark.parametrize("backend", [Backend.NUMPY, Backend.NUMPY_READONLY], ids=["kernels", "without"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_divergence_that_comes_with_a_half_iteration_of_newton(
    backend: Backend, kind: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the factors, although WH was not computed from them."""
    monkeypatch.setattr(kernels, "LEAST", 0)
    monkeypatch.setenv("NMF_XP_KERNELS", "1" if backend is Backend.NUMPY else "0")
    monkeypatch.setattr(Newton, "in_one_call", lambda *_: None)  # so that each half can be seen
    objective = Extrapolated._objective
    found_with_h: list[bool] = []
    errors: list[float] = []

    def compared(self: Any, problem: Any, W: Any, H: Any, found: Any, *, xp: Any) -> Any:
        result = objective(self, problem, W, H, found, xp=xp)
        found_with_h.append(found is not None)
        exact = to_host(objective(self, problem, W, H, None, xp=xp))
        errors.append(float(np.max(np.abs(to_host(result) / exact - 1))))
        return result

    monkeypatch.setattr(Extrapolated, "_objective", compared)
    target = backend.target()
    V, options = problem(kind, 1.0)
    V, options["init"] = V.astype(dtype), tuple(x.astype(dtype) for x in options["init"])
    options |= {"weights": options["weights"].astype(dtype)} if "weights" in options else {}
    given = target.asarray(V)
    given = made_sparse(target, given) if kind == "sparse" else given
    nmf(given, 3, beta_loss=1, solver="newton", max_iter=25, tol=0, **on(target, options))
    assert all(found_with_h) or (kind == "sparse" and backend is Backend.NUMPY)  # whose kernel leaves it out
    assert max(errors) < 30 * np.finfo(dtype).eps


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("penalised", [False, True], ids=["plain", "penalised"])
def test_plain_coordinate_descent_is_that_of_scikit_learn(kind: str, penalised: bool) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    sparse = pytest.importorskip("scipy.sparse")
    V, W, H = noisy(30, 20, 4, zeros=True)
    options: dict[str, Any] = {"alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.3} if penalised else {}
    given = sparse.csr_array(V) if kind == "sparse" else V
    theirs = decomposition.NMF(4, init="custom", solver="cd", tol=0, max_iter=60, **options)
    W_theirs = theirs.fit_transform(given, W=W.copy(), H=H.copy())
    ours = nmf(given, 4, init=(W, H), solver="cd-plain", tol=0, max_iter=60, **options)
    np.testing.assert_allclose(ours.W, W_theirs, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.H, theirs.components_, rtol=1e-8, atol=1e-10)


def test_settings_of_two_solvers_are_never_equal() -> None:
    """JAX finds a compiled program by them, and named tuples of two classes are equal where their fields are."""
    for beta in BETAS:
        settings = [SOLVERS[name](beta=beta, floor=1e-9) for name in SOLVERS if beta in LOSSES.get(name, (beta,))]
        assert len(set(settings)) == len(settings)


def test_it_says_which_solver_ran() -> None:
    V = noisy(8, 7, 2).V
    for beta, name in ((1.0, "newton"), (2.0, "cd"), (0.0, "mm"), (1.5, "mm")):
        assert nmf(V, 2, beta_loss=beta, random_state=0).solver == name == automatic(beta)


@pytest.mark.parametrize(("solver", "beta", "losses"), [("newton", 2.0, "1"), ("cd", 1.5, "1 or 2")])
def test_a_solver_that_does_not_take_the_loss_says_so(solver: str, beta: float, losses: str) -> None:
    message = f"`solver='{solver}'` needs a `beta_loss` of {losses}, got {beta:g}; solver='auto' takes one that fits"
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared
        nmf(noisy(8, 7, 2).V, 2, beta_loss=beta, solver=solver)
    assert str(error.value) == message


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("solver", "beta"), NEW)
def test_a_start_at_the_floor_and_extreme_scales(solver: str, beta: float, dtype: str) -> None:
    """Zeros in the start, data from 1e-6 to 1e6, more components than columns."""
    V, W, H = noisy(14, 5, 8, zeros=beta > 0)
    W[:, 1], H[2], W[3] = 0, 0, 0
    V[:, 0] *= 1e-3
    for scale in (1e-6, 1.0, 1e6):
        start = tuple((x * scale**0.5).astype(dtype) for x in (W, H))
        result = nmf(
            (V * scale).astype(dtype), 8, init=start, beta_loss=beta, solver=solver, max_iter=30, tol=1e-30,
            check_every=1,
        )  # fmt: skip
        assert result.status is not Status.NOT_FINITE
        assert result.status is not Status.INCREASED
        assert np.max(np.diff(result.history)) <= 50 * float(np.finfo(dtype).eps) * result.history[0]


def test_restarts_equal_single_runs() -> None:
    V = noisy(30, 20, 4, zeros=True).V
    for beta in (1.0, 2.0):
        restarts = nmf(V, 4, beta_loss=beta, n_restarts=5, random_state=0, keep_restarts=True).restarts
        rng = np.random.default_rng(0)
        alone = [nmf(V, 4, beta_loss=beta, random_state=rng) for _ in range(5)]
        assert restarts is not None
        np.testing.assert_allclose(restarts.divergence, [x.divergence for x in alone], rtol=1e-9)
        assert restarts.n_iter.tolist() == [x.n_iter for x in alone]


@pytest.mark.parametrize("kind", ["dense", "sparse", "weighted"])
def test_blocks_and_threads_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix of several blocks along rows and columns, with kernels and without, against one block."""
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    V: Any = rng.poisson(1.0, (700, 600)).astype(float)
    W, H = rng.uniform(0.1, 1.0, (700, 6)), rng.uniform(0.1, 1.0, (6, 600))
    kinds = {"weights": rng.uniform(0.5, 1.0, (700, 600)), "absent": "missing"} if kind == "weighted" else {}
    if kind != "dense":
        V = sparse.csr_array(V)
        assert len(data.as_data(V).with_both_orders().T.block_starts(6)) > 3
    for solver, beta in NEW:
        if beta <= 0:
            continue
        options: dict[str, Any] = {"init": (W, H), "beta_loss": beta, "solver": solver, "max_iter": 3, "tol": 0}
        options |= kinds
        results = [nmf(V, 6, **options)]
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "find", lambda *_: None)
            results.append(nmf(V, 6, **options))
            for cls in (data.Dense, data.Sparse):
                patch.setattr(cls, "block_starts", lambda self, _: [0, self.shape[-2]])
            results.append(nmf(V, 6, **options))
        for other in results[1:]:
            np.testing.assert_allclose(results[0].W, other.W, rtol=1e-7, atol=1e-9)


def test_jax_compiles_no_more_for_more_components() -> None:
    """The sweeps over components are a loop in the compiled program."""
    jax = pytest.importorskip("jax")
    target = Backend.JAX.target()
    with target.active():
        texts = []
        for r in (3, 6):
            V, W, H = (target.asarray(x) for x in noisy(12, 9, r))

            def run(V: Any, W: Any, H: Any) -> Any:
                return nmf(V, W.shape[-1], init=(W, H), beta_loss=1, solver="newton", max_iter=2, tol=0).W

            texts.append(jax.jit(run).lower(V, W, H).as_text())
        assert abs(len(texts[0].splitlines()) - len(texts[1].splitlines())) < 20


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta", [0.005, 0.02, 0.1])
def test_balancing_raises_no_objective_for_small_beta(beta: float, dtype: str) -> None:
    """The power beta of the floor can be seen there, so no entry may be scaled to below it and raised again."""
    rng = np.random.default_rng(2)
    V, W, H = np.zeros((20, 15)), rng.random((20, 3)), rng.random((3, 15))
    V[:10, :7], V[10:, 7:] = rng.gamma(1, 1, (10, 7)), rng.gamma(1, 1, (10, 8))
    W[:10, 0], H[0, :7], W[10:, 1] = 0, 0, 0
    for scale in (1e-6, 1.0, 1e6):
        start = (scale * W).astype(dtype), (H / scale).astype(dtype)
        options: dict[str, Any] = {"solver": "mm", "max_iter": 60, "tol": 1e-12, "check_every": 1}
        result = nmf(V.astype(dtype), 3, beta_loss=beta, init=start, **options)
        history = np.asarray(result.history)
        assert np.all(np.diff(history) <= (1e-6 if dtype == "float32" else 1e-13) * history[:-1])
        assert result.status is not Status.INCREASED
