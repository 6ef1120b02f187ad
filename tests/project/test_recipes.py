"""The recipes of examples/recipes on every backend, each against an oracle that NumPy computes in the plain way."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp.testing import Backend, check_gradient
from tests.scripts import ROOT, load

if TYPE_CHECKING:
    from nmf_xp.testing import Target

HostArray = np.ndarray[Any, Any]

RECIPES = ["least_squares", "inverse_dft", "separable_sum", "block_matrix"]
least_squares, inverse_dft, separable_sum, block_matrix = (load(f"examples/recipes/{name}.py") for name in RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_shows_what_the_script_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    load(f"examples/recipes/{name}.py").main()
    page = (ROOT / "docs" / "recipes" / f"{name}.md").read_text(encoding="utf-8")
    assert re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL) == [capsys.readouterr().out]


def same(target: Target, found: Any, expected: HostArray, rtol: float) -> None:
    """Equal relative to the largest entry, on the target's own array type."""
    assert type(found) is type(target.asarray(expected))
    host = target.to_numpy(found)
    assert host.dtype == expected.dtype
    assert host.shape == expected.shape
    assert np.max(np.abs(host - expected)) <= rtol * np.max(np.abs(expected))


# Least squares


def plane() -> tuple[HostArray, HostArray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, 2)), rng.normal(size=200)


def test_gradient_descent_finds_the_least_squares(target: Target) -> None:
    A, y = plane()
    fit = target.compile(lambda A, y: least_squares.fit(A, y, 60))
    # 60 steps shrink the error by (1 - smallest / sum of the eigenvalues of A^T A)^60, 2e-17 here.
    same(target, fit(target.asarray(A), target.asarray(y)), np.linalg.lstsq(A, y, rcond=None)[0], 1e-12)


def test_its_cost_never_rises() -> None:
    A, y = plane()
    costs = [float(least_squares.cost(least_squares.fit(A, y, steps), A, y)) for steps in range(20)]
    assert np.all(np.diff(costs) < 0)


def test_its_derivatives_are_proved_and_the_wrong_signs_caught(target: Target) -> None:
    A, y = (target.asarray(x) for x in least_squares.line())
    p = target.asarray(np.asarray([0.3, -0.7]))
    cost = target.compile(lambda p: least_squares.cost(p, A, y))

    def report(derivative: Any) -> Any:
        return check_gradient(cost, target.compile(lambda p: derivative(p, A, y)), p)

    assert report(least_squares.gradient).ok
    for wrong in (least_squares.without_minus, least_squares.without_parentheses):
        failures = report(wrong).failures
        assert len(failures) == (2 if target.is_jax or target.name.startswith("torch") else 1)
        assert all(entry.detail.endswith("the sign is wrong") for entry in failures)


# The inverse Fourier transform


def spectrum(M: int, N: int, dtype: str = "complex128") -> HostArray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(M, N)) + 1j * rng.normal(size=(M, N))).astype(dtype)


@pytest.mark.parametrize(("dtype", "rtol"), [("complex128", 1e-13), ("complex64", 1e-5)])
@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (8, 5), (64, 1)])
def test_inverse_dft_is_that_of_numpy(target: Target, shape: tuple[int, int], dtype: str, rtol: float) -> None:
    F = spectrum(*shape, dtype)
    found = target.compile(inverse_dft.inverse_dft)(target.asarray(F))
    same(target, found, np.fft.ifft2(F.astype("complex128")).astype(dtype), rtol)


def test_inverse_dft_is_that_of_the_namespace(target: Target) -> None:
    """The standard has no ifft2: it is `ifftn` over the last two axes."""
    if target.strictest:
        pytest.skip("this backend has no extensions, and fft is one")
    F = target.asarray(spectrum(5, 8))
    expected = target.to_numpy(target.xp.fft.ifftn(F, axes=(-2, -1)))
    same(target, target.compile(inverse_dft.inverse_dft)(F), expected, 1e-13)


def test_inverse_dft_keeps_its_digits_on_a_long_axis() -> None:
    F = spectrum(2000, 1)
    # Without the reduction of a k modulo n the error is about n eps, 4e-13; with it, 1e-15.
    same(Backend.NUMPY.target(), inverse_dft.inverse_dft(F), np.fft.ifft2(F), 1e-14)


def test_the_looped_picture_is_flipped_and_too_large(target: Target) -> None:
    f = spectrum(4, 6)
    F = target.asarray(np.fft.fft2(f))
    looped = target.compile(inverse_dft.looped)(F)
    flipped = np.asarray([[f[-a % 4, -b % 6] for b in range(6)] for a in range(4)])
    same(target, looped, 24 * flipped, 1e-13)
    same(target, inverse_dft.backwards(looped) / 24, f, 1e-13)
    same(target, target.compile(lambda F: inverse_dft.looped(F, +1) / 24)(F), f, 1e-13)


# The separable sum


def sum_problem(points: tuple[int, int, int]) -> tuple[HostArray, ...]:
    rng = np.random.default_rng(0)
    shapes = [(3, 4, 5), (3, 4, 5), *zip((3, 4, 5), points, strict=True)]
    return tuple(rng.normal(size=shape) for shape in shapes)


def test_separable_sum_at_points(target: Target) -> None:
    p, c, f, g, h = sum_problem((7, 7, 7))
    expected = np.zeros(7)
    for q, i, j, k in np.ndindex(7, *p.shape):
        expected[q] += p[i, j, k] * c[i, j, k] * f[i, q] * g[j, q] * h[k, q]
    found = target.compile(separable_sum.at_points)(*(target.asarray(x) for x in (p, c, f, g, h)))
    same(target, found, expected, 1e-13)


def test_separable_sum_on_a_grid(target: Target) -> None:
    p, c, f, g, h = sum_problem((6, 2, 3))
    expected = np.zeros((6, 2, 3))
    for x, y, z, i, j, k in np.ndindex(*expected.shape, *p.shape):
        expected[x, y, z] += p[i, j, k] * c[i, j, k] * f[i, x] * g[j, y] * h[k, z]
    found = target.compile(separable_sum.on_grid)(*(target.asarray(x) for x in (p, c, f, g, h)))
    same(target, found, expected, 1e-13)


def test_separable_sum_holds_no_grid_of_points_and_coefficients() -> None:
    """What NumPy allocates, against the largest array that the page counts."""
    rng = np.random.default_rng(0)
    p, c = rng.normal(size=(2, 10, 10, 10))
    f, g, h = rng.normal(size=(3, 10, 5000))
    for function, n, largest in (
        (separable_sum.at_points, 5000, 5000 * 10 * 10),
        (separable_sum.on_grid, 40, 40 * 40 * 40),
    ):
        tracemalloc.start()
        function(p, c, f[:, :n], g[:, :n], h[:, :n])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # Two steps of the contraction are held at once, the second at most as large as the first.
        assert peak < 2.2 * 8 * largest


# The block matrix


def dipoles(n: int) -> tuple[HostArray, HostArray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 3)), rng.normal(size=(n, 3, 3))


def by_loops(x: HostArray, alpha: HostArray) -> HostArray:
    n = len(x)
    A = np.zeros((3 * n, 3 * n))
    for i, j in itertools.permutations(range(n), 2):
        r = x[i] - x[j]
        distance = np.linalg.norm(r)
        G = (3 * np.outer(r, r) / distance**2 - np.eye(3)) / distance**3
        A[3 * i : 3 * i + 3, 3 * j : 3 * j + 3] = alpha[i] @ G @ alpha[j]
    return A


@pytest.mark.parametrize("n", [2, 7])
def test_block_matrix_is_that_of_the_loops(target: Target, n: int) -> None:
    x, alpha = dipoles(n)
    found = target.compile(block_matrix.block_matrix)(target.asarray(x), target.asarray(alpha))
    same(target, found, by_loops(x, alpha), 1e-12)
    for i in range(n):
        assert not np.any(target.to_numpy(found)[3 * i : 3 * i + 3, 3 * i : 3 * i + 3])


def test_block_matrix_of_one_dipole_is_zero(target: Target) -> None:
    x, alpha = dipoles(1)
    found = target.compile(block_matrix.block_matrix)(target.asarray(x), target.asarray(alpha))
    assert np.array_equal(target.to_numpy(found), np.zeros((3, 3)))


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_block_matrix_has_a_finite_derivative(library: str) -> None:
    """The diagonal is masked before the division, so that no NaN comes back through `where` either."""
    x, alpha = dipoles(4)
    if library == "jax":
        jax = pytest.importorskip("jax", reason="jax is not installed")
        alpha = jax.numpy.asarray(alpha)
        slope = np.asarray(jax.grad(lambda x: block_matrix.block_matrix(x, alpha).sum())(jax.numpy.asarray(x)))
    else:
        torch = pytest.importorskip("torch", reason="torch is not installed")
        leaf = torch.asarray(x).requires_grad_(True)
        block_matrix.block_matrix(leaf, torch.asarray(alpha)).sum().backward()
        slope = leaf.grad.numpy()
    assert np.all(np.isfinite(slope))
    assert np.any(slope != 0)
