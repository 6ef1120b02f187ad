"""Random calls with every option at once: each is refused with an error that names an argument, or has all invariants.

    python -m tests.fuzzing --minutes 60 --processes 2

runs for as long, and says how many cases there were and the smallest one of each kind that failed, which `examine`
makes again.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import re
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from nmf_xp.solvers import LOSSES, SOLVERS
from nmf_xp.testing import Backend
from tests.calls import SPARSE, Call, only_documented_warnings
from tests.invariants import ANSWERED, COMPARED, status_honest

ARGUMENTS = {
    *(
        "V",
        "W",
        "H",
        "n_components",
        "beta_loss",
        "solver",
        "init",
        "weights",
        "missing",
        "absent",
        "alpha_W",
        "alpha_H",
    ),
    *(
        "l1_ratio",
        "fixed_w",
        "fixed_h",
        "upper_w",
        "upper_h",
        "normalize",
        "n_restarts",
        "max_iter",
        "tol",
        "check_every",
    ),
    *("keep_restarts", "random_state", "batch_size", "forget_factor", "violation_tol", "orders"),
}
BACKENDS = (Backend.NUMPY, Backend.NUMPY_READONLY, Backend.STRICT, Backend.STRICT_DEVICE, Backend.TORCH, Backend.JAX)
BETAS = (2.0, 1.0, 0.0, 0.5, 1.5, 3.0, -1.0)
STYLES = ("gamma", "counts", "exact", "wide", "constant", "mostly zero", "zeros", "wild")
POSITIVE = ("gamma", "exact", "wide", "constant", "zeros")
PENALTIES = (0.0, 0.0, 0.0, 1e-12, 1e-3, 0.1, 1.0, 100.0, 1e300)


class Case(NamedTuple):
    """A call in plain numbers: what it is printed as, and made of again."""

    m: int = 3
    n: int = 3
    rank: int = 1
    stack: int = 0
    dtype: str = "float64"
    style: str = "gamma"
    decades: int = 0  # V is multiplied by this power of ten
    transform: bool = False
    solver: Any = "auto"
    beta: float = 2.0
    init: str = "random"  # or "given", "zeros" for a given one with zeros, or None for `transform`
    weights: str | None = None
    nans: bool = False
    missing: str | None = None
    absent: str = "zero"
    alpha_w: float = 0.0
    alpha_h: Any = "same"
    l1_ratio: float = 0.0
    fixed: str = ""  # the factors that have fixed entries
    upper: str = ""  # the factors that have upper bounds
    normalize: str | None = None
    n_restarts: int = 1
    max_iter: int = 50
    tol: float = 1e-4
    check_every: int = 10
    backend: str = "numpy"
    storage: str = "dense"
    compared: int = 0  # which of COMPARED is looked at
    seed: int = 0

    def call(self) -> Call:
        rng = np.random.default_rng(self.seed)
        shape = (self.stack, self.m, self.n) if self.stack else (self.m, self.n)
        V = values(self.style, shape, self.rank, rng)
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            with np.errstate(over="ignore", under="ignore"):
                V = (V * 10.0**self.decades).astype(dtype)
            if self.nans:
                V[..., rng.integers(self.m), rng.integers(self.n)] = np.nan
                V[rng.random(shape) < 0.1] = np.nan
        else:
            V = np.minimum(V, 100).astype(dtype)
        working = np.dtype("float32") if dtype in (np.float16, np.float32) else np.dtype("float64")
        unit = np.sqrt(10.0**self.decades) if dtype.kind == "f" else 1.0
        start = (rng.uniform(0.1, 1.1, (self.m, self.rank)), rng.uniform(0.1, 1.1, (self.rank, self.n)))
        if self.init == "zeros":
            start = tuple(np.where(rng.random(x.shape) < 0.3, 0.0, x) for x in start)  # type: ignore[assignment]
        W, H = ((unit * x).astype(working) for x in start)
        options: dict[str, Any] = {"beta_loss": self.beta, "solver": self.solver, "max_iter": self.max_iter}
        options |= {"tol": self.tol, "check_every": self.check_every, "missing": self.missing, "absent": self.absent}
        options |= {"alpha_W": self.alpha_w, "l1_ratio": self.l1_ratio}
        if self.weights is not None:
            options["weights"] = weights(self.weights, shape, rng, working)
        for which, x in (("w", W), ("h", H)):
            if which == "h" and self.transform:
                continue
            if which in self.fixed:
                options[f"fixed_{which}"] = rng.random(x.shape) < 0.4
            if which in self.upper:
                options[f"upper_{which}"] = float(unit * rng.uniform(0.1, 3)) if rng.random() < 0.5 else 2 * x
        if self.transform:
            if self.init in ("given", "zeros"):
                options["init"] = W
            return Call(V, self.rank, options, H, Backend(self.backend), self.storage)
        options |= {"alpha_H": self.alpha_h, "normalize": self.normalize, "n_restarts": self.n_restarts}
        options |= {"init": (W, H) if self.init in ("given", "zeros") else self.init, "random_state": self.seed}
        return Call(V, self.rank, options, None, Backend(self.backend), self.storage)


def values(style: str, shape: tuple[int, ...], rank: int, rng: np.random.Generator) -> Any:
    """A matrix or a stack of them, of a kind that occurs."""
    *stack, m, n = shape
    match style:
        case "gamma":
            return rng.gamma(1.0, 1.0, shape)
        case "counts":
            return rng.poisson(1.5, shape).astype(float)
        case "exact":
            return rng.random((*stack, m, rank)) @ rng.random((*stack, rank, n))
        case "wide":
            return 10.0 ** rng.uniform(-4, 4, shape)
        case "constant":
            return np.full(shape, 3.0)
        case "mostly zero":
            return rng.gamma(1.0, 1.0, shape) * (rng.random(shape) < 0.15)
        case "zeros":
            return np.zeros(shape)
        case _:  # columns in units of their own, rows and columns of zeros
            V = rng.gamma(1.0, 1.0, shape) * 10.0 ** rng.uniform(-8, 8, n)
            V[..., rng.integers(m), :] = 0
            V[..., rng.integers(n)] = 0
            return V


def weights(style: str, shape: tuple[int, ...], rng: np.random.Generator, dtype: Any) -> Any:
    """Weights of entries, of rows or of columns."""
    m, n = shape[-2:]
    match style:
        case "mask":
            return rng.random(shape) < 0.7
        case "rows":
            return rng.lognormal(0, 3, (m, 1)).astype(dtype)
        case "columns":
            return rng.lognormal(0, 3, (1, n)).astype(dtype)
        case "heavy":
            w = np.full(shape, 1e-3)
            w[..., 0, 0] = 1.0
            return w.astype(dtype)
        case "tiny":
            return (1e-24 * rng.random(shape)).astype(dtype)
        case "empty":
            w = rng.random(shape)
            w[..., rng.integers(m), :] = 0
            w[..., rng.integers(n)] = 0
            return w.astype(dtype)
        case "nothing":
            return np.zeros(shape, dtype)
        case _:
            return rng.lognormal(0, 2, shape).astype(dtype)


@st.composite
def cases(draw: st.DrawFn, backends: tuple[Backend, ...] = BACKENDS) -> Case:
    """Cases of which most are valid, as one option rules out another only now and then."""

    def rarely(value: Any, usual: Any, odds: int = 9) -> Any:
        return draw(st.sampled_from([usual] * odds + [value]))

    m, n = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    highest = draw(st.sampled_from([min(m, n), min(m, n), max(m, n), m + n]))
    backend = draw(st.sampled_from(backends))
    transform = draw(st.booleans())
    beta = draw(st.sampled_from(BETAS))
    fitting = [name for name in SOLVERS if beta in LOSSES.get(name, (beta,)) and not (transform and name == "online")]
    solver: Any = rarely(draw(st.sampled_from([*SOLVERS])), draw(st.sampled_from(["auto", *fitting])), 30)
    if solver == "online" and draw(st.booleans()):
        solver = (
            "online",
            {"batch_size": draw(st.integers(1, 20)), "forget_factor": draw(st.sampled_from([0, 0.5, 1]))},
        )
    numpy = backend in (Backend.NUMPY, Backend.NUMPY_READONLY)
    storage = draw(st.sampled_from(["dense"] * 4 + ["fortran", "strided", *SPARSE, "blocks"])) if numpy else "dense"
    dense = storage in ("dense", "fortran", "strided")
    # Neither the standard nor SciPy's sparse arrays have float16.
    rare = ["int64", "bool"] + ["float16"] * ("strict" not in backend.value and storage not in SPARSE)
    dtype = draw(st.sampled_from(["float64"] * 4 + ["float32"] * 4 + rare))
    far = {"float64": 240, "float32": 28}.get(dtype, 0)
    nans = dtype.startswith("float") and dense and rarely(True, False)
    fixed = rarely(draw(st.sampled_from(["w", "h", "wh"])), "", 5)
    start = draw(st.sampled_from(["random", "random", "nndsvd", "nndsvda", "nndsvdar", "given", "zeros"]))
    if start.startswith("nndsvd"):
        highest = min(highest, rarely(m + n, min(m, n), 20))
    penalised = draw(st.booleans())
    return Case(
        m=m,
        n=n,
        rank=draw(st.integers(1, highest)),
        stack=rarely(3, 0) if dense else 0,
        dtype=dtype,
        style=draw(st.sampled_from(STYLES if beta > 0 else POSITIVE)),
        decades=rarely(draw(st.integers(-far, far)), 0, 3),
        transform=transform,
        solver=solver,
        beta=beta,
        init="given" if fixed and start not in ("given", "zeros") else start,
        weights=rarely(
            draw(st.sampled_from(["mask", "rows", "columns", "heavy", "tiny", "empty", "nothing", "spread"])), None, 2
        ),
        nans=nans,
        missing=rarely("nan", "nan" if nans else None),
        absent=rarely("missing", "zero", 2) if storage in SPARSE else "zero",
        alpha_w=draw(st.sampled_from(PENALTIES)) if penalised else 0.0,
        alpha_h=draw(st.sampled_from(["same", *PENALTIES])) if penalised else "same",
        l1_ratio=draw(st.sampled_from([0.0, 0.5, 1.0])),
        fixed=fixed,
        upper=rarely(draw(st.sampled_from(["w", "h", "wh"])), "", 5),
        normalize=None if fixed else rarely(draw(st.sampled_from(["W", "H"])), None),
        n_restarts=rarely(draw(st.integers(2, 4)), 1) if start == "random" else 1,
        max_iter=draw(st.sampled_from([1, 2, 10, 50, 200, 400])),
        tol=draw(st.sampled_from([1e-4, 1e-4, 0.0, 1e-8, 1e-2])),
        check_every=draw(st.sampled_from([10, 10, 1, 3, 25])),
        backend=backend.value,
        storage=storage,
        compared=draw(st.integers(0, len(COMPARED) - 1)),
        seed=draw(st.integers(0, 2**16)),
    )


def examine(case: Case) -> str:
    """How a case came out, "refused" or "answered"; AssertionError where neither is right."""
    call = case.call()
    with only_documented_warnings():
        try:
            result = call.run()
        except (TypeError, ValueError) as error:
            named = set(re.findall(r"`(\w+)", str(error)))
            if not named & ARGUMENTS:
                msg = f"refused without naming an argument: {type(error).__name__}: {error}"
                raise AssertionError(msg) from error
            return "refused"
        except Exception as error:
            msg = f"raised: {type(error).__name__}: {error}"
            raise AssertionError(msg) from error
        answers = list(call.answers(result))
    for question, answer in answers:
        for check in ANSWERED:
            if check is not status_honest or case.seed % 4 == 0:  # it costs more than all others together
                _named(check, question, answer)
    if comparable(case, COMPARED[case.compared].__name__):
        with only_documented_warnings():
            short = call.changed(options={"max_iter": min(case.max_iter, 10), "tol": 0.0})
            _named(COMPARED[case.compared], short)
    return "answered"


def _named(check: Any, *args: Any) -> None:
    """Run a check; its name goes before its sentence."""
    try:
        check(*args)
    except AssertionError as error:
        msg = f"{check.__name__}: {error}"
        raise AssertionError(msg) from None
    except Exception as error:
        msg = f"{check.__name__}: raised {type(error).__name__}: {error}"
        raise AssertionError(msg) from error


def comparable(case: Case, what: str) -> bool:
    """Whether the other call of a comparison means the same as this one."""
    if case.stack or case.n_restarts > 1 or case.storage == "blocks" or case.style == "zeros":
        return False
    if case.dtype not in ("float32", "float64"):
        return False
    free = not (case.alpha_w or case.alpha_h not in ("same", 0.0) or case.upper or case.fixed)
    numpy = case.backend.startswith("numpy")
    match what:
        case "same_in_other_memory_order":
            return numpy and case.storage not in SPARSE
        case "same_when_sparse":
            return numpy and case.absent == "zero"
        case "same_with_weights_of_one":
            return case.weights is None and case.absent == "zero"
        case "same_with_rows_permuted":
            return case.weights in (None, "columns") and not case.fixed and not case.upper
        case "same_in_extreme_units" | "same_in_other_units" | "same_in_units_of_four":
            # What grows from a zero begins at the floor. For beta < 0 rounding decides the powers, for beta > 2
            # powers of the floor underflow.
            grown = case.init == "zeros" and not 0 <= case.beta <= 2
            return free and abs(case.decades) < 3 and not grown
    return False


def kind_of(sentence: str) -> str:
    """A failure without its numbers."""
    return re.sub(r"[-+]?\d[\d.e+-]*|nan|inf", "#", sentence)[:160]


def hunt(number: int, until: float, found: Any) -> None:
    """Examine cases until then, in batches of 50 that each begin another sequence."""
    _configure()
    counts: collections.Counter[str] = collections.Counter()
    smallest: dict[tuple[str, Any], tuple[int, Case, str]] = {}
    batch = number
    while time.time() < until:

        @seed(batch)
        @settings(
            max_examples=50,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(cases())
        def one(case: Case) -> None:
            if time.time() > until:
                return
            try:
                counts[examine(case)] += 1
            except AssertionError as error:
                counts["failed"] += 1
                size = case.m * case.n * case.rank + 1000 * sum(a != b for a, b in zip(case, Case(), strict=True))
                key = kind_of(str(error)), case.solver if isinstance(case.solver, str) else case.solver[0]
                if key not in smallest or size < smallest[key][0]:
                    smallest[key] = size, case, str(error)

        one()
        batch += 1000
    found.put((counts, smallest))


def _configure() -> None:
    try:
        import jax
    except ImportError:
        return
    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--seed", type=int, default=0, help="another one for other cases")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    found, until = context.Queue(), time.time() + 60 * options.minutes
    workers = [
        context.Process(target=hunt, args=(1000000 * options.seed + number, until, found))
        for number in range(options.processes)
    ]
    for worker in workers:
        worker.start()
    counts: collections.Counter[str] = collections.Counter()
    smallest: dict[Any, Any] = {}
    for _ in workers:
        part, failures = found.get()
        counts += part
        for key, failure in failures.items():
            smallest[key] = min(failure, smallest.get(key, failure), key=lambda x: x[0])
    for key, (_, case, sentence) in sorted(smallest.items(), key=lambda item: str(item[0])):
        usual = Case._field_defaults
        changed = ", ".join(f"{name}={value!r}" for name, value in case._asdict().items() if value != usual[name])
        print(f"{key[1]}: {sentence}\n    examine(Case({changed}))")
    parts = ", ".join(f"{counts[part]} {part}" for part in ("answered", "refused", "failed"))
    print(f"{sum(counts.values())} cases: {parts} in {len(smallest)} kinds")
    return 1 if smallest else 0


if __name__ == "__main__":
    sys.exit(main())
