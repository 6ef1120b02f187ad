"""Every solver on every kind of data on devices that torch only makes believe: what comes back is where V is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import nmf_xp
from nmf_xp.arrays import libraries

if TYPE_CHECKING:
    from collections.abc import Iterator

torch = pytest.importorskip("torch")
TorchFunctionMode: Any = pytest.importorskip("torch.overrides").TorchFunctionMode

CASES = [
    *[("mu", beta) for beta in (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0)],
    *[("mm", beta) for beta in (0.5, 1.0, 3.0)],
    *[("newton", 1.0), ("cd", 1.0), ("cd", 2.0), ("cd-plain", 2.0), ("online", 1.0)],
]
KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "weighted": {},
    "masked": {"missing": "nan"},
    "penalised": {"alpha_W": 0.1, "l1_ratio": 0.5},
    "bounded": {"upper_w": 1.0, "upper_h": 2.0},
    "fixed": {},
    "normalized": {"normalize": "W"},
    "stack": {},
}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Tensors with a device and a dtype and no numbers to be read; two of different devices do not mix."""
    monkeypatch.setattr(libraries, "is_readable", lambda _: False)
    module = pytest.importorskip("torch._subclasses.fake_tensor")
    with module.FakeTensorMode() as mode, Indexing():
        yield mode


class Indexing(TorchFunctionMode):  # type: ignore[misc]
    """Indices and `contiguous` as other functions: with them themselves a CPU build of torch looks for a device."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        if function is torch.Tensor.__getitem__:
            return indexed(*args)
        if function is torch.Tensor.contiguous:
            return torch.ops.aten.clone(args[0], memory_format=torch.contiguous_format)
        return function(*args, **(options or {}))


def indexed(x: Any, key: Any) -> Any:
    """x[key] for slices, numbers, new axes and an ellipsis."""
    key = key if isinstance(key, tuple) else (key,)
    axis, left = 0, sum(k is not None and k is not Ellipsis for k in key)
    for k in key:
        if k is Ellipsis:
            axis = x.ndim - left
            continue
        if k is None:
            x = x.unsqueeze(axis)
        elif isinstance(k, slice):
            x = torch.ops.aten.slice.Tensor(x, axis, *k.indices(x.shape[axis]))
        else:
            x = x.select(axis, k)
        left -= k is not None
        axis += k is None or isinstance(k, slice)
    return x


@pytest.mark.parametrize(("device", "dtype"), [("cuda:0", "float32"), ("cuda:1", "float64")])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("solver", "beta"), CASES)
def test_a_solver_keeps_device_and_dtype(
    solver: str, beta: float, kind: str, device: str, dtype: str, fakes: Any
) -> None:
    def made(*shape: int, dtype: str = dtype) -> Any:
        return torch.ones(*shape, device=device, dtype=getattr(torch, dtype))

    lead = (2,) if kind == "stack" else ()
    V, W, H = made(*lead, 5, 4), made(*lead, 5, 2), made(*lead, 2, 4)
    options: dict[str, Any] = dict(KINDS[kind])
    if kind == "weighted":
        options["weights"] = made(5, 4)
    if kind == "fixed":
        options["fixed_h"] = made(2, 4, dtype="bool")
    result: Any = nmf_xp.nmf(V, 2, init=(W, H), solver=solver, beta_loss=beta, tol=0, max_iter=2, **options)
    for x, shape in ((result.W, W.shape), (result.H, H.shape)):
        assert (x.shape, x.dtype, str(x.device)) == (shape, V.dtype, device)
    for x in (result._divergence, result._objective, result._kkt_residual):
        assert str(x.device) == device


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_the_functions_keep_device_and_dtype(device: str, fakes: Any) -> None:
    V, W, H = (torch.ones(*shape, device=device) for shape in ((7, 5), (7, 3), (3, 5)))
    found: list[Any] = [nmf_xp.update_w(V, W, H), nmf_xp.update_h(V, W, H)]
    assert [(x.dtype, str(x.device)) for x in found] == [(V.dtype, device)] * 2
    divergence: Any = nmf_xp.beta_divergence(V, W, H, beta_loss=1)
    assert str(divergence.device) == device
    loadings: Any = nmf_xp.transform(V, H, solver="mu", beta_loss=1, init=W, tol=0, max_iter=3)
    assert (loadings.W.shape, str(loadings.W.device)) == (W.shape, device)


def test_arrays_on_two_devices_are_refused(fakes: Any) -> None:
    V, W, H = (torch.ones(*shape, device=f"cuda:{i}") for i, shape in ((0, (7, 5)), (1, (7, 3)), (1, (3, 5))))
    with pytest.raises(TypeError, match=r"`W` must be on `V`'s device, cuda:0, got cuda:1; move one of them"):
        nmf_xp.beta_divergence(V, W, H)
    with pytest.raises(TypeError, match=r"`init\[0\]` must be on `V`'s device, cuda:0, got cuda:1; move one of them"):
        nmf_xp.nmf(V, 3, init=(W, H), tol=0, max_iter=2)


def test_a_forgotten_device_is_seen(fakes: Any) -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device="cuda:1") + torch.ones(3, device="cuda:0")
