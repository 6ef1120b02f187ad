"""What a device may be: libraries differ in more than its name."""

from __future__ import annotations

import contextlib
import importlib
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import RowBlocks, online
from nmf_xp.arrays import libraries, streams, transfer
from nmf_xp.data.blocks import Part
from nmf_xp.data.constraints import FREE
from nmf_xp.data.streamed import Streamed
from nmf_xp.result.overview import overview
from tests.problems import noisy


class Unhashable:
    """A device as CuPy has it: compared by its number, without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashable)


def test_a_device_without_a_hash_has_an_accumulator_dtype() -> None:
    info = SimpleNamespace(dtypes=lambda **_: {"float32": np.float32, "float64": np.float64})
    library = ModuleType("library")
    library.__array_namespace_info__ = lambda: info  # type: ignore[attr-defined]
    for device in (Unhashable(), "a device with a hash"):
        assert libraries.accumulator_dtype(library, device) is np.float64


KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "sparse": {},
    "masked": {"missing": "nan"},
    "weighted": {},
    "penalised": {"alpha_W": 0.1, "l1_ratio": 0.5},
    "bounded": {"upper_w": 1.0, "upper_h": 1.0},
    "restarts": {"n_restarts": 3},
    "extreme": {},
}
SOLVERS = [("mu", 1.0), ("mu", 0.5), ("mm", 1.0), ("newton", 1.0), ("cd", 1.0), ("cd", 2.0), ("cd-plain", 2.0)]


def problem(kind: str, cupy: Any) -> tuple[Any, dict[str, Any]]:
    """Data of a kind on the current device, and the options that go with it."""
    V = noisy(12, 9, 3).V + 0.1
    if kind == "masked":
        V[2, 3] = np.nan
    options = dict(KINDS[kind])
    if kind == "weighted":
        options["weights"] = cupy.asarray(np.linspace(0.5, 1.0, 9))
    if kind == "extreme":
        V = V * 1e200
    given = cupy.asarray(V)
    if kind == "sparse":
        given = importlib.import_module("cupyx.scipy.sparse").csr_matrix(given)
    return given, options


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("solver", "beta"), [*SOLVERS, ("online", 1.0)])
def test_a_run_is_on_its_datas_device_and_on_the_callers_stream(solver: str, beta: float, kind: str, cupy: Any) -> None:
    """Whatever device is current; with the numbers of the first device, to the last bit."""
    given: dict[str, Any] = {
        "solver": solver,
        "beta_loss": beta,
        "random_state": 0,
        "max_iter": 3,
        "tol": 1e-9,
        "check_every": 2,
    }
    V, options = problem(kind, cupy)
    expected = nmf_xp.nmf(V, 3, **(given | options))
    stream = cupy.cuda.Stream(non_blocking=True)
    with cupy.cuda.Device(1):
        V, options = problem(kind, cupy)
    found = nmf_xp.nmf(V, 3, **(given | options))
    assert cupy.cuda.Device().id == 0
    with stream:
        V, options = problem(kind, cupy)
        streamed = nmf_xp.nmf(V, 3, **(given | options))
        for result, device in ((expected, 0), (found, 1), (streamed, 0)):
            for x, y in ((result.W, expected.W), (result.H, expected.H)):
                assert x.device.id == device
                stream.wait_event(cupy.cuda.Stream.null.record())
                np.testing.assert_array_equal(x.get(), y.get())
            assert result.divergence == expected.divergence
            assert result.kkt_residual == expected.kkt_residual


def fitted(X: Any) -> list[Any]:
    """What the estimators find."""
    sklearn = pytest.importorskip("nmf_xp.sklearn", reason="scikit-learn is not installed")
    found = []
    for make in (sklearn.NMF, sklearn.MiniBatchNMF):
        estimator = make(2, random_state=0, max_iter=3, tol=0, init="nndsvda")
        W = estimator.fit_transform(X)
        found += [W, estimator.components_, estimator.transform(X), estimator.inverse_transform(W)]
    return [*found, sklearn.MiniBatchNMF(2, random_state=0).partial_fit(X).components_]


def test_every_function_works_on_a_device_that_is_not_the_current_one(cupy: Any) -> None:
    V, W, H = noisy(12, 9, 3)

    def all_of_them() -> list[Any]:
        v, w, h = (cupy.asarray(x) for x in (V, W, H))
        with cupy.cuda.Device(0):  # the current one
            state = online.online_start(h, beta_loss=1)
            step = online.online_step(state, v, beta_loss=1)
            fresh = nmf_xp.transform(v, h, beta_loss=1, max_iter=2)
            cells = overview(v, w, h, beta=1.0, limit=5)
            found = [
                *(nmf_xp.beta_divergence(v, w, h), nmf_xp.update_w(v, w, h), nmf_xp.update_h(v, w, h)),
                *(step.W, step.state.H, fresh.W, fresh.divergence),
                nmf_xp.select_rank(v, [1, 2], beta_loss=1, random_state=0, n_restarts=2, n_folds=2, max_iter=3).table[
                    "divergence"
                ],
                *(cells.residual, cells.reference, *fitted(v)),
            ]
            return [x.get() if isinstance(x, cupy.ndarray) else x for x in found]

    expected = all_of_them()
    with cupy.cuda.Device(1):
        found = all_of_them()
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("device", [0, 1])
def test_blocks_that_are_read_ahead_are_on_the_callers_device_in_the_order_of_its_stream(
    device: int, sparse: bool, cupy: Any, devices: Any
) -> None:
    V = noisy(60, 9, 3, zeros=True).V
    whole = importlib.import_module("scipy.sparse").csr_array(V) if sparse else V
    host = [whole[i : i + 10] for i in range(0, 60, 10)]
    options: dict[str, Any] = {"beta_loss": 1.0, "random_state": 0, "max_iter": 3, "tol": 1e-9, "check_every": 1}
    expected = nmf_xp.nmf(RowBlocks(host), 3, **options)
    with cupy.cuda.Device(device):
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            like = cupy.ones(1)
            devices.counts.reset()
            result = nmf_xp.nmf(RowBlocks(host, like=like), 3, **options)
            assert result.W.device == cupy.cuda.Device(device)
            np.testing.assert_allclose(result.W.get(), expected.W, rtol=1e-9)
            np.testing.assert_allclose(result.H.get(), expected.H, rtol=1e-9)
    beside = [copy for copy in devices.counts.transfers if copy.key != stream.key]
    assert {copy.key[0] for copy in devices.counts.transfers} == {device}
    assert len(beside) >= 6 * 4  # each block in each pass but the first, which checks them
    assert len({copy.key for copy in beside}) == 1  # one stream, however many passes
    with cupy.cuda.Device(device):
        again = nmf_xp.nmf(RowBlocks(host, like=like), 3, **options)  # from another stream
        np.testing.assert_array_equal(again.W.get(), result.W.get())


def test_a_copy_does_not_wait_for_the_block_in_use(cupy: Any, devices: Any) -> None:
    V = noisy(60, 9, 3).V
    with cupy.cuda.Stream(non_blocking=True) as stream:
        source = RowBlocks([V[i : i + 10] for i in range(0, 60, 10)], like=cupy.ones(1))
        data = Streamed(source, None, beta=1.0, missing=None, absent="zero")
        begun: list[int] = []

        def use(block: Any, W: Any, _: Any) -> Part:
            begun.append(devices.clocks[stream.key][stream.key])
            return Part(block.values @ cupy.ones((9, 1)), ())

        devices.counts.reset()
        found = data.sweep(use, cupy.ones((60, 1)), FREE, xp=libraries.array_namespace(cupy.ones(1)))
        np.testing.assert_allclose(found.rows.get()[:, 0], V.sum(axis=1))
    copies = devices.counts.transfers
    assert len(copies) == len(begun) == 6
    for copy, use_of_the_block_before in zip(copies[1:], begun, strict=False):
        assert copy.after.get(stream.key, 0) <= use_of_the_block_before


def test_blocks_that_are_already_on_a_device_stay_there(cupy: Any) -> None:
    V = noisy(60, 9, 3).V
    expected = nmf_xp.nmf(RowBlocks([V[:30], V[30:]]), 3, random_state=0, max_iter=3)
    with cupy.cuda.Device(1):
        blocks = [cupy.asarray(V[:30]), cupy.asarray(V[30:])]
        result = nmf_xp.nmf(RowBlocks(blocks), 3, random_state=0, max_iter=3)
    assert result.H.device.id == 1
    np.testing.assert_allclose(result.H.get(), expected.H, rtol=1e-9)


def test_an_error_in_a_block_ends_the_run_and_frees_the_thread(cupy: Any) -> None:
    V = noisy(60, 9, 3).V
    passes: list[int] = []

    def source() -> Any:
        passes.append(1)
        return iter([V[:30], V[30:] if len(passes) < 3 else V[30:] + 1])

    with cupy.cuda.Device(1), pytest.raises(ValueError, match="must be the same in every pass"):
        nmf_xp.nmf(RowBlocks(source, like=cupy.ones(1)), 3, random_state=0)
    assert cupy.cuda.Device().id == 0


class Timeline:
    """A stream and its library, as far as a lane uses them: what was called, in its order."""

    def __init__(self, name: str, calls: list[tuple[str, ...]]) -> None:
        self.name, self.calls = name, calls

    def record_event(self) -> str:
        return f"a point on {self.name}"

    def wait_event(self, event: str) -> None:
        self.calls.append((self.name, event))


def test_torch_has_a_lane_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The streams are made up here; that torch keeps their promises, only a GPU can show."""
    torch = pytest.importorskip("torch")
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(streams, "_streams", {})
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Timeline("theirs", calls))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Timeline("ours", calls))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: _entered(stream.name, calls))
    like: Any = SimpleNamespace(device=torch.device("cuda:1"))
    monkeypatch.setattr(libraries, "is_torch", lambda x: x is like)
    lane = streams.lane(like)
    assert calls == [("theirs", "a point on ours")]
    calls.clear()
    made = lane.make(lambda: "a block", lane.free())
    assert lane.take(made) == "a block"
    assert calls == [("entered", "theirs"), ("ours", "a point on theirs")]
    calls.clear()
    lane.give_back("a block")
    assert calls == []
    lane.make(lambda: "another", lane.free())
    assert calls == [("entered", "theirs"), ("theirs", "a point on ours")]


def _entered(name: str, calls: list[tuple[str, ...]]) -> Any:
    calls.append(("entered", name))
    return contextlib.nullcontext()


def test_torch_copies_blocks_to_a_gpu_from_pinned_memory() -> None:
    done: list[Any] = []

    class Pinned:
        def pin_memory(self) -> Pinned:
            done.append("pinned")
            return self

        def to(self, device: Any, *, non_blocking: bool) -> Pinned:
            done.append((device.type, non_blocking))
            return self

    xp: Any = SimpleNamespace(asarray=lambda *_, **__: Pinned())
    device = SimpleNamespace(type="cuda")
    transfer.from_host(np.ones(3), xp=xp, dtype=np.dtype("float32"), device=device, staged=True)
    assert done == ["pinned", ("cuda", True)]


def test_tensors_of_any_dimension_are_taken_beside_cupy(cupy: Any) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    V = torch.ones((3, 6, 5)) + torch.arange(5)
    stack = nmf_xp.nmf(V, 2, random_state=0, max_iter=3, tol=0)
    assert stack.W.shape == (3, 6, 2)
    assert nmf_xp.beta_divergence(V, stack.W, stack.H).shape == (3,)


def test_blocks_on_another_device_than_the_current_one_are_computed_with_there(cupy: Any) -> None:
    V = noisy(60, 9, 3).V
    options: dict[str, Any] = {"beta_loss": 1, "random_state": 0, "max_iter": 3}
    expected = nmf_xp.nmf(RowBlocks([V[:30], V[30:]]), 3, **options)
    with cupy.cuda.Device(1):
        blocks = [cupy.asarray(V[:30]), cupy.asarray(V[30:])]
    result = nmf_xp.nmf(RowBlocks(blocks), 3, **options)
    assert result.H.device.id == 1
    np.testing.assert_allclose(result.H.get(), expected.H, rtol=1e-9)


def test_blocks_go_to_the_device_of_like(cupy: Any) -> None:
    V = noisy(60, 9, 3).V
    options: dict[str, Any] = {"beta_loss": 1, "random_state": 0, "max_iter": 3}
    expected = nmf_xp.nmf(RowBlocks([V[:30], V[30:]]), 3, **options)
    blocks = [cupy.asarray(V[:30]), cupy.asarray(V[30:])]
    with cupy.cuda.Device(1):
        like = cupy.ones(1)
    result = nmf_xp.nmf(RowBlocks(blocks, like=like), 3, **options)
    assert result.H.device.id == 1
    np.testing.assert_allclose(result.H.get(), expected.H, rtol=1e-9)


def test_a_stream_on_two_devices_is_refused_in_one_sentence(cupy: Any) -> None:
    V, _, H = noisy(12, 9, 3)
    state = online.online_start(cupy.asarray(H), beta_loss=1)
    with cupy.cuda.Device(1):
        block = cupy.asarray(V)
    with pytest.raises(TypeError, match="`H` must be on `V`'s device"):
        online.online_step(state, block, beta_loss=1)


def test_blocks_of_jax_keep_their_digits_where_x64_is_on_for_a_while() -> None:
    """The thread that reads ahead has a setting of its own."""
    jax = pytest.importorskip("jax")
    home = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    V = noisy(60, 9, 3).V
    expected = nmf_xp.nmf(RowBlocks([V[:30], V[30:]]), 3, random_state=0, max_iter=3)
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        with home.enable_x64(True):
            like = jax.numpy.zeros(1, dtype="float64")
            result = nmf_xp.nmf(RowBlocks([V[:30], V[30:]], like=like), 3, random_state=0, max_iter=3)
            np.testing.assert_allclose(np.asarray(result.H), expected.H, rtol=1e-9)
    finally:
        jax.config.update("jax_enable_x64", before)
