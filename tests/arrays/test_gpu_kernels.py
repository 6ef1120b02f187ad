"""The Pallas kernels without a GPU: interpreted against their twins, chosen where they should be, lowered for CUDA."""

from __future__ import annotations

import functools
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from array_api_compat import numpy as xp

from nmf_xp import nmf, update_h, update_w
from nmf_xp.arrays import kernels
from nmf_xp.data import Dense, as_data
from nmf_xp.data.constraints import FREE
from nmf_xp.data.quotient import unfused
from nmf_xp.data.sparse_products import sampled_product_jax
from nmf_xp.run.hosted import natively
from nmf_xp.testing import kernels as twins
from nmf_xp.updates import factor_floor, multiplicative_h, multiplicative_w
from tests import scripts
from tests.problems import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nmf_xp.data import Data

jax = pytest.importorskip("jax", reason="the kernels are for JAX: https://docs.jax.dev")
pytest.importorskip("jax.experimental.pallas.triton", reason="this JAX has no Pallas for GPUs")
from nmf_xp.arrays.kernels import fused_dense, fused_sparse, gpu  # noqa: E402 - they import JAX

jnp = jax.numpy
compile_for_gpu = scripts.load("ci/compile_for_gpu.py")
BCOO = pytest.importorskip("jax.experimental.sparse").BCOO


@pytest.fixture(autouse=True)
def on_the_cpu() -> Iterator[None]:
    """Wherever a GPU is, these tests do without."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


SIZES = [(1, 1, 1), (1, 40, 2), (67, 1, 15), (64, 32, 16), (70, 53, 17), (5, 1100, 64), (130, 77, 100)]


def numbers(m: int, n: int, r: int, dtype: str, *, share: float = 0.5) -> tuple[np.ndarray[Any, Any], ...]:
    """Data with zeros, also in whole rows and columns, tiny and huge values; factors half of which are at the floor."""
    rng = np.random.default_rng(m + n + r)
    V = rng.gamma(0.5, 1.0, (m, n)) * 10.0 ** rng.uniform(-20, 4, (m, n)) * (rng.random((m, n)) < share)
    V[m // 2], V[:, n // 2] = 0, 0
    V[0, 0] = 1
    floor = factor_floor(np.dtype(dtype), beta=1.0, xp=xp)
    W, H = (np.where(rng.random(shape) < 0.5, floor, rng.random(shape)) for shape in ((m, r), (r, n)))
    return tuple(x.astype(dtype) for x in (V, W, H))


def assert_close(found: Any, expected: Any, terms: int) -> None:
    """All terms are positive, so that in any order each sum has at most `terms` roundings, and typically their root."""
    info = np.finfo(found.dtype)
    rtol, atol = 4 * (4 + terms**0.5) * float(info.eps), terms * float(info.smallest_normal)  # XLA flushes to zero
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=atol)


def sparse(V: Any) -> Any:
    """The entries of a dense array, as the library holds them."""
    return as_data(BCOO.fromdense(jnp.asarray(V)))


def wide(*arrays: Any) -> list[Any]:
    return [np.asarray(x, dtype=np.float64) for x in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "r"), SIZES)
def test_dense(m: int, n: int, r: int, dtype: str) -> None:
    V, W, H = numbers(m, n, r, dtype)
    expected = unfused(Dense(wide(V)[0]), *wide(W, H))
    assert_close(fused_dense.quotient(V, W, H, interpret=True), expected, n + r)
    transposed = fused_dense.quotient(np.ascontiguousarray(V.T), W, H, transposed=True, interpret=True)
    assert_close(transposed, expected, n + r)


def test_dense_with_rows_and_columns_shared_by_several_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last share may be shorter, and is here; without shares a program walks along the whole row."""
    V, W, H = numbers(70, 200, 3, "float64")
    expected = unfused(Dense(V), W, H)
    for programs, shares in ((1, 1), (6, 4), (1024, 7)):
        monkeypatch.setattr(fused_dense, "PROGRAMS", programs)
        call = functools.partial(fused_dense.quotient, interpret=True)
        assert f"float64[{shares},70,3]" in str(jax.make_jaxpr(call)(V, W, H)).replace("f64", "float64")
        assert_close(call(V, W, H), expected, 203)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "r"), SIZES[::2])
def test_sparse(m: int, n: int, r: int, dtype: str) -> None:
    V, W, H = numbers(m, n, r, dtype)
    data = sparse(V)
    V, W64, H64 = wide(V, W, H)
    found = fused_sparse.quotient(data.values, data.along, W, H.T, interpret=True)
    assert_close(found, unfused(Dense(V), W64, H64), n + r)
    found = fused_sparse.quotient(data.values, data.across, H.T, W, interpret=True)
    assert_close(found, unfused(Dense(V.T), H64.T, W64.T), m + r)
    found = fused_sparse.product(data.i, data.j, W, H.T, interpret=True)
    assert_close(found, (W64 @ H64)[np.asarray(data.i), np.asarray(data.j)], r)


def test_an_index_beyond_an_axis_is_read_at_its_end() -> None:
    """As JAX does; Triton would read what is not the array's."""
    jnp = pytest.importorskip("jax.numpy")
    index = jnp.asarray([-(2**31), -1, 0, 4, 5, 2**31 - 1], dtype=jnp.int32)
    np.testing.assert_array_equal(fused_sparse.inside_of(5, index), [0, 0, 0, 4, 4, 4])
    left, right = jnp.arange(10.0).reshape(5, 2), jnp.arange(6.0).reshape(3, 2)
    i, j = jnp.asarray([0, 10**8, -7]), jnp.asarray([10**8, 1, -1])
    found = fused_sparse.product(i, j, left, right, interpret=True)
    np.testing.assert_allclose(found, [(left[a] * right[b]).sum() for a, b in ((0, 2), (4, 1), (0, 0))])


def test_every_kernel_is_compared_with_its_twin_by_the_kit() -> None:
    assert set(twins.FOR_NUMPY) | set(twins.FOR_JAX) == set(kernels.KERNELS)
    for name, module in kernels.KERNELS.items():
        assert (name in twins.FOR_JAX) == (module in kernels.FOR_JAX)


class Gpu:
    """What a kernel is chosen for."""

    def __init__(self, capability: str) -> None:
        self.compute_capability = capability


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one GPU, for which every kernel compiles."""
    monkeypatch.setattr(gpu, "device", lambda: Gpu("8.0"))
    monkeypatch.setattr(gpu, "compiles", lambda *_: True)


@pytest.mark.parametrize(
    ("backend", "capabilities", "chosen"),
    [
        ("gpu", ["8.0"], True),
        ("gpu", ["12.0"], True),
        ("gpu", ["7.5"], False),
        ("gpu", ["gfx942"], False),
        ("gpu", ["9.0", "9.0"], False),
        ("cpu", ["9.0"], False),
    ],
)
def test_the_gpu_that_kernels_are_for(
    backend: str, capabilities: list[str], chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(jax, "devices", lambda: [Gpu(capability) for capability in capabilities])
    with jax.default_device(None):
        assert (gpu.device() is not None) == chosen


def test_no_kernel_is_for_a_gpu_that_is_not_the_default_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX 0.11 compiles a kernel for the chip of the default device, and a CPU is none."""
    cpu, one = jax.devices("cpu")[0], Gpu("8.0")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax, "devices", lambda: [one])
    for default, chosen in ((None, True), ("gpu", True), ("cpu", False), (cpu, False)):
        with jax.default_device(default):
            assert (gpu.device() is not None) == chosen, default


@pytest.mark.usefixtures("ampere")
def test_what_a_kernel_is_chosen_for(monkeypatch: pytest.MonkeyPatch) -> None:
    V, W, H = (jnp.asarray(x) for x in numbers(6, 5, 2, "float32"))

    def found(*arrays: Any) -> bool:
        return kernels.find("dense_quotient", *arrays) is not None

    assert found(V, W, H)
    assert not found(V, W[None], H)
    assert not found(*(x.astype(jnp.float16) for x in (V, W, H)))
    assert not found(*(np.asarray(x) for x in (V, W, H)))
    monkeypatch.setenv("NMF_XP_KERNELS", "0")
    assert not found(V, W, H)


def test_the_environment_leaves_out_the_kernels_of_numba_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    V, W, H = numbers(90, 60, 2, "float64")
    assert kernels.find("kl_iterations", V, W, H) is not None
    monkeypatch.setenv("NMF_XP_KERNELS", "0")
    assert all(kernels.find(name, V, W, H) is None for name in kernels.KERNELS)


def given(kind: str) -> tuple[Any, ...]:
    """Data of shape (300, 200), dense or sparse, and factors of rank 5."""
    V, W, H = (jnp.asarray(x) for x in numbers(300, 200, 5, "float32", share=0.1))
    return V if kind == "dense" else BCOO.fromdense(V), W, H


def half_steps(V: Any, W: Any, H: Any) -> tuple[Any, Any]:
    """Both halves of an iteration for the Kullback-Leibler divergence."""
    return iteration(as_data(V), W, H)


def iteration(data: Data, W: Any, H: Any) -> tuple[Any, Any]:
    settings: dict[str, Any] = {"beta": 1.0, "floor": 1e-13, "xp": jnp}
    W = multiplicative_w(data, W, H, FREE, **settings)
    return W, multiplicative_h(data, W, H, FREE, **settings)


def lowered(function: Callable[..., Any], platform: str, *args: Any) -> str:
    """The program for a platform that need not be here."""
    fresh = jax.jit(lambda *args: function(*args))  # JAX keeps traces, and the choice is made in them
    try:
        with compile_for_gpu.pretended(compile_for_gpu.CHIPS[0]):
            text: str = fresh.trace(*args).lower(lowering_platforms=(platform,)).as_text()
    except RuntimeError as error:
        if "Triton compilation handler" not in str(error):
            raise
        pytest.skip("this JAX compiles kernels when it lowers them, which takes its CUDA plugin")
    return text


def kernel_calls(text: str) -> int:
    return len(re.findall(r"custom_call @\S*triton", text))


AT_THE_EDGES = ("func.func", "call @", "custom_call", "return")


@pytest.mark.usefixtures("ampere")
def test_a_dense_iteration_for_cuda_holds_two_kernels_and_no_temporary_of_the_size_of_v() -> None:
    def computed(text: str) -> list[str]:
        """The lines that compute an array of V's size; kernels and functions only take one."""
        lines = [line for line in text.splitlines() if "300x200xf32" in line or "200x300xf32" in line]
        return [line for line in lines if not any(word in line for word in AT_THE_EDGES)]

    text = lowered(half_steps, "cuda", *given("dense"))
    assert kernel_calls(text) == 2
    assert computed(text) == []
    assert not any("-> tensor<300x200xf32>" in line for line in text.splitlines())
    plain = lowered(half_steps, "cpu", *given("dense"))
    assert kernel_calls(plain) == 0
    assert len(computed(plain)) >= 4  # a product and a division for each half: the count does count


@pytest.mark.usefixtures("ampere")
def test_a_sparse_iteration_for_cuda_computes_nothing_of_the_size_of_the_entries() -> None:
    V, W, H = given("sparse")
    data, nnz = as_data(V), V.nse
    text = lowered(iteration, "cuda", data, W, H)
    assert kernel_calls(text) == 2
    made = [line for line in text.splitlines() if f"tensor<{nnz}x" in line and "constant" not in line]
    assert all(any(word in line for word in AT_THE_EDGES) for line in made)
    assert kernel_calls(lowered(iteration, "cpu", data, W, H)) == 0


@pytest.mark.usefixtures("ampere")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("r", [1, 16, 17, 100])
def test_the_kernels_lower_for_every_rank(r: int, dtype: str) -> None:
    V, W, H = (jnp.asarray(x) for x in numbers(70, 53, r, dtype))
    assert kernel_calls(lowered(fused_dense.quotient, "cuda", V, W, H)) == 1
    assert kernel_calls(lowered(functools.partial(fused_dense.quotient, transposed=True), "cuda", V.T, W, H)) == 1
    data = sparse(V)
    for view, left, right in ((data.along, W, H.T), (data.across, H.T, W)):
        assert kernel_calls(lowered(fused_sparse.quotient, "cuda", data.values, view, left, right)) == 1
    assert kernel_calls(lowered(fused_sparse.product, "cuda", data.i, data.j, W, H.T)) == 1


@pytest.mark.usefixtures("ampere")
def test_a_program_for_another_device_is_the_twins() -> None:
    for kind in ("dense", "sparse"):
        V, W, H = given(kind)
        for fused, plain in zip(half_steps(V, W, H), _plain_half_steps(V, W, H), strict=True):
            np.testing.assert_allclose(np.asarray(fused), np.asarray(plain), rtol=1e-5)  # compiled and not
    data: Any = as_data(given("sparse")[0])
    chosen = kernels.find("gathered_product", data.i, data.j, W, H)
    assert chosen is not None
    arrays = data.i, data.j, W, H.T
    expected = np.asarray(sampled_product_jax(*arrays))
    np.testing.assert_allclose(np.asarray(chosen(sampled_product_jax, *arrays)), expected, rtol=1e-5)


def _plain_half_steps(V: Any, W: Any, H: Any) -> tuple[Any, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NMF_XP_KERNELS", "0")
        return half_steps(V, W, H)


@pytest.mark.usefixtures("ampere")
def test_stacks_under_vmap_and_derivatives_are_the_twins() -> None:
    V, W, H = (jnp.asarray(x) for x in numbers(7, 5, 3, "float64"))
    W, H = jnp.maximum(W, 0.1), jnp.maximum(H, 0.1)
    stack = jnp.stack([W, 2 * W])

    def update(W: Any) -> Any:
        return update_h(V, update_w(V, W, H, beta_loss=1), H, beta_loss=1)

    mapped = jax.vmap(update)(stack)
    assert kernel_calls(lowered(jax.vmap(update), "cuda", stack)) == 0
    for i in range(2):
        np.testing.assert_allclose(mapped[i], update(stack[i]), rtol=1e-12)
    both = jax.grad(lambda W: jnp.sum(update(W) ** 2)), jax.jacfwd(update)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NMF_XP_KERNELS", "0")
        expected = [derivative(W) for derivative in (jax.grad(lambda W: jnp.sum(update(W) ** 2)), jax.jacfwd(update))]
    for derivative, plain in zip(both, expected, strict=True):
        np.testing.assert_allclose(derivative(W), plain, rtol=1e-12)


def test_a_kernel_that_does_not_compile_is_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands for the GPU here, and no kernel compiles for it."""
    monkeypatch.setattr(gpu, "device", lambda: jax.devices("cpu")[0])
    gpu.compiles.cache_clear()
    V, W, H = (jnp.asarray(x) for x in numbers(9, 4, 2, "float64"))
    left_out = pytest.warns(RuntimeWarning, match=r"the kernel _\w+ does not compile here and is left out")
    with left_out, natively():
        found = nmf(V, 2, solver="mu", init=(W, H), beta_loss=1, max_iter=3, tol=0)
    monkeypatch.setenv("NMF_XP_KERNELS", "0")  # which leaves JAX to itself
    expected = nmf(V, 2, solver="mu", init=(W, H), beta_loss=1, max_iter=3, tol=0)
    np.testing.assert_allclose(found.W, expected.W, rtol=1e-12)


def test_a_kernel_whose_language_is_deprecated_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """With JAX 0.11 the trial warns, which the tests, and whoever runs with warnings as errors, turn into an error."""
    monkeypatch.setattr(gpu, "device", lambda: jax.devices("cpu")[0])

    def deprecated(x: Any) -> Any:
        warnings.warn("The Pallas Triton backend is on its way out", DeprecationWarning, stacklevel=1)
        return 2 * x

    assert gpu.compiles(deprecated, jax.tree.structure((0,)), ((3,), jnp.ones(3).dtype))


@pytest.mark.parametrize("version", [12, 13])
def test_programs_are_compiled_with_the_plugin_of_either_cuda(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a chip there is nothing to compile; without a plugin the script says so and ends with 2."""
    monkeypatch.setenv("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "0")
    monkeypatch.setattr(compile_for_gpu, "CHIPS", ())
    monkeypatch.setattr(compile_for_gpu.importlib.util, "find_spec", lambda name: f"cuda{version}_" in name or None)
    assert compile_for_gpu.main() == 0
    monkeypatch.setattr(compile_for_gpu.importlib.util, "find_spec", lambda _: None)
    assert compile_for_gpu.main() == 2


@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="this JAX asks no device for its chip")
def test_every_chip_is_pretended_while_its_programs_are_lowered() -> None:
    for chip in compile_for_gpu.CHIPS:
        with compile_for_gpu.pretended(chip):
            kind = jax.sharding.get_abstract_mesh().abstract_device.device_kind
        assert kind.startswith("NVIDIA")
        assert chip.name in kind or chip.major == 12


@pytest.mark.usefixtures("ampere")
@pytest.mark.parametrize(("dtype", "largest"), [("float32", 128), ("float64", 64)])
def test_a_rank_beyond_the_registers_is_the_twins(dtype: str, largest: int) -> None:
    for r, count in ((largest, 2), (largest + 1, 0)):
        V, W, H = (jnp.asarray(x) for x in numbers(6, 5, r, dtype))
        assert kernel_calls(lowered(half_steps, "cuda", V, W, H)) == count


def test_a_shape_is_compiled_once_even_inside_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial runs while a user's function is being traced; on a CPU, with a kernel that any device compiles."""
    monkeypatch.setattr(gpu, "device", lambda: jax.devices("cpu")[0])
    traced, factor = [], jnp.ones((3, 1))

    def kernel(x: Any) -> Any:
        traced.append(x.shape)
        return 2 * x

    def twin(x: Any) -> Any:
        return x + x

    function = jax.jit(lambda x: gpu.run(kernel, twin, gpu.run(kernel, twin, x, factor=factor), factor=factor))
    np.testing.assert_array_equal(function(jnp.ones(3)), 4 * np.ones(3))
    gpu.compiles(kernel, jax.tree.structure((0,)), ((3,), jnp.ones(3).dtype))
    assert len(traced) == 2  # the trial, and the kernel's branch of the one program
