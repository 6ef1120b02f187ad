"""What torch promises and we must keep: autograd, default dtypes, no hidden synchronisation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import Status
from nmf_xp.testing import oracle
from tests.problems import BETAS, DTYPES, noisy

torch = pytest.importorskip("torch")


def arrays(beta: float, dtype: str = "float64") -> list[Any]:
    return [torch.asarray(x, dtype=getattr(torch, dtype)) for x in noisy(7, 5, 3, zeros=beta > 0)]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_the_analytic_one(beta: float, dtype: str) -> None:
    V, W, H = arrays(beta, dtype)
    W.requires_grad_()
    H.requires_grad_()
    nmf_xp.beta_divergence(V, W, H, beta_loss=beta).backward()  # type: ignore[attr-defined]
    exact = [x.detach().numpy().astype(np.float64) for x in (V, W, H)]
    Y = exact[1] @ exact[2]
    size = np.abs(Y ** (beta - 1)).max() + np.abs(exact[0] * Y ** (beta - 2)).max()
    for got, expected in zip((W.grad, H.grad), oracle.gradient(exact[0], exact[1], exact[2], beta), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10 if dtype == "float64" else 1e-4, atol=1e-6 * size)


@pytest.mark.parametrize("beta", BETAS)
def test_the_gradient_is_the_limit_of_differences(beta: float) -> None:
    V, W, H = (torch.asarray(x, dtype=torch.float64).requires_grad_() for x in noisy(4, 3, 2))
    torch.autograd.gradcheck(lambda *args: nmf_xp.beta_divergence(*args, beta_loss=beta), (V, W, H))


@pytest.mark.parametrize("beta", [beta for beta in BETAS if beta > 0])
def test_the_gradient_is_finite_where_the_data_are_zero(beta: float) -> None:
    V = np.asarray([[0.0, 1.0, 1e-30], [0.0, 0.0, 1e30]])
    W, H = np.asarray([[0.5], [2.0]]), np.asarray([[1.0, 3.0, 1e-3]])
    factors = [torch.asarray(x).requires_grad_() for x in (W, H)]
    nmf_xp.beta_divergence(torch.asarray(V), *factors, beta_loss=beta).backward()  # type: ignore[attr-defined]
    for factor, expected in zip(factors, oracle.gradient(V, W, H, beta), strict=True):
        np.testing.assert_allclose(factor.grad, expected, rtol=1e-10)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, at the first forward derivative
def test_the_derivative_in_a_direction_is_finite_where_the_data_are_zero() -> None:
    """Forward mode, which no tensor tells of by itself."""
    V, W, H = (torch.asarray(x, dtype=torch.float64) for x in ([[0.0, 1.0]], [[0.5]], [[1.0, 3.0]]))
    direction = torch.asarray([[2.0]], dtype=torch.float64)
    _, got = torch.func.jvp(lambda W: nmf_xp.beta_divergence(V, W, H, beta_loss=1), (W,), (direction,))
    gradient = oracle.gradient(V.numpy(), W.numpy(), H.numpy(), 1.0)[0]
    assert float(got) == pytest.approx(float(gradient[0, 0]) * 2.0, rel=1e-12)


def test_gradients_flow_through_the_updates() -> None:
    """An unrolled loop can be differentiated, as meta-learning of a start needs."""
    V, W, H = arrays(1.0)
    W.requires_grad_()
    new = nmf_xp.update_h(V, nmf_xp.update_w(V, W, H, beta_loss=1), H, beta_loss=1)
    new.sum().backward()  # type: ignore[attr-defined]
    assert torch.all(torch.isfinite(W.grad))
    assert torch.any(W.grad != 0)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_whole_run_needs_no_value(beta: float, dtype: str) -> None:
    """On torch's meta device, where reading one is an error, as on a GPU it is a wait."""
    V, W, H = (x.to("meta") for x in arrays(beta, dtype))
    result: Any = nmf_xp.nmf(V, 3, init=(W, H), solver="mu", beta_loss=beta, tol=0, max_iter=5)
    loadings: Any = nmf_xp.transform(V, result.H, solver="mu", beta_loss=beta, tol=0, max_iter=5)
    for x, shape in ((result.W, (7, 3)), (result.H, (3, 5)), (loadings.W, (7, 3))):
        assert (tuple(x.shape), x.dtype, x.device.type) == (shape, V.dtype, "meta")
    assert (result.n_iter, result.status) == (5, Status.MAX_ITER)
    assert "divergence" not in repr(result)
    with pytest.raises(RuntimeError, match="meta"):
        _ = result.divergence


def test_a_random_start_needs_no_value() -> None:
    V = arrays(1.0)[0].to("meta")
    result: Any = nmf_xp.nmf(V, 3, solver="mu", beta_loss=1, tol=0, max_iter=5, random_state=0)
    assert result.W.device.type == "meta"


def test_integers_take_the_default_dtype_of_the_moment() -> None:
    V = torch.asarray(np.random.default_rng(0).poisson(3.0, size=(7, 5)))
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float32, torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            result: Any = nmf_xp.nmf(V, 2, random_state=0, max_iter=5)
            assert result.W.dtype == dtype
    finally:
        torch.set_default_dtype(before)


def test_the_layout_of_a_tensor_does_not_matter() -> None:
    V, W, H = arrays(1.0)
    expected: Any = nmf_xp.nmf(V, 3, init=(W, H), solver="mu", beta_loss=1, max_iter=30)
    got: Any = nmf_xp.nmf(V.T.contiguous().T, 3, init=(W.T.contiguous().T, H), solver="mu", beta_loss=1, max_iter=30)
    np.testing.assert_allclose(got.W, expected.W, rtol=1e-11)


def test_data_that_require_a_gradient_are_factorized_like_others() -> None:
    V, W, H = arrays(1.0)
    expected: Any = nmf_xp.nmf(V, 3, init=(W, H), solver="mu", beta_loss=1)
    got: Any = nmf_xp.nmf(V.clone().requires_grad_(), 3, init=(W, H), solver="mu", beta_loss=1)
    assert torch.equal(got.W.detach(), expected.W)
    assert (got.n_iter, got.status) == (expected.n_iter, expected.status)
    by_svd: Any = nmf_xp.nmf(V.clone().requires_grad_(), 3, init="nndsvda", solver="mu", beta_loss=1, random_state=0)
    assert torch.all(torch.isfinite(by_svd.W))


def test_a_sparse_product_does_not_warn_of_checks_that_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.11 says so once a process, although they are turned off on purpose: the indices are our own."""
    made = torch.sparse_csr_tensor

    def warning(*args: Any, **options: Any) -> Any:
        warnings.warn("Sparse invariant checks are implicitly disabled. Memory errors ...", UserWarning, stacklevel=2)
        return made(*args, **options)

    monkeypatch.setattr(torch, "sparse_csr_tensor", warning)
    V = arrays(1.0)[0].to_sparse_coo()
    assert nmf_xp.nmf(V, 2, solver="mu", beta_loss=1, random_state=0, max_iter=2, tol=0).n_iter == 2


def differentiable(x: Any) -> list[Any]:
    """The same data as a leaf, as a parameter, and as what was computed from one."""
    return [x.clone().requires_grad_(), torch.nn.Parameter(x.clone()), torch.nn.Parameter(x.clone()) * 1]


@pytest.mark.parametrize("kind", range(3))
def test_what_requires_a_gradient_is_data_in_every_argument(kind: int) -> None:
    V, W, H = arrays(1.0)
    w = torch.full_like(V, 2.0)
    with torch.no_grad():
        of = {name: differentiable(x) for name, x in {"V": V, "W": W, "H": H, "w": w, "u": H * 9}.items()}
    if kind == 2:  # outside of no_grad, so that it has a history
        of = {name: differentiable(x) for name, x in {"V": V, "W": W, "H": H, "w": w, "u": H * 9}.items()}
        assert of["V"][2].grad_fn is not None
    G = {name: kinds[kind] for name, kinds in of.items()}
    options: dict[str, Any] = {"beta_loss": 1, "max_iter": 20}
    fixed = torch.zeros_like(W, dtype=torch.bool)
    fixed[0, 0] = True
    full: dict[str, Any] = {**options, "fixed_w": fixed}
    pairs: list[tuple[Any, Any]] = [
        (nmf_xp.nmf(G["V"], 3, random_state=0, **options), nmf_xp.nmf(V, 3, random_state=0, **options)),
        (
            nmf_xp.nmf(G["V"], 3, init=(G["W"], G["H"]), weights=G["w"], upper_h=G["u"], **full),
            nmf_xp.nmf(V, 3, init=(W, H), weights=w, upper_h=H * 9, **full),
        ),
        (
            nmf_xp.transform(G["V"], G["H"], init=G["W"], weights=G["w"], **full),
            nmf_xp.transform(V, H, init=W, weights=w, **full),
        ),
        (
            nmf_xp.nmf(nmf_xp.RowBlocks([G["V"]]), 3, random_state=0),
            nmf_xp.nmf(nmf_xp.RowBlocks([V]), 3, random_state=0),
        ),
        (
            nmf_xp.select_rank(G["V"], [1, 2], n_restarts=2, n_folds=2, weights=G["w"], random_state=0).best[2],
            nmf_xp.select_rank(V, [1, 2], n_restarts=2, n_folds=2, weights=w, random_state=0).best[2],
        ),
        (
            nmf_xp.consensus_factors(G["V"], 2, n_restarts=4, max_distance=2, random_state=0).result,
            nmf_xp.consensus_factors(V, 2, n_restarts=4, max_distance=2, random_state=0).result,
        ),
    ]
    for found, expected in pairs:
        for got, want in ((found.W, expected.W), (found.H, expected.H)):
            assert type(got) is torch.Tensor
            assert not got.requires_grad
            assert torch.equal(got, want)
    assert all(x.grad is None for x in G.values() if x.is_leaf)


def test_what_requires_a_gradient_is_data_in_a_stream_and_an_estimator() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from nmf_xp.online import online_start, online_step
    from nmf_xp.sklearn import NMF, MiniBatchNMF, non_negative_factorization

    V, W, H = (torch.nn.Parameter(x) for x in arrays(1.0))
    step = online_step(online_start(H, beta_loss=1), V, W, beta_loss=1)
    options: dict[str, Any] = {"random_state": 0, "max_iter": 5000, "tol": 1e-2}
    given = non_negative_factorization(V, W, H, n_components=3, init="custom", tol=1e-2, max_iter=5000)
    found = [*step.state, step.W, *given[:2]]
    for model in (NMF(3, **options), NMF(3, solver="mu", beta_loss=1, **options), MiniBatchNMF(3, **options)):
        found += [model.fit_transform(V, weights=V * 1), model.components_, model.transform(V)]
    assert not any(x.requires_grad for x in found if x is not None)  # a part of the state that is not there yet


def test_no_graph_of_the_iterations_is_kept() -> None:
    """A saved tensor for each operation is what 2.6 GB of a run were made of."""
    V = torch.nn.Parameter(arrays(1.0)[0])
    saved: list[Any] = []

    def keep(x: Any) -> Any:
        saved.append(x.shape)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        nmf_xp.nmf(V, 3, beta_loss=1, tol=0, max_iter=5)
        assert not saved
        nmf_xp.update_w(V, *arrays(1.0)[1:], beta_loss=1)
    assert saved


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_autocast_changes_nothing(beta: float) -> None:
    V, W, H = arrays(beta, "float32")

    def everything() -> list[Any]:
        options: dict[str, Any] = {"beta_loss": beta, "max_iter": 20, "random_state": 0}
        return [
            *(getattr(nmf_xp.nmf(V, 3, init=init, **options), name) for init in ("random", "nndsvda") for name in "WH"),
            nmf_xp.transform(V, H, beta_loss=beta).W,
            nmf_xp.update_w(V, W, H, beta_loss=beta),
            nmf_xp.update_h(V, W, H, beta_loss=beta),
            nmf_xp.beta_divergence(V, W, H, beta_loss=beta),
            nmf_xp.select_rank(V, [1, 2], n_restarts=2, n_folds=2, beta_loss=beta, random_state=0).best[2].W,
        ]

    plain = everything()
    with torch.autocast("cpu", torch.bfloat16):
        assert (W @ H).dtype == torch.bfloat16
        under = everything()
        assert (W @ H).dtype == torch.bfloat16  # as before
    for got, expected in zip(under, plain, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
def test_modes_without_gradients_change_nothing(mode: str) -> None:
    V, W, H = arrays(1.0)
    expected = nmf_xp.nmf(V, 3, init=(W, H), beta_loss=1).W
    with getattr(torch, mode)():
        assert torch.equal(nmf_xp.nmf(torch.nn.Parameter(V), 3, init=(W, H), beta_loss=1).W, expected)
        made = V * 1  # an inference tensor, in that mode
    assert torch.equal(nmf_xp.nmf(made, 3, init=(W, H), beta_loss=1).W, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_reach_half_precision_data(dtype: str) -> None:
    V, W, H = arrays(0.0, "float32")  # without zeros
    V = V.to(getattr(torch, dtype)).requires_grad_()
    nmf_xp.beta_divergence(V, W, H, beta_loss=1).backward()  # type: ignore[attr-defined]
    assert V.grad.dtype == V.dtype
    exact = [x.detach().numpy() for x in (V.float(), W, H)]
    expected = np.log(exact[0] / (exact[1] @ exact[2]))
    np.testing.assert_allclose(V.grad.float().numpy(), expected, rtol=2e-2, atol=1e-2)
