"""Prove an update rule of one's own, or a gradient."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.arrays import libraries, transfer
from nmf_xp.testing.conformance import make_target
from nmf_xp.testing.host_reads import run_without_host_reads
from nmf_xp.testing.report import Report, Skip, run_check

if TYPE_CHECKING:
    from collections.abc import Callable

    from nmf_xp.testing.backends import Target

    Update = Callable[[Any, Any, Any], tuple[Any, Any]]
    Divergence = Callable[[Any, Any, Any], Any]
    HostArray = np.ndarray[Any, Any]

STEPS = 30


def check_update(
    update: Update,
    divergence: Divergence,
    /,
    *,
    xp: Any = np,
    device: Any = None,
    dtype: str = "float64",
    zeros: bool = True,
    n_problems: int = 1000,
) -> Report:
    """Prove an update rule of one's own: ``W, H = update(V, W, H)`` never raises ``divergence(V, W, H)``.

    Parameters
    ----------
    update : callable
        From arrays V (m, n), W (m, r), H (r, n) to the new W and H.
    divergence : callable
        From the same arrays to a scalar that the update must not raise, and that is least where V = WH.
    xp : module, default numpy
        The array library on whose arrays the rule works.
    device : optional
        The device to prove it on.
    dtype : {"float32", "float64"}, default "float64"
        In which precision to prove it.
    zeros : bool, default True
        Whether V may have zeros; say False for divergences that are infinite on them.
    n_problems : int, default 1000
        Random problems of one step each, with entries over several orders of magnitude.

    Returns
    -------
    Report
        One line a property: shapes and dtype, device, non-negative, monotone, exact factorizations stay, where it
        comes to rest the divergence is stationary, scale equivariance, inputs unchanged, and, where it can be seen, no
        value read back and compilable by JAX.

    Examples
    --------
    >>> import nmf_xp
    >>> from nmf_xp.testing import check_update
    >>> def update(V, W, H):
    ...     W = nmf_xp.update_w(V, W, H, beta_loss=1)
    ...     return W, nmf_xp.update_h(V, W, H, beta_loss=1)
    >>> def divergence(V, W, H):
    ...     return nmf_xp.beta_divergence(V, W, H, beta_loss=1)
    >>> check_update(update, divergence, n_problems=50).ok
    True
    """
    target = make_target(xp, device)
    prover = _Prover(update, divergence, target, dtype, zeros, n_problems)
    properties = (
        prover.keeps_shape_and_dtype,
        prover.stays_on_the_device,
        prover.stays_non_negative_and_finite,
        prover.never_raises_the_divergence,
        prover.never_raises_it_in_one_step,
        prover.keeps_an_exact_factorization,
        prover.rests_only_where_the_divergence_is_stationary,
        prover.scales_with_the_data,
        prover.leaves_its_inputs_alone,
        prover.reads_nothing_back,
        prover.compiles,
    )
    return Report(tuple(run_check(p, p.__name__, target.name, dtype, {}) for p in properties))


class _Prover:
    """The properties of an update rule."""

    def __init__(
        self, update: Update, divergence: Divergence, target: Target, dtype: str, zeros: bool, n_problems: int
    ) -> None:
        self.update, self.target, self.dtype = update, target, dtype
        self.divergence = divergence
        self.zeros, self.n_problems = zeros, n_problems
        self.eps = float(np.finfo(dtype).eps)

    def value(self, *arrays: Any) -> float:
        return float(transfer.to_host(self.divergence(*arrays)))

    def problem(self, seed: int = 0, shape: tuple[int, int, int] = (6, 5, 3)) -> tuple[HostArray, ...]:
        m, n, r = shape
        rng = np.random.default_rng(seed)
        V = rng.poisson(2.0, (m, n)) + (0.0 if self.zeros else 0.5)
        return tuple(x.astype(self.dtype) for x in (V, rng.uniform(0.5, 1.5, (m, r)), rng.uniform(0.5, 1.5, (r, n))))

    def given(self, arrays: tuple[HostArray, ...]) -> list[Any]:
        return [self.target.asarray(x) for x in arrays]

    def host(self, x: Any) -> HostArray:
        return self.target.to_numpy(x)

    def keeps_shape_and_dtype(self) -> str:
        V, W, H = self.given(self.problem())
        for name, before, after in zip("WH", (W, H), self.update(V, W, H), strict=True):
            assert tuple(after.shape) == tuple(before.shape), f"{name} has shape {tuple(after.shape)}"
            assert after.dtype == before.dtype, f"{name} has dtype {after.dtype}, not {before.dtype}"
        return ""

    def stays_on_the_device(self) -> str:
        V, W, H = self.given(self.problem())
        for name, after in zip("WH", self.update(V, W, H), strict=True):
            there, here = libraries.device(after), libraries.device(V)
            assert there == here, f"{name} is on {there}, V on {here}"
        return str(libraries.device(V))

    def stays_non_negative_and_finite(self) -> str:
        V, W, H = self.given(self.problem())
        for _ in range(STEPS):
            W, H = self.update(V, W, H)
            for name, x in (("W", self.host(W)), ("H", self.host(H))):
                assert np.isfinite(x).all(), f"{name} is not finite"
                assert x.min() >= 0, f"{name} has the negative entry {x.min():.1e}"
        return ""

    def never_raises_the_divergence(self) -> str:
        worst = 0.0
        for seed in range(5):
            V, W, H = self.given(self.problem(seed))
            values = [self.value(V, W, H)]
            for _ in range(STEPS):
                W, H = self.update(V, W, H)
                values.append(self.value(V, W, H))
            rise = float(np.max(np.diff(values))) / values[0]
            bound = 50 * self.eps
            assert rise <= bound, f"the divergence rose by {rise:.1e} of its first value; rounding explains {bound:.0e}"
            worst = max(worst, rise)
        return f"largest rise {max(worst, 0) / self.eps:.1f} eps"

    def never_raises_it_in_one_step(self) -> str:
        rng = np.random.default_rng(0)
        for _ in range(self.n_problems):
            m, n, r = rng.integers(1, 6), rng.integers(2, 6), rng.integers(1, 4)
            arrays = tuple(np.exp(2 * rng.normal(size=shape)).astype(self.dtype) for shape in ((m, n), (m, r), (r, n)))
            V, W, H = self.given(arrays)
            before, after = self.value(V, W, H), self.value(V, *self.update(V, W, H))
            assert after <= before * (1 + 1000 * self.eps), f"one step raised it from {before:.6g} to {after:.6g}"
        return f"{self.n_problems} problems"

    def keeps_an_exact_factorization(self) -> str:
        _, W, H = self.problem()
        for name, before, after in zip("WH", (W, H), self.update(*self.given((W @ H, W, H))), strict=True):
            moved = float(np.max(np.abs(self.host(after) - before)))
            assert moved <= 1000 * self.eps, f"{name} moves by {moved:.1e} although V = WH"
        return ""

    def rests_only_where_the_divergence_is_stationary(self) -> str:
        arrays = self.problem(1, (4, 3, 2))
        V, W, H = self.given(arrays)
        start = self.value(V, W, H)
        for _ in range(3000):
            W, H = self.update(V, W, H)
        step = self.eps ** (1 / 3)
        factors: dict[str, HostArray] = {"W": self.host(W), "H": self.host(H)}
        worst, where = 0.0, ""
        for name, factor in factors.items():
            for index in np.ndindex(factor.shape):
                values = []
                for sign in (1, -1):
                    moved = {k: x.copy() for k, x in factors.items()}
                    moved[name][index] *= 1 + sign * step
                    values.append(self.value(V, *self.given((moved["W"], moved["H"]))))
                slope = abs(values[0] - values[1]) / (2 * step * start)
                if not slope <= worst:
                    worst, where = slope, f"{name}{list(index)}"
        assert worst <= 1e-3, f"after 3000 steps the slope at {where} is still {worst:.1e} of the first divergence"
        return f"slope {worst:.0e}"

    def scales_with_the_data(self) -> str:
        V, W, H = self.problem()
        plain = self.host(self.update(*self.given((V, W, H)))[0]) * 3
        scaled = self.host(self.update(*self.given((3 * V, 3 * W, H)))[0])
        found = float(np.max(np.abs(scaled - plain)) / np.max(plain))
        assert found <= 100 * self.eps, f"W of 3 V differs from 3 W of V by {found:.1e}"
        return f"{found / self.eps:.1f} eps"

    def leaves_its_inputs_alone(self) -> str:
        arrays = self.problem()
        given = self.given(arrays)
        self.update(*given)
        for name, before, after in zip("VWH", arrays, given, strict=True):
            assert np.array_equal(before, self.host(after)), f"{name} was changed"
        return ""

    def reads_nothing_back(self) -> str:
        return run_without_host_reads(self.update, self.target, *self.given(self.problem()))

    def compiles(self) -> str:
        if not self.target.is_jax:
            msg = "nothing compiles these arrays"
            raise Skip(msg)
        compiled = importlib.import_module("jax").jit(self.update)
        given = self.given(self.problem())
        for name, x, y in zip("WH", self.update(*given), compiled(*given), strict=True):
            found = float(np.max(np.abs(self.host(x) - self.host(y))))
            assert found <= 1000 * self.eps, f"compiled, {name} differs by {found:.1e}"
        return "jax.jit"


def check_gradient(f: Callable[[Any], Any], grad: Callable[[Any], Any], x: Any, /, *, rtol: float = 1e-5) -> Report:
    """Prove a gradient: ``grad(x)`` against central differences of ``f``, and the library's automatic differentiation.

    Parameters
    ----------
    f : callable
        From an array to a scalar.
    grad : callable
        From an array to its gradient, an array of the same shape.
    x : array
        Where to compare, of float64, away from kinks.
    rtol : float, default 1e-5
        What an entry may differ by, relative to the largest entry of the gradient.

    Returns
    -------
    Report
        What fails names the first wrong entry, what it is and what it should be, and whether its sign is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from nmf_xp.testing import check_gradient
    >>> x = np.asarray([1.0, -2.0, 3.0])
    >>> check_gradient(lambda x: (x**2).sum(), lambda x: 2 * x, x).ok
    True
    >>> print(check_gradient(lambda x: (x**2).sum(), lambda x: -2 * x, x).failures[0].detail)
    entry (0,) is -2, should be 2: the sign is wrong
    """
    xp = libraries.array_namespace(x)
    point = transfer.to_host(x).astype(np.float64)

    def value(p: HostArray) -> float:
        array = transfer.from_host(p, xp=xp, dtype=x.dtype, device=libraries.device(x))
        return float(transfer.to_host(f(array)))

    def against_differences() -> str:
        expected = np.empty_like(point)
        for index in np.ndindex(point.shape):
            step = float(np.finfo(np.float64).eps) ** (1 / 3) * max(1.0, abs(float(point[index])))
            ahead, behind = point.copy(), point.copy()
            ahead[index] += step
            behind[index] -= step
            expected[index] = (value(ahead) - value(behind)) / (ahead[index] - behind[index])
        return _compare(transfer.to_host(grad(x)), expected, rtol)

    def against_automatic_differentiation() -> str:
        return _compare(transfer.to_host(grad(x)), _automatic(f, x), rtol)

    name = str(xp.__name__).removeprefix("array_api_compat.")
    dtype = libraries.dtype_name(x.dtype)
    tests = (against_differences, against_automatic_differentiation)
    return Report(tuple(run_check(test, test.__name__, name, dtype, {}) for test in tests))


def _automatic(f: Callable[[Any], Any], x: Any) -> HostArray:
    """The library's own derivative."""
    if libraries.is_jax(x):
        return transfer.to_host(importlib.import_module("jax").grad(f)(x))
    if libraries.is_torch(x):
        x = x.detach().clone().requires_grad_(True)
        f(x).backward()
        return transfer.to_host(x.grad)
    msg = "the library has no automatic differentiation"
    raise Skip(msg)


def _compare(found: HostArray, expected: HostArray, rtol: float) -> str:
    assert found.shape == expected.shape, f"the gradient has shape {found.shape}, x has {expected.shape}"
    scale = max(float(np.max(np.abs(expected))), 1e-300)
    error = np.abs(found - expected) / scale
    if not np.max(error) <= rtol:
        index = tuple(int(i) for i in np.unravel_index(np.argmax(~(error <= rtol)), error.shape))
        here, there = float(found[index]), float(expected[index])
        verdict = "the sign is wrong" if here * there < 0 else f"the ratio is {here / there:.4g}" if there else "not 0"
        msg = f"entry {index} is {here:.6g}, should be {there:.6g}: {verdict}"
        raise AssertionError(msg)
    return f"largest error {np.max(error):.0e}"
