"""Bad and extreme input: a walk through the table in docs/bad-input.md."""

from __future__ import annotations

import re
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import cli
from nmf_xp.run.checkpoint import storage
from nmf_xp.testing import Backend, Target
from tests.compiled import eagerly
from tests.problems import Matrix, noisy

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = Path(__file__).parents[2] / "docs" / "bad-input.md"
MODULES = {
    "np": "numpy",
    "torch": "torch",
    "jnp": "jax.numpy",
    "da": "dask.array",
    "sparse": "scipy.sparse",
    "strict": "array_api_strict",
    "pd": "pandas",
    "pl": "polars",
}


def rows(heading: str | None = None) -> list[tuple[str, str, str]]:
    """The rows (id, input, what happens) below one heading of the table, or below all of them."""
    found: list[tuple[str, str, str]] = []
    section = ""
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| ") and line != "| id | input | what happens |" and heading in (None, section):
            id_, input_, outcome = line.removeprefix("| ").removesuffix(" |").split(" | ")
            found.append((id_, input_, outcome))
    return found


EXTREME = rows("Extreme input")
DEVICES = rows("Devices")
COMMANDS = [row for row in rows() if row[1].startswith("`nmf-xp ") and row not in DEVICES]
BAD = [row for row in rows() if row not in EXTREME + COMMANDS + DEVICES]


def test_every_row_has_a_name_of_its_own_and_a_case() -> None:
    ids = [id_ for id_, _, _ in BAD + COMMANDS + EXTREME + DEVICES]
    assert len(ids) == len(set(ids))
    assert len(BAD) > 80
    assert len(COMMANDS) > 15
    assert {id_ for id_, _, _ in EXTREME} == set(CASES)


@pytest.mark.parametrize(("input_", "outcome"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_raises_the_error_of_its_row(input_: str, outcome: str) -> None:
    V, W, H = 1.0 + np.arange(12.0).reshape(4, 3), np.ones((4, 2)), np.ones((2, 3))
    names: dict[str, Any] = {name: getattr(nmf_xp, name) for name in nmf_xp.__all__}
    names |= {short: pytest.importorskip(module) for short, module in MODULES.items() if f"{short}." in input_}
    names |= {"V": V.copy(), "W": W.copy(), "H": H.copy()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # of numpy.matrix, in making the input
        with pytest.raises((TypeError, ValueError)) as caught:
            eval(input_.strip("`"), names)
    error = caught.value
    assert outcome == f"`` {type(error).__name__}: {error} ``"
    assert re.search(r"`\w+(\[\d\])?`", str(error)), "the argument is not named"
    assert ", got " in str(error), "what was got is not said"
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__, "one error, not two"
    for name, x in (("V", V), ("W", W), ("H", H)):
        np.testing.assert_array_equal(names[name], x)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory that docs/bad-input.md describes."""
    pickled = np.asarray([[1, "one"], [2, None]], dtype=object)
    np.save(tmp_path / "V.npy", 1.0 + np.arange(12.0).reshape(4, 3))
    np.save(tmp_path / "negative.npy", -np.ones((4, 3)))
    np.save(tmp_path / "pickled.npy", pickled, allow_pickle=True)
    np.savez(tmp_path / "pickled.npz", V=pickled, allow_pickle=True)
    np.savez(tmp_path / "two.npz", A=np.ones((4, 3)), B=np.ones((4, 3)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "V.npy").read_bytes()[:-8])
    run = {"random_state": 0, "checkpoint": tmp_path / "run.npz", "checkpoint_every": 10, "tol": 0, "max_iter": 20}
    nmf_xp.nmf(1.0 + np.arange(12.0).reshape(4, 3), 2, **run)  # type: ignore[arg-type]
    (tmp_path / "run.npz.nmf-xp").rename(tmp_path / "cut.npz.nmf-xp")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "run.npz").read_bytes()[:-8])
    with np.load(tmp_path / "run.npz") as stored:
        np.savez(tmp_path / "changed.npz", **{**stored, "state.W": 2 * stored["state.W"]})
    whole = storage.read(tmp_path / "run.npz")
    without = {name: value for name, value in whole.header.items() if name != "ends"}
    storage.save(tmp_path / "forged.npz", storage.Stored(without, whole.arrays), private=False)
    np.savez(tmp_path / "one.npz", V=1.0 + np.arange(12.0).reshape(4, 3))
    (tmp_path / "taken.npz.nmf-xp").write_text("1 2 3")
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "results.npz").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


TEXTS = {
    "text.npy": "1 2 3",
    "text.npz": "1 2 3",
    "text.mtx": "1 2 3",
    "nul.mtx": "%%MatrixMarket matrix array real general\n2 1\n1\n\0\n",
    "cut.mtx": "%%MatrixMarket matrix array real general\n9 9\n1\n2\n",
    "complex.mtx": "%%MatrixMarket matrix array complex general\n1 1\n1 1\n",
    "fortran.mtx": "%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 1\n2 2 1D5\n",
    "cells.mtx": "%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 1 7\n",
    "integers.mtx": "%%MatrixMarket matrix coordinate integer general\n2 2 1\n1 1 1.5\n",
    "text.png": "1 2 3",
    "empty.csv": "",
    "words.csv": "a,b\n1,2\n3,four\n",
    "marked.csv": "1,2\nN/A,3\n4,5\n",
    "title.csv": "Measured in May\n1.5,2\n3.25,4\n",
    "minus.csv": "\u22121,3\n\u22122,4\n",
    "corner.csv": ",2\n3,4\n",
    "quote.csv": '1,2\n"3,4\n5,6\n',
    "ragged.csv": "1,2\n3,4,5\n",
    "names.csv": "a,b\n",
    "V.xyz": "1 2 3",
    "V.cvs": "1 2 3",
    "zip.csv": "PK\3\4",
    "text.csv.gz": "1 2 3",
    "text.h5ad": "1 2 3",
    "text.loom": "1 2 3",
    "text.xlsx": "1 2 3",
    "text.feather": "1 2 3",
    "text.wav": "1 2 3",
    "text.zarr": "1 2 3",
    "huge.csv": "1,2\n3,1e400\n",
    "thousand.csv": 'x,y\n2,"1,500"\n',
    "empty-names.csv": "x,y\n,\n",
    "done.npz": "an earlier result",
}


@pytest.mark.parametrize(("input_", "outcome"), [row[1:] for row in COMMANDS], ids=[row[0] for row in COMMANDS])
def test_a_bad_command_ends_in_one_line_and_writes_nothing(
    input_: str, outcome: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readers = ("scipy", "PIL", "h5py", "openpyxl", "pyarrow", "zarr")
    for module in (*readers, *(["torch"] if "--backend torch" in input_ else [])):
        pytest.importorskip(module)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    try:
        status = cli.main(shlex.split(input_.strip("`"))[1:])
    except SystemExit as exit_:  # of argparse
        status = exit_.code  # type: ignore[assignment]
    error = capsys.readouterr().err.splitlines()
    assert status == 2
    assert re.fullmatch(re.escape(outcome).replace(re.escape("..."), ".+"), f"`` {error[-1]} ``")
    assert len(error) == 1 or error[0].startswith("usage: ")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@eagerly
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_bad_values_are_found_and_placed_on_every_backend(target: Target, value: float) -> None:
    V = noisy(7, 5, 3).V
    V[4, 2] = value
    with pytest.raises(ValueError, match=r"^`V` must be .* at index \(4, 2\)"):
        nmf_xp.nmf(target.asarray(V), 3)
    _, W, H = noisy(7, 5, 3)
    H[1, 3] = value
    given = [target.asarray(x) for x in (np.abs(np.nan_to_num(V, posinf=1.0)), W, H)]
    with pytest.raises(ValueError, match=r"^`init\[1\]` must be .* at index \(1, 3\)"):
        nmf_xp.nmf(given[0], 3, init=(given[1], given[2]))
    with pytest.raises(ValueError, match=r"^`H` must be .* at index \(1, 3\)"):
        nmf_xp.transform(given[0], given[2])


@pytest.mark.parametrize("backend", [Backend.STRICT_DEVICE, Backend.TORCH, Backend.JAX])
def test_arrays_of_different_namespaces_are_refused(backend: Backend) -> None:
    pytest.importorskip(backend.library)
    target = backend.target()
    V, W, H = noisy(7, 5, 3)
    with pytest.raises(
        TypeError, match=r"^`init\[0\]` must be of `V`'s namespace, .*, got numpy; convert one of them$"
    ):
        nmf_xp.nmf(target.asarray(V), 3, init=(W, target.asarray(H)))
    with pytest.raises(TypeError, match=r"^`H` must be of `V`'s namespace, "):
        nmf_xp.beta_divergence(target.asarray(V), target.asarray(W), H)


def test_a_shape_is_refused_inside_jit_as_outside() -> None:
    jax = pytest.importorskip("jax")
    V, W, H = noisy(7, 5, 3)
    with pytest.raises(ValueError, match=r"^`init\[0\]` must have shape \(7, 3\), got \(5, 3\)"):
        jax.jit(lambda V, W, H: nmf_xp.nmf(V, 3, init=(W, H)))(V, W[:5], H)


def fit(
    target: Target, V: Any, r: int, dtype: str, beta: float, *, residual: float = 0.2, **options: Any
) -> tuple[Any, nmf_xp.Result]:
    """WH in float64 and the result, of which this checks what holds for every extreme input."""
    options = {"init": "random", "random_state": 0, "max_iter": 300, **options}
    result = nmf_xp.nmf(target.asarray(V, dtype), r, solver="mu", beta_loss=beta, **options)
    W, H = (target.to_numpy(x) for x in (result.W, result.H))
    for factor in (W, H):
        assert factor.dtype == dtype
        assert np.all(np.isfinite(factor))
        assert np.all(factor >= 0)
    assert not np.isnan(result.divergence)
    assert 0 <= result.kkt_residual < residual
    return W.astype(np.float64) @ H.astype(np.float64), result


ALWAYS = (-1.0, 1.0, 2.0)
WITH_ZEROS = (0.5, 1.0, 2.0)
FLOOR = {"float32": 1e-14, "float64": 1e-80}  # of WH, for beta >= 0.5


def all_zero(target: Target, dtype: str) -> None:
    for beta in WITH_ZEROS:
        for init in ("random", "nndsvda"):
            Y, result = fit(target, np.zeros((4, 3)), 2, dtype, beta, init=init)
            assert Y.max() <= FLOOR[dtype]
            assert result.divergence <= 100 * FLOOR[dtype] ** min(1.0, beta)
            assert (result.status, result.n_iter) == (nmf_xp.Status.CONVERGED, 10)


def zero_row(target: Target, dtype: str) -> None:
    fit_with_zeros(target, dtype, (2, slice(None)))


def zero_column(target: Target, dtype: str) -> None:
    fit_with_zeros(target, dtype, (slice(None), 3))


def fit_with_zeros(target: Target, dtype: str, where: tuple[Any, Any]) -> None:
    V = noisy(7, 5, 3).V
    V[where] = 0
    others = np.delete(V, where[0], axis=0) if isinstance(where[0], int) else np.delete(V, where[1], axis=1)
    for beta in WITH_ZEROS:
        Y, result = fit(target, V, 3, dtype, beta)
        assert Y[where].max() <= FLOOR[dtype] ** 0.5
        alone = fit(target, others, 3, dtype, beta)[1]
        assert result.divergence < 1.5 * alone.divergence


def one_positive_entry(target: Target, dtype: str) -> None:
    V = np.zeros((4, 3))
    V[2, 1] = 5.0
    for beta in WITH_ZEROS:
        Y, _ = fit(target, V, 2, dtype, beta)
        np.testing.assert_allclose(Y, V, rtol=1e-4, atol=FLOOR[dtype] ** 0.5)


def constant(target: Target, dtype: str) -> None:
    reproduced(target, np.full((4, 3), 3.7), dtype, ranks=(1, 2), rtol=5e-3)


def one_by_one(target: Target, dtype: str) -> None:
    reproduced(target, np.asarray([[3.7]]), dtype, ranks=(1, 2))


def single_row(target: Target, dtype: str) -> None:
    reproduced(target, noisy(4, 3, 2).V[:1], dtype, ranks=(1, 2))


def single_column(target: Target, dtype: str) -> None:
    reproduced(target, noisy(4, 3, 2).V[:, :1], dtype, ranks=(1, 2))


def reproduced(target: Target, V: Matrix, dtype: str, *, ranks: tuple[int, ...], rtol: float = 1e-5) -> None:
    for beta in ALWAYS:
        for r in ranks:
            Y, _ = fit(target, V, r, dtype, beta, tol=1e-9, max_iter=500)
            np.testing.assert_allclose(Y, V, rtol=rtol)


def rank_above_both(target: Target, dtype: str) -> None:
    V = noisy(4, 3, 2).V
    for beta in ALWAYS:
        small = fit(target, V, 2, dtype, beta)[1]
        for r in (4, 7):
            assert fit(target, V, r, dtype, beta)[1].divergence < small.divergence


def tiny(target: Target, dtype: str) -> None:
    scaled_from_order_one(target, dtype, {"float32": 1e-36, "float64": 1e-300}[dtype])


def huge(target: Target, dtype: str) -> None:
    scaled_from_order_one(target, dtype, {"float32": 1e37, "float64": 1e300}[dtype])


def scaled_from_order_one(target: Target, dtype: str, scale: float) -> None:
    V = noisy(4, 3, 2).V
    for beta in ALWAYS:
        plain, result = fit(target, V, 2, dtype, beta, tol=0, max_iter=50)
        Y, scaled = fit(target, scale * V, 2, dtype, beta, tol=0, max_iter=50)
        np.testing.assert_allclose(Y / scale, plain, rtol=1e-3 if dtype == "float32" else 1e-9)
        with np.errstate(over="ignore", under="ignore"):
            expected = float(np.float64(scale) ** beta * result.divergence)
        assert scaled.divergence == pytest.approx(expected, rel=1e-2)


def subnormal(target: Target, dtype: str) -> None:
    scale = {"float32": 1e-41, "float64": 1e-310}[dtype]
    V = noisy(4, 3, 2).V
    x = target.asarray(np.full((1, 1), scale), dtype)
    flushed = not bool(target.to_numpy(target.xp.astype(x > 0, target.xp.int32)))
    for beta in WITH_ZEROS if flushed else ALWAYS:
        Y, _ = fit(target, scale * V, 2, dtype, beta, tol=0, max_iter=50)
        if flushed:
            assert Y.max() <= FLOOR[dtype]
        else:
            expected = fit(target, V, 2, dtype, beta, tol=0, max_iter=50)[0]
            np.testing.assert_allclose(Y / scale, expected, rtol=1e-2 if dtype == "float32" else 1e-9)


def full_range(target: Target, dtype: str) -> None:
    decades = {"float32": 37, "float64": 300}[dtype]
    V = 10.0 ** np.random.default_rng(0).uniform(-decades, decades, size=(7, 5))
    for beta in (1.0, 2.0):
        Y, _ = fit(target, V, 3, dtype, beta)
        assert Y.flat[V.argmax()] == pytest.approx(V.max(), rel=1e-3)


def heavy_weights(target: Target, dtype: str) -> None:
    V, heavy = noisy(4, 3, 2).V, {"float32": 3e38, "float64": 1e308}[dtype]
    for beta in ALWAYS:
        found = []
        for weight in (1.0, heavy):
            weights = target.asarray(np.full((4, 3), weight), dtype)
            found.append(fit(target, V, 2, dtype, beta, weights=weights, tol=0, max_iter=50)[0])
        np.testing.assert_allclose(found[1], found[0], rtol=1e-3 if dtype == "float32" else 1e-9)


def heavy_penalties(target: Target, dtype: str) -> None:
    for beta in ALWAYS:
        for l1_ratio in (0.0, 1.0):
            given: Any = {"alpha_W": 1e300, "l1_ratio": l1_ratio, "residual": 1 + 1e-6}
            Y, result = fit(target, noisy(4, 3, 2).V, 2, dtype, beta, **given)
            assert Y.max() < 1e-6
            assert result.status is not nmf_xp.Status.CONVERGED or result.kkt_residual < 0.2


def large_integers(target: Target, _: str) -> None:
    integers = 2**62 - np.arange(12).reshape(4, 3) * 2**55
    result = nmf_xp.nmf(target.asarray(integers), 2, solver="mu", beta_loss=1, random_state=0)
    V = target.xp.astype(target.asarray(integers), result.W.dtype)
    expected = nmf_xp.nmf(V, 2, solver="mu", beta_loss=1, random_state=0)
    np.testing.assert_array_equal(target.to_numpy(result.W), target.to_numpy(expected.W))
    model = target.to_numpy(result.W) @ target.to_numpy(result.H)
    np.testing.assert_allclose(model, integers, rtol=1e-2)


def steep_loss(target: Target, dtype: str) -> None:
    V = noisy(12, 8, 2).V + 0.1
    for beta in (-300.0, 100.0, 700.0):
        for scale in (1.0, 3.0):
            result = nmf_xp.nmf(
                target.asarray((V * scale).astype(dtype)), 2, beta_loss=beta, random_state=0, max_iter=20
            )
            finite_and_no_nan(target, result)


def steep_loss_of_a_wide_range(target: Target, dtype: str) -> None:
    span = 100 if dtype == "float64" else 15
    V = 10.0 ** np.random.default_rng(0).uniform(-span, span, (12, 8))
    for beta in (-20.0, -5.0, 20.0):
        weights = None if beta == -5 else target.asarray((V > 1).astype(dtype))
        options: dict[str, Any] = {"beta_loss": beta, "random_state": 0, "max_iter": 20, "weights": weights}
        result = nmf_xp.nmf(target.asarray(V.astype(dtype)), 2, **options)
        finite_and_no_nan(target, result)


def finite_and_no_nan(target: Target, result: nmf_xp.Result) -> None:
    for factor in map(target.to_numpy, (result.W, result.H)):
        assert np.isfinite(factor).all()
        assert (factor >= 0).all()
    numbers = (*result.history, result.divergence, result.objective, result.kkt_residual)
    assert all(x >= 0 for x in numbers)


CASES: dict[str, Callable[[Target, str], None]] = {
    "all-zero": all_zero,
    "zero-row": zero_row,
    "zero-column": zero_column,
    "one-positive-entry": one_positive_entry,
    "constant": constant,
    "one-by-one": one_by_one,
    "single-row": single_row,
    "single-column": single_column,
    "rank-above-both": rank_above_both,
    "tiny": tiny,
    "huge": huge,
    "subnormal": subnormal,
    "full-range": full_range,
    "heavy-weights": heavy_weights,
    "heavy-penalties": heavy_penalties,
    "large-integers": large_integers,
    "steep-loss": steep_loss,
    "steep-loss-of-a-wide-range": steep_loss_of_a_wide_range,
}


OF_MAGNITUDE = {
    "all-zero",
    "tiny",
    "huge",
    "subnormal",
    "full-range",
    "heavy-weights",
    "heavy-penalties",
    "steep-loss",
    "steep-loss-of-a-wide-range",
}  # where the range of the dtype matters
WALK = [(id_, "float64") for id_, _, _ in EXTREME] + [(id_, "float32") for id_, _, _ in EXTREME if id_ in OF_MAGNITUDE]


@eagerly
@pytest.mark.parametrize(("id_", "dtype"), WALK)
def test_extreme_input_has_the_outcome_of_its_row(target: Target, id_: str, dtype: str) -> None:
    CASES[id_](target, dtype)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_what_the_error_of_a_masked_array_advises_leaves_the_masked_entries_unread(kind: str) -> None:
    rng = np.random.default_rng(0)
    V = rng.gamma(1, 1, (12, 3)) @ rng.gamma(1, 1, (3, 9))
    mask = rng.random(V.shape) < 0.2
    spoiled = np.where(mask, 1e20, V)  # what `.filled()` puts there
    masked: Any
    if kind == "numpy":
        xp: Any = np
        masked = np.ma.MaskedArray(spoiled, mask)
    else:
        xp = pytest.importorskip("torch", reason="torch is not installed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that its interface is a prototype
            masked = xp.masked.masked_tensor(xp.asarray(spoiled), xp.asarray(~mask))
    with pytest.raises(TypeError, match="a masked array") as error:
        nmf_xp.nmf(masked, 3)
    data, weights = re.findall(r"pass its `(.*?)`, with `weights=(.*?)`", str(error.value))[0]
    names = {"V": masked, "numpy": np}
    found = nmf_xp.nmf(eval(f"V{data}", names), 3, weights=eval(weights, names), random_state=0)
    expected = nmf_xp.nmf(xp.asarray(V), 3, weights=xp.asarray(~mask), random_state=0)
    assert abs(found.divergence - expected.divergence) <= 1e-9 * expected.divergence + 1e-20
    np.testing.assert_allclose(np.asarray(found.W @ found.H), np.asarray(expected.W @ expected.H), rtol=1e-6)


def test_rows_that_are_masked_arrays_without_a_masked_entry_are_arrays() -> None:
    V = np.random.default_rng(0).gamma(1, 1, (12, 9))
    options: dict[str, Any] = {"random_state": 0, "max_iter": 5}
    found = nmf_xp.nmf(nmf_xp.RowBlocks(np.ma.MaskedArray(V)), 3, **options)
    np.testing.assert_array_equal(found.W, nmf_xp.nmf(nmf_xp.RowBlocks(V), 3, **options).W)


def test_a_block_that_stores_nothing_says_nothing_of_the_rest() -> None:
    sparse = pytest.importorskip("scipy.sparse", reason="scipy is not installed")
    V = sparse.csr_array(np.random.default_rng(0).gamma(1, 1, (8, 9)))
    options: dict[str, Any] = {"random_state": 0, "max_iter": 20, "absent": "missing", "solver": "mu"}
    start = np.ones((12, 2)) + np.arange(24).reshape(12, 2), np.ones((2, 9)) + np.arange(18).reshape(2, 9)
    found = nmf_xp.nmf(nmf_xp.RowBlocks([sparse.csr_array((4, 9)), V]), 2, init=start, **options)
    expected = nmf_xp.nmf(nmf_xp.RowBlocks([V]), 2, init=(start[0][4:], start[1]), **options)
    np.testing.assert_allclose(found.H, expected.H, rtol=1e-12)
    assert found.divergence == pytest.approx(expected.divergence)


def test_the_rows_are_wrong_and_not_the_components_that_they_are_placed_on() -> None:
    from nmf_xp.online import online_start, online_step

    H = np.ones((5, 20))
    for V in (np.ones((3, 7)), np.ones((2, 3, 7)), np.ones((20, 3))):
        with pytest.raises(ValueError, match=f"^`V` must have 20 columns, .* got shape {re.escape(str(V.shape))}"):
            nmf_xp.transform(V, H)
    with pytest.raises(ValueError, match=r"^`V` must have 20 columns, .* got shape \(3, 7\)"):
        online_step(online_start(H), np.ones((3, 7)))
