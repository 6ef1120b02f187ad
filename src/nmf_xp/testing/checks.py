"""The checks of a backend: plain functions of a target and a dtype.

Each returns what it measured, raises AssertionError with a sentence, or `Skip` with the reason why it says nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

import nmf_xp
from nmf_xp.arrays import libraries, transfer
from nmf_xp.testing import kernels, oracle
from nmf_xp.testing.host_reads import run_without_host_reads
from nmf_xp.testing.report import Skip
from nmf_xp.updates import factor_floor

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.testing.backends import Target

    Check = Callable[[Target, str], str]

BETAS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
# What 20 iterations may differ by from the oracle, relative, in norm.
AGREEMENT = {"float32": 1e-4, "float64": 1e-10}
ITERATIONS = 20
SOLVERS = (("newton", 1.0), ("cd", 1.0), ("cd", 2.0), ("mm", 0.5))


def agrees_with_the_oracle(target: Target, dtype: str) -> str:
    """After 20 iterations W, H and the divergence are those of plain NumPy, for seven betas."""
    worst = 0.0
    for beta in BETAS:
        V, W, H = _problem(dtype, zeros=beta > 0)
        result = _factorize(target, V, W, H, beta_loss=beta)
        floor = factor_floor(target.asarray(V).dtype, beta=beta, xp=target.xp)
        W, H = oracle.factorize(V, W, H, beta, ITERATIONS, floor)
        divergence = oracle.divergence(V.astype(np.float64), W, H, beta)
        errors = [_distance(target, result.W, W), _distance(target, result.H, H)]
        worst = float(np.max([worst, *errors, abs(float(result.divergence) - divergence) / divergence]))
    assert worst <= AGREEMENT[dtype], f"differs from the oracle by {worst:.1e}, relative; {AGREEMENT[dtype]:.0e} may be"
    return f"{worst / np.finfo(dtype).eps:.0f} eps"


def divergence_never_rises(target: Target, dtype: str) -> str:
    """No update raises the divergence by more than rounding does, for seven betas."""
    worst = 0.0
    for beta in BETAS:
        V, W, H = (target.asarray(x) for x in _problem(dtype, zeros=beta > 0))
        update_w, update_h, divergence = (
            target.compile(lambda V, W, H, f=f, beta=beta: f(V, W, H, beta_loss=beta))
            for f in (nmf_xp.update_w, nmf_xp.update_h, nmf_xp.beta_divergence)
        )
        values = [float(divergence(V, W, H))]
        for _ in range(ITERATIONS):
            W = update_w(V, W, H)
            values.append(float(divergence(V, W, H)))
            H = update_h(V, W, H)
            values.append(float(divergence(V, W, H)))
        worst = float(np.maximum(worst, np.max(np.diff(values)) / values[0]))
    bound = 50 * float(np.finfo(dtype).eps)
    assert worst <= bound, f"the divergence rose by {worst:.1e} of its first value; rounding explains {bound:.0e}"
    return f"largest rise {max(worst, 0) / np.finfo(dtype).eps:.1f} eps"


def keeps_dtype_and_device(target: Target, dtype: str) -> str:
    """Factors have the dtype, the device and the namespace of V, and the shapes that were asked for."""
    V, W, H = _problem(dtype)
    given = target.asarray(V)
    result = _factorize(target, V, W, H)
    for name, factor, shape in (("W", result.W, W.shape), ("H", result.H, H.shape)):
        assert tuple(factor.shape) == shape, f"{name} has shape {tuple(factor.shape)}, not {shape}"
        assert factor.dtype == given.dtype, f"{name} has dtype {factor.dtype}, not {given.dtype}"
        assert libraries.array_namespace(factor) is target.xp, f"{name} is of another namespace"
        if not target.compiled:
            here, there = libraries.device(given), libraries.device(factor)
            assert here == there, f"{name} is on {there}, V on {here}"
    return str(given.dtype).rpartition(".")[2]


def leaves_its_inputs_alone(target: Target, dtype: str) -> str:
    """V and the start are what they were."""
    arrays = _problem(dtype)
    given = [target.asarray(x) for x in arrays]
    nmf_xp.nmf(given[0], 3, init=(given[1], given[2]), beta_loss=1, max_iter=3)
    nmf_xp.transform(given[0], given[2], init=given[1], beta_loss=1, max_iter=3)
    for f in (nmf_xp.update_w, nmf_xp.update_h, nmf_xp.beta_divergence):
        f(*given, beta_loss=1)
    for name, before, after in zip("VWH", arrays, given, strict=True):
        assert np.array_equal(before, target.to_numpy(after)), f"{name} was changed"
    return ""


def factors_are_non_negative_and_finite(target: Target, dtype: str) -> str:
    """Factors are finite and not negative, with empty rows and columns and more components than rows."""
    V, _, _ = _problem(dtype)
    V[1], V[:, 2] = 0, 0
    for beta in (0.5, 1.0, 2.0, 3.0):
        result = nmf_xp.nmf(target.asarray(V), 8, beta_loss=beta, random_state=0, max_iter=ITERATIONS)
        for name, x in (("W", result.W), ("H", result.H)):
            values = target.to_numpy(x)
            assert np.isfinite(values).all(), f"{name} is not finite for beta {beta:g}"
            assert values.min() >= 0, f"{name} has the negative entry {values.min():.1e} for beta {beta:g}"
    return ""


def a_stack_equals_its_members(target: Target, dtype: str) -> str:
    """Each matrix of a stack has the factors that it has alone."""
    V, W, H = (np.stack([x, x[::-1, ::-1], 2 * x]) for x in _problem(dtype))
    stacked = _factorize(target, V, W, H, beta_loss=1)
    worst = 0.0
    for i in range(3):
        alone = _factorize(target, V[i], W[i], H[i], beta_loss=1)
        worst = float(np.maximum(worst, _distance(target, stacked.W[i, ...], target.to_numpy(alone.W))))
    assert worst <= AGREEMENT[dtype] / 10, f"a member of a stack differs by {worst:.1e} from what it is alone"
    return f"{worst / np.finfo(dtype).eps:.0f} eps"


def scales_with_the_data(target: Target, dtype: str) -> str:
    """V times 3 gives W times 3 from a start scaled likewise."""
    V, W, H = _problem(dtype)
    options = {"beta_loss": 1, "solver": ("mu", {"polish": False})}  # which leaves the scale where it is
    plain, scaled = _factorize(target, V, W, H, **options), _factorize(target, 3 * V, 3 * W, H, **options)
    found = _distance(target, scaled.W, 3 * target.to_numpy(plain.W))
    assert found <= AGREEMENT[dtype] / 10, f"W of 3 V differs from 3 W of V by {found:.1e}"
    return f"{found / np.finfo(dtype).eps:.0f} eps"


def reads_nothing_back(target: Target, dtype: str) -> str:
    """The updates and the divergence read no value from the device."""
    given = [target.asarray(x) for x in _problem(dtype)]

    def run(V: Any, W: Any, H: Any) -> Any:
        W = nmf_xp.update_w(V, W, H, beta_loss=1)
        H = nmf_xp.update_h(V, W, H, beta_loss=1)
        return nmf_xp.beta_divergence(V, W, H, beta_loss=1)

    return run_without_host_reads(run, target, *given)


def a_second_call_compiles_nothing(target: Target, dtype: str) -> str:
    """On JAX a second call with the same shapes and other values compiles nothing."""
    if not target.is_jax:
        msg = "nothing is compiled"
        raise Skip(msg)
    jax: Any = importlib.import_module("jax")
    V, _, _ = _problem(dtype)
    options: dict[str, Any] = {"beta_loss": 1, "max_iter": ITERATIONS, "random_state": 0}
    first, second = target.asarray(V), target.asarray(V + 1)
    nmf_xp.nmf(first, 3, **options)
    compiled: list[str] = []

    def listen(event: str, *_: Any, **__: Any) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    nmf_xp.nmf(second, 3, **options)
    found = len(compiled)
    assert found == 0, f"the second call compiled {found} programs"
    return "0 compilations"


def starts_where_numpy_starts(target: Target, dtype: str) -> str:
    """The same random_state gives the same start as on NumPy."""
    V, _, _ = _problem(dtype)
    options: dict[str, Any] = {"beta_loss": 1, "solver": "mu", "max_iter": 1, "tol": 0, "random_state": 7}
    here, there = nmf_xp.nmf(target.asarray(V), 3, **options), nmf_xp.nmf(V, 3, **options)
    found = _distance(target, here.W, transfer.to_host(there.W))
    assert found <= 100 * np.finfo(dtype).eps, f"after one iteration W differs by {found:.1e} from NumPy's"
    return f"{found / np.finfo(dtype).eps:.0f} eps"


def transform_agrees(target: Target, dtype: str) -> str:
    """W for given H is NumPy's."""
    V, _, H = _problem(dtype)
    run = target.compile(lambda V, H: nmf_xp.transform(V, H, beta_loss=1, max_iter=ITERATIONS, tol=0).W)
    expected = nmf_xp.transform(V.astype(np.float64), H.astype(np.float64), beta_loss=1, max_iter=ITERATIONS, tol=0).W
    found = _distance(target, run(target.asarray(V), target.asarray(H)), transfer.to_host(expected))
    assert found <= AGREEMENT[dtype], f"W differs by {found:.1e} from NumPy's in float64"
    return f"{found / np.finfo(dtype).eps:.0f} eps"


def weights_hide_what_is_unobserved(target: Target, dtype: str) -> str:
    """Weights of 1 change nothing, and values behind a weight of 0 are never read."""
    V, W, H = _problem(dtype)
    plain = _factorize(target, V, W, H, beta_loss=1)
    ones = _factorize(target, V, W, H, beta_loss=1, weights=target.asarray(np.ones_like(V)))
    found = _distance(target, ones.W, target.to_numpy(plain.W))
    assert found <= AGREEMENT[dtype] / 10, f"weights of 1 change W by {found:.1e}"
    hidden = V > np.median(V)
    weights = target.asarray(np.where(hidden, 0, 1).astype(dtype))
    results = [
        target.to_numpy(_factorize(target, np.where(hidden, x, V), W, H, beta_loss=1, weights=weights).W)
        for x in (V, np.asarray(1e30, dtype=dtype), np.asarray(np.nan, dtype=dtype))
    ]
    assert np.array_equal(results[0], results[1]), "1e30 behind a weight of 0 changes W"
    assert np.array_equal(results[0], results[2]), "NaN behind a weight of 0 changes W"
    return ""


def penalised_objective_never_rises(target: Target, dtype: str) -> str:
    """With L1 and L2 penalties the objective does not rise, for four betas."""
    if target.compiled:
        msg = "a history is not returned in full by a compiled run"
        raise Skip(msg)
    worst = 0.0
    for beta in (0.5, 1.0, 2.0, 3.0):
        V, W, H = (target.asarray(x) for x in _problem(dtype))
        options: dict[str, Any] = {"beta_loss": beta, "alpha_W": 0.1, "l1_ratio": 0.5, "check_every": 1}
        history = nmf_xp.nmf(V, 3, init=(W, H), tol=1e-30, max_iter=ITERATIONS, **options).history
        worst = float(np.maximum(worst, np.max(np.diff(history)) / history[0]))
    bound = 50 * float(np.finfo(dtype).eps)
    assert worst <= bound, f"the objective rose by {worst:.1e} of its first value; rounding explains {bound:.0e}"
    return f"largest rise {max(worst, 0) / np.finfo(dtype).eps:.1f} eps"


def every_solver_agrees(target: Target, dtype: str) -> str:
    """After 5 iterations each solver beside `mu` has reached what it reaches on NumPy in float64."""
    worst = 0.0
    for solver, beta in SOLVERS:
        options: dict[str, Any] = {"beta_loss": beta, "solver": solver, "max_iter": 5, "tol": 0}
        V, W, H = (x.astype(np.float64) for x in _problem(dtype))
        expected = nmf_xp.nmf(V, 3, init=(W, H), **options).divergence
        found = _factorize(target, *_problem(dtype), **options).divergence
        worst = float(np.maximum(worst, abs(float(found) - expected) / expected))
    assert worst <= 10 * AGREEMENT[dtype], f"a divergence differs by {worst:.1e} from NumPy's in float64"
    return f"{worst / np.finfo(dtype).eps:.0f} eps"


def sparse_equals_dense(target: Target, dtype: str) -> str:
    """A sparse V of the library's own kind gives what the dense one gives."""
    make = _sparse_maker(target)
    V, W, H = _problem(dtype)
    V = np.where(V < np.median(V), 0, V).astype(dtype)
    given = [target.asarray(x) for x in (W, H)]
    options: dict[str, Any] = {"beta_loss": 1, "solver": "mu", "max_iter": ITERATIONS, "tol": 0, "init": tuple(given)}
    sparse = nmf_xp.nmf(make(target.asarray(V)), 3, **options)
    dense = nmf_xp.nmf(target.asarray(V), 3, **options)
    found = _distance(target, sparse.W, target.to_numpy(dense.W))
    assert found <= AGREEMENT[dtype], f"W differs by {found:.1e}"
    return f"{found / np.finfo(dtype).eps:.0f} eps"


def kernels_equal_their_twins(target: Target, dtype: str) -> str:
    """Each compiled kernel for its arrays finds what the same computation finds without it."""
    names = kernels.names_for(target)
    worst, bound = 0.0, 100 * float(np.finfo(dtype).eps)  # sums of up to 37 terms in another order
    for name in names:
        for found, expected in kernels.pairs(name, target, dtype):
            distance = _distance(target, found, target.to_numpy(expected))
            assert distance <= bound, f"{name} differs from its twin by {distance:.1e}; {bound:.0e} may be"
            worst = max(worst, distance)
    return f"{len(names)} kernels, {worst / np.finfo(dtype).eps:.0f} eps"


CHECKS: tuple[Check, ...] = (
    agrees_with_the_oracle,
    divergence_never_rises,
    keeps_dtype_and_device,
    leaves_its_inputs_alone,
    factors_are_non_negative_and_finite,
    a_stack_equals_its_members,
    scales_with_the_data,
    reads_nothing_back,
    a_second_call_compiles_nothing,
    starts_where_numpy_starts,
    transform_agrees,
    weights_hide_what_is_unobserved,
    penalised_objective_never_rises,
    every_solver_agrees,
    sparse_equals_dense,
    kernels_equal_their_twins,
)


def checks() -> list[Check]:
    """All checks of a backend, each with a one-line docstring that says what it promises."""
    return list(CHECKS)


def _problem(dtype: str, *, zeros: bool = True) -> tuple[np.ndarray[Any, Any], ...]:
    """Counts (6, 5) with or without zeros, and factors of rank 3."""
    rng = np.random.default_rng(3)
    V = rng.poisson(2.0, (6, 5)) + (0.0 if zeros else 0.5)
    return tuple(x.astype(dtype) for x in (V, rng.uniform(0.5, 1.5, (6, 3)), rng.uniform(0.5, 1.5, (3, 5))))


def _factorize(target: Target, V: Any, W: Any, H: Any, **options: Any) -> nmf_xp.Result:
    """A fixed number of iterations, as the target runs them."""
    weights = options.pop("weights", None)
    options = {"max_iter": ITERATIONS, "tol": 0, "solver": "mu", **options}
    run = target.compile(lambda V, W, H, weights: nmf_xp.nmf(V, 3, init=(W, H), weights=weights, **options))
    return run(*(target.asarray(x) for x in (V, W, H)), weights)


def _distance(target: Target, found: Any, expected: np.ndarray[Any, Any]) -> float:
    """Relative, in norm."""
    difference = target.to_numpy(found).astype(np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


def _sparse_maker(target: Target) -> Callable[[Any], Any]:
    """What makes the target's arrays sparse."""
    library = target.name.partition(":")[0]
    if library == "numpy" and importlib.util.find_spec("scipy") is not None:
        return importlib.import_module("scipy.sparse").csr_array
    if library == "cupy":
        return importlib.import_module("cupyx.scipy.sparse").csr_matrix
    if library == "torch":
        return lambda x: x.to_sparse_coo()
    if target.is_jax and not target.compiled:
        return importlib.import_module("jax.experimental.sparse").BCOO.fromdense
    msg = "no sparse arrays to go with it"
    raise Skip(msg)
