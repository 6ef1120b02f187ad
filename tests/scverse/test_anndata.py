"""AnnData in, AnnData out."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import scverse
from tests.data.test_tables import cells as scaled
from tests.scverse.cells import counts

if TYPE_CHECKING:
    from pathlib import Path

anndata = pytest.importorskip("anndata", reason="anndata is not installed")
OPTIONS: dict[str, Any] = {"beta_loss": "kullback-leibler", "random_state": 0}


@pytest.fixture
def adata() -> Any:
    return counts(120, 90)


def dense(x: Any) -> Any:
    return x.toarray() if hasattr(x, "toarray") else np.asarray(x)


def same(x: Any, y: Any, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(x, y, rtol=0, atol=rtol * np.abs(y).max())


def test_factors_are_those_of_nmf_where_scanpy_looks_for_them(adata: Any) -> None:
    before = adata.copy()
    assert scverse.nmf(adata, 4, **OPTIONS) is None
    expected = nmf_xp.nmf(before.X, 4, **OPTIONS)
    np.testing.assert_array_equal(adata.obsm["X_nmf"], expected.W)
    np.testing.assert_array_equal(adata.varm["nmf"], expected.H.T)
    known = adata.uns["nmf"]
    assert known["params"] == {"n_components": 4, **OPTIONS}
    assert (known["status"], known["solver"], known["n_iter"]) == (expected.status.name, "newton", expected.n_iter)
    assert known["divergence"] == expected.divergence
    assert np.array_equal(adata.X.data, before.X.data)
    assert set(adata.obs) == set(before.obs)
    assert adata.raw is None


def test_a_layer_a_mask_and_sizes(adata: Any) -> None:
    adata.layers["counts"], adata.X = adata.X.copy(), -adata.X
    scverse.nmf(adata, 3, layer="counts", mask_var="variable", size_key="size", normalize="H", key_added="a", **OPTIONS)
    mask, sizes = adata.var["variable"].to_numpy(), adata.obs["size"].to_numpy()
    expected = nmf_xp.nmf(adata.layers["counts"][:, mask], 3, exposure=sizes[:, None], normalize="H", **OPTIONS)
    same(adata.obsm["X_a"], expected.W)
    same(adata.varm["a"][mask], expected.H.T)
    assert 0 < mask.sum() < 90
    assert not adata.varm["a"][~mask].any()
    named = {"layer": "counts", "mask_var": "variable", "size_key": "size", "normalize": "H"}
    assert adata.uns["a"]["params"] == {"n_components": 3, **named, **OPTIONS}
    other = scverse.nmf(adata, 3, layer="counts", mask_var=mask, size_key="size", normalize="H", copy=True, **OPTIONS)
    np.testing.assert_array_equal(other.obsm["X_nmf"], adata.obsm["X_a"])
    assert "X_nmf" not in adata.obsm
    assert "mask_var" not in other.uns["nmf"]["params"]


def test_what_has_the_key_is_replaced(adata: Any) -> None:
    scverse.nmf(adata, 4, **OPTIONS)
    scverse.nmf(adata, 2, **OPTIONS)
    assert adata.obsm["X_nmf"].shape[1] == adata.varm["nmf"].shape[1] == adata.uns["nmf"]["params"]["n_components"] == 2


def test_all_of_it_can_be_written_and_read(adata: Any, tmp_path: Path) -> None:
    scverse.nmf(adata, 3, mask_var="variable", w=[nmf_xp.L1(0.1)], **OPTIONS)
    scverse.consensus(adata, 3, n_restarts=6, max_distance=2, key_added="agreed", **OPTIONS)
    scverse.select_rank(adata, [2, 3], n_restarts=2, fold_restarts=2, max_iter=40, **OPTIONS)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.varm["nmf"], adata.varm["nmf"])
    assert again.uns["nmf"]["params"]["beta_loss"] == "kullback-leibler"
    assert again.uns["nmf_rank"]["table"].equals(adata.uns["nmf_rank"]["table"])
    assert list(again.uns["nmf_rank"]["doubts"]) == list(adata.uns["nmf_rank"]["doubts"])
    scverse.project(adata, again, key="agreed")


def test_consensus_and_ranks_are_those_of_arrays(adata: Any) -> None:
    options = {"n_restarts": 6, "max_distance": 2, **OPTIONS}
    scverse.consensus(adata, 3, mask_var="variable", **options)
    V = adata.X[:, adata.var["variable"].to_numpy()]
    found = nmf_xp.consensus_factors(V, 3, **options)
    same(adata.obsm["X_nmf"], found.result.W)
    assert adata.uns["nmf"]["silhouette"] == found.silhouette
    assert (adata.uns["nmf"]["n_restarts"], adata.uns["nmf"]["n_dropped"]) == (6, 0)
    options = {"n_restarts": 2, "fold_restarts": 2, "max_iter": 40, **OPTIONS}
    copy = scverse.select_rank(adata, [2, 3], mask_var="variable", copy=True, **options)
    selected = nmf_xp.select_rank(V, [2, 3], **options)
    assert copy.uns["nmf_rank"]["rank"] == selected.rank
    np.testing.assert_array_equal(copy.uns["nmf_rank"]["table"]["loss"], selected.table["loss"])
    assert "nmf_rank" not in adata.uns


def test_views_become_data_as_anndata_makes_them(adata: Any) -> None:
    view = adata[20:80, ::2]
    with pytest.warns(match="of view"):
        scverse.nmf(view, 3, **OPTIONS)
    assert not view.is_view
    same(view.obsm["X_nmf"], nmf_xp.nmf(adata.X[20:80, ::2], 3, **OPTIONS).W)
    assert "X_nmf" not in adata.obsm


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_backed_data_stay_in_their_file(adata: Any, tmp_path: Path, kind: str) -> None:
    adata.X = dense(adata.X) if kind == "dense" else adata.X
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    options = {"tol": 1e-9, "max_iter": 3000, "normalize": "H", "solver": "mm", **OPTIONS}
    scverse.nmf(backed, 2, **options)
    assert backed.isbacked
    scverse.nmf(adata, 2, **options)
    same(backed.obsm["X_nmf"], adata.obsm["X_nmf"], 1e-2)
    assert backed.uns["nmf"]["divergence"] == pytest.approx(adata.uns["nmf"]["divergence"], rel=1e-6)
    scverse.nmf(backed, 2, mask_var="variable", **OPTIONS)
    scverse.project(backed, adata)
    refused: list[Any] = [lambda: scverse.nmf(backed, 2, copy=True), lambda: scverse.nmf(backed[:50], 2)]
    for call in refused:
        with pytest.raises(ValueError, match=r"pass `adata.to_memory\(\)`"):
            call()
    backed.file.close()


@pytest.mark.parametrize("dtype", ["int64", "float32", "float16", "bool"])
def test_every_dtype_goes_there_and_back(adata: Any, dtype: str) -> None:
    adata.X = dense(adata.X).astype(dtype)
    scverse.nmf(adata, 3, size_key="size", **OPTIONS)
    W = adata.obsm["X_nmf"]
    assert W.dtype == ("float32" if "float" in dtype else "float64")
    scverse.project(adata, adata.copy(), tol=1e-8, max_iter=2000)
    same(adata.obsm["X_nmf"], W, 2e-2)


def test_dask_data_are_read_where_they_are(adata: Any) -> None:
    dask = pytest.importorskip("dask.array", reason="dask is not installed")
    lazy = adata.copy()
    from_array: Any = dask.from_array
    lazy.X = from_array(dense(adata.X), chunks=(50, 90))
    scverse.nmf(lazy, 3, size_key="size", random_state=0)
    assert type(lazy.obsm["X_nmf"]) is type(lazy.varm["nmf"]) is np.ndarray
    W = lazy.obsm["X_nmf"]
    scverse.project(lazy, lazy.copy(), tol=1e-8, max_iter=2000)
    same(lazy.obsm["X_nmf"], W, 5e-2)


def test_new_cells_get_the_loadings_of_the_reference(adata: Any) -> None:
    scverse.nmf(adata, 3, size_key="size", mask_var="variable", tol=1e-10, max_iter=5000, **OPTIONS)
    new = counts(120, 90)[60:, ::-1].copy()  # genes in another order
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scverse.project(new, adata, tol=1e-10, max_iter=5000)
    same(new.obsm["X_nmf"], adata.obsm["X_nmf"][60:], 1e-3)
    assert new.uns["nmf"]["params"]["size_key"] == "size"
    assert new.uns["nmf"]["n_genes"] <= adata.var["variable"].sum()
    assert "nmf" not in new.varm


def test_genes_that_are_missing_are_said_and_count_as_unobserved(adata: Any) -> None:
    scverse.nmf(adata, 3, **OPTIONS)
    new = adata[:, 10:].copy()
    named = r"10 of 88 genes of `reference`, with \d+\.\d% of the loadings, are not in `adata`.*unobserved"
    with pytest.warns(UserWarning, match=named) as said:
        scverse.project(new, adata)
    assert said[0].filename == __file__
    weights = (np.arange(90) >= 10)[None, :].astype(float)
    expected = nmf_xp.transform(adata.X, adata.varm["nmf"].T.copy(), weights=weights, beta_loss=1, tol=1e-9)
    same(new.obsm["X_nmf"], expected.W, 2e-3)


def test_a_robust_loss_comes_along(adata: Any) -> None:
    adata.X = dense(adata.X)
    scverse.nmf(adata, 2, beta_loss=nmf_xp.Robust(), random_state=0)
    new = scverse.project(adata, adata, copy=True)
    assert "robust" in new.uns["nmf"]["params"]


def in_batches(adata: Any, effects: Any = None) -> Any:
    """The cells in two batches, one of which counts some genes several times."""
    labels = np.where(np.arange(adata.n_obs) % 3 == 0, "new", "old")
    effects = np.repeat([1.0, 4.0, 0.5], [60, 15, 15]) if effects is None else effects
    adata.X = np.rint(dense(adata.X) * np.where(labels[:, None] == "new", effects, 1.0))
    adata.obs["machine"] = labels
    adata.obs["machine"] = adata.obs["machine"].astype("category")
    return adata


@pytest.mark.parametrize("mask", [None, "variable"])
def test_batch_effects_are_those_of_nmf_beside_the_genes(adata: Any, mask: str | None, tmp_path: Path) -> None:
    in_batches(adata)
    scverse.nmf(adata, 3, batch_key="machine", batch_prior=2.0, mask_var=mask, **OPTIONS)
    genes = np.ones(90, bool) if mask is None else adata.var[mask].to_numpy()
    V = adata.X[:, genes]
    expected = nmf_xp.nmf(V, 3, batch=adata.obs["machine"], batch_prior=2.0, **OPTIONS)
    assert expected.batch_effects is not None
    np.testing.assert_array_equal(adata.obsm["X_nmf"], expected.W)
    found = adata.varm["nmf_batch_effects"]
    assert found.shape == (90, 2)
    np.testing.assert_array_equal(found[genes], np.stack(list(expected.batch_effects.values()), axis=1))
    assert (found[~genes] == 1).all()
    assert list(adata.uns["nmf"]["batch_labels"]) == ["new", "old"]
    assert adata.uns["nmf"]["params"]["batch_key"] == "machine"
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.varm["nmf_batch_effects"], found)
    assert list(again.uns["nmf"]["batch_labels"]) == ["new", "old"]
    scverse.nmf(adata, 3, **OPTIONS)  # what has the key is replaced
    assert "nmf_batch_effects" not in adata.varm
    assert "batch_labels" not in adata.uns["nmf"]


def test_consensus_takes_sizes_and_batches_as_nmf_does(adata: Any) -> None:
    options: dict[str, Any] = {"n_restarts": 6, "max_distance": 2, **OPTIONS}
    sized = scverse.consensus(adata, 3, size_key="size", copy=True, **options)
    sizes = adata.obs["size"].to_numpy()[:, None]
    same(sized.obsm["X_nmf"], nmf_xp.consensus_factors(adata.X, 3, exposure=sizes, **options).result.W)
    plain = nmf_xp.consensus_factors(adata.X, 3, **options).result
    same(sized.varm["nmf"], plain.H.T, 1e-3)  # W takes up the sizes
    same(sized.obsm["X_nmf"] * sizes, plain.W, 1e-2)

    in_batches(adata)
    scverse.consensus(adata, 3, batch_key="machine", mask_var="variable", **options)
    genes = adata.var["variable"].to_numpy()
    found = nmf_xp.consensus_factors(adata.X[:, genes], 3, batch=adata.obs["machine"], **options).result
    assert found.batch_effects is not None
    same(adata.varm["nmf_batch_effects"][genes], np.stack(list(found.batch_effects.values()), axis=1))
    best = nmf_xp.nmf(adata.X[:, genes], 3, batch=adata.obs["machine"], n_restarts=6, **OPTIONS)
    assert best.divergence <= found.divergence < 1.01 * best.divergence
    new = adata[:20].copy()
    del new.varm["nmf_batch_effects"]
    scverse.project(new, adata)  # by the column of the reference
    same(new.obsm["X_nmf"], adata.obsm["X_nmf"][:20], 1e-2)
    both = scverse.consensus(adata, 3, size_key="size", batch_key="machine", copy=True, **options)
    found = nmf_xp.consensus_factors(adata.X, 3, exposure=sizes, batch=adata.obs["machine"], **options).result
    same(both.obsm["X_nmf"], found.W)


def test_new_cells_take_known_effects_by_label_and_gene(adata: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tol": 1e-10, "max_iter": 5000}
    in_batches(adata)
    scverse.nmf(adata, 3, batch_key="machine", mask_var="variable", **options, **OPTIONS)
    adata.write_h5ad(tmp_path / "a.h5ad")
    reference = anndata.read_h5ad(tmp_path / "a.h5ad")
    genes = adata.var["variable"].to_numpy()
    known: dict[Any, Any] = dict(zip(["new", "old"], adata.varm["nmf_batch_effects"][genes].T, strict=True))
    components, V = np.ascontiguousarray(adata.varm["nmf"][genes].T), adata.X[:60][:, genes]

    new = adata[:60, ::-1].copy()  # genes in another order
    del new.varm["nmf_batch_effects"], new.uns["nmf"]
    scverse.project(new, reference, **options)  # by the column of the reference
    expected = nmf_xp.transform(V, components, beta_loss=1, batch=new.obs["machine"], batch_effects=known, **options)
    same(new.obsm["X_nmf"], expected.W, 1e-6)
    same(new.varm["nmf_batch_effects"], adata.varm["nmf_batch_effects"][::-1], 1e-12)
    same(new.obsm["X_nmf"], adata.obsm["X_nmf"][:60], 1e-2)

    new.obs["lane"] = ["old"] * 30 + ["third"] * 30  # one that is known, and one that is not
    scverse.project(new, reference, batch_key="lane", **options)
    expected = nmf_xp.transform(V, components, beta_loss=1, batch=new.obs["lane"], batch_effects=known, **options)
    assert expected.batch_effects is not None
    same(new.obsm["X_nmf"], expected.W, 1e-4)
    assert list(new.uns["nmf"]["batch_labels"]) == ["old", "third"]
    effects = new.varm["nmf_batch_effects"][::-1][genes]
    same(effects[:, 0], known["old"])
    same(effects[:, 1], expected.batch_effects["third"], 1e-4)

    few = adata[:60, 20:].copy()
    with pytest.warns(UserWarning, match="unobserved"):
        scverse.project(few, reference)
    same(few.varm["nmf_batch_effects"], adata.varm["nmf_batch_effects"][20:])


def test_sizes_go_into_the_loadings_beside_batches_too(adata: Any) -> None:
    in_batches(adata)
    options: dict[str, Any] = {"tol": 1e-10, "max_iter": 5000, **OPTIONS}
    scverse.nmf(adata, 2, batch_key="machine", size_key="size", **options)
    sizes = adata.obs["size"].to_numpy()[:, None]
    expected: Any = nmf_xp.nmf(adata.X, 2, batch=adata.obs["machine"], exposure=sizes, **options)
    same(adata.obsm["X_nmf"], expected.W)
    plain: Any = nmf_xp.nmf(adata.X, 2, batch=adata.obs["machine"], **options)
    assert expected.divergence == pytest.approx(plain.divergence, rel=0.02)  # another minimum, perhaps
    scverse.project(adata[:60].copy(), adata)


def test_numbers_are_labels_too_and_come_as_text(adata: Any, tmp_path: Path) -> None:
    in_batches(adata)
    adata.obs["run"] = np.where(adata.obs["machine"] == "new", 2, 10)
    scverse.nmf(adata, 2, batch_key="run", **OPTIONS)
    assert list(adata.uns["nmf"]["batch_labels"]) == ["10", "2"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    new = adata[:30].copy()
    scverse.project(new, anndata.read_h5ad(tmp_path / "a.h5ad"))
    genes = adata.varm["nmf"].any(axis=1)
    same(new.varm["nmf_batch_effects"][genes], adata.varm["nmf_batch_effects"][genes])


def test_batches_that_are_none_and_cells_in_a_file(adata: Any, tmp_path: Path) -> None:
    in_batches(adata)
    gaps = adata.obs["machine"].astype(object)
    gaps.iloc[[3, 7]] = np.nan
    adata.obs["gaps"] = gaps
    adata.obs["\x1b[2J"] = gaps
    calls: dict[str, dict[str, Any]] = {
        "`batch_key` must be a column of `adata.obs`, which are 'size', 'machine'": {"batch_key": "lane"},
        "`batch_key` must be a column": {"batch_key": ["machine"]},
        r"and 2 have none in `adata.obs\['gaps'\]`; leave them out": {"batch_key": "gaps"},
        r"have none in `adata.obs\['\\x1b\[2J'\]`": {"batch_key": "\x1b[2J"},
        "`batch_key` needs `beta_loss='kullback-leibler'`": {"batch_key": "machine", "beta_loss": "frobenius"},
    }
    for said, options in calls.items():
        with pytest.raises(ValueError, match=said):
            scverse.nmf(adata, 2, **{**OPTIONS, **options})
    with pytest.raises(ValueError, match="`batch_prior` must come with `batch_key`"):
        scverse.nmf(adata, 2, batch_prior=1.0, **OPTIONS)
    del adata.obs["gaps"], adata.obs["\x1b[2J"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    scverse.nmf(backed, 2, batch_key="machine", **OPTIONS)
    expected = adata.copy()
    scverse.nmf(expected, 2, batch_key="machine", solver="mm", **OPTIONS)
    same(backed.obsm["X_nmf"], expected.obsm["X_nmf"], 1e-9)
    same(backed.varm["nmf_batch_effects"], expected.varm["nmf_batch_effects"], 1e-9)
    backed.file.close()
    assert not set(adata.obsm) | set(adata.varm) | set(adata.uns)


def test_a_reference_whose_effects_are_not_those_of_its_labels(adata: Any) -> None:
    scverse.nmf(in_batches(adata), 2, batch_key="machine", **OPTIONS)
    new = adata.copy()
    adata.varm["nmf_batch_effects"] = adata.varm["nmf_batch_effects"][:, :1]
    for labels in (["new", "old"], ["new", "new"], "new"):
        adata.uns["nmf"]["batch_labels"] = labels
        if labels == ["new", "new"]:
            adata.varm["nmf_batch_effects"] = new.varm["nmf_batch_effects"]
        with pytest.raises(ValueError, match="with a column for each label"):
            scverse.project(new, adata)
    del adata.varm["nmf_batch_effects"]
    with pytest.raises(ValueError, match="with a column for each label"):
        scverse.project(new, adata)
    del new.obs["machine"]
    with pytest.raises(ValueError, match=r"`batch_key` must be a column of `adata.obs`"):
        scverse.project(new, adata)


BAD: dict[str, tuple[Any, str]] = {
    "an array": (lambda a: scverse.nmf(a.X, 3), "must be AnnData, got csr_matrix"),
    "no such layer": (lambda a: scverse.nmf(a, 3, layer="c"), "must be one of the layers of `adata`, which are none"),
    "too many components": (lambda a: scverse.nmf(a, 300), r"`n_components` must be an integer from 1 to m \+ n = 210"),
    "scaled": (lambda _: scverse.nmf(scaled(), 3), r"`adata.X` must be non-negative.*pass `layer=...` that holds them"),
    "no such mask": (lambda a: scverse.nmf(a, 3, mask_var="x"), "`mask_var` must be a column of `adata.var`"),
    "no mask": (lambda a: scverse.nmf(a, 3, mask_var=np.arange(90)), "must be 90 booleans"),
    "a short mask": (lambda a: scverse.nmf(a, 3, mask_var=np.ones(3, bool)), r"must be 90 booleans.*of shape \(3,\)"),
    "an empty mask": (lambda a: scverse.nmf(a, 3, mask_var=np.zeros(90, bool)), "true for some of the genes"),
    "no such size": (lambda a: scverse.nmf(a, 3, size_key="x"), "`size_key` must be a column of `adata.obs`"),
    "no key": (lambda a: scverse.nmf(a, 3, key_added=""), "`key_added` must be text"),
    "another word": (lambda a: scverse.nmf(a, 3, seed=1), "calls it `random_state`, got `seed`"),
    "no reference": (lambda a: scverse.project(a, a), r"must have varm\['nmf'\]"),
    "one rank": (lambda a: scverse.select_rank(a, [2]), "at least two different ranks"),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_what_cannot_be_is_one_error_and_nothing_is_written(adata: Any, kind: str) -> None:
    call, said = BAD[kind]
    with pytest.raises((TypeError, ValueError), match=said):
        call(adata)
    assert not set(adata.obsm) | set(adata.varm) | set(adata.uns)


def test_sizes_that_are_none(adata: Any) -> None:
    adata.obs["zero"], adata.obs["text"] = adata.obs["size"] * 0, ["a"] * 120
    for key in ("zero", "text"):
        with pytest.raises(ValueError, match="positive numbers, one for each cell"):
            scverse.nmf(adata, 2, size_key=key)


def test_names_that_do_not_tell_genes_apart(adata: Any) -> None:
    scverse.nmf(adata, 2, **OPTIONS)
    strange = adata[:, :5].copy()
    strange.var_names = [f"none{j}" for j in range(5)]
    with pytest.raises(ValueError, match="got none of them"):
        scverse.project(strange, adata)
    strange.var_names = list("aabcd")
    with pytest.raises(ValueError, match="got 'a' twice"):
        scverse.project(strange, adata)


def test_names_obey_no_terminal(adata: Any) -> None:
    adata.var_names = ["\x1b[2Ja", "\u202eb", *adata.var_names[2:]]
    scverse.nmf(adata, 2, **OPTIONS)
    with pytest.warns(UserWarning, match="unobserved") as said:
        scverse.project(adata[:, 2:].copy(), adata)
    text = str(said[0].message)
    assert r"\x1b[2Ja, \u202eb" in text
    assert text.isprintable()
    twice = adata.copy()
    twice.var_names = ["\x1b[2Ja", "\x1b[2Ja", *adata.var_names[2:]]
    with pytest.raises(ValueError, match="twice") as error:
        scverse.project(twice, adata)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("kind", ["column", "row"])
def test_dispersions_of_genes_stay_with_the_genes(adata: Any, kind: str, tmp_path: Path) -> None:
    """In whatever order a later AnnData has them; those of cells are found anew."""
    rng = np.random.default_rng(0)
    means = 5 * rng.gamma(0.5, size=(adata.n_obs, 3)) @ rng.gamma(0.5, size=(3, adata.n_vars))
    adata.X = rng.poisson(means * rng.gamma(2.0, 0.5, size=means.shape)).astype(float)
    taken = np.arange(adata.n_vars) % 5 > 0
    loss = nmf_xp.NegativeBinomial(kind)
    scverse.nmf(adata, 3, mask_var=taken, beta_loss=loss, random_state=0)
    fitted: Any = nmf_xp.nmf(adata.X[:, taken], 3, beta_loss=loss, random_state=0)
    adata.write(tmp_path / "fit.h5ad")
    reference, new = anndata.read_h5ad(tmp_path / "fit.h5ad"), adata[:20, ::-1].copy()
    if kind == "column":
        same(reference.varm["nmf_dispersion"][taken, 0], fitted.noise.dispersion[0], 1e-12)
        assert set(reference.varm["nmf_dispersion"][~taken, 0]) == {1e-6}
    scverse.project(new, reference)
    same(new.obsm["X_nmf"], nmf_xp.transform(adata.X[:20][:, taken], fitted).W, 1e-6)
    assert ("nmf_dispersion" in new.varm) == (kind == "column")
    if kind == "column":
        del reference.varm["nmf_dispersion"]
        with pytest.raises(ValueError, match="nmf_dispersion"):
            scverse.project(new, reference)


@pytest.mark.parametrize("loss", [nmf_xp.NegativeBinomial(0.25), nmf_xp.NegativeBinomial(), nmf_xp.Robust("frobenius")])
def test_new_cells_are_projected_by_the_loss_of_the_reference(adata: Any, loss: Any, tmp_path: Path) -> None:
    adata.X = dense(adata.X).astype(float)
    scverse.nmf(adata, 3, beta_loss=loss, random_state=0)
    adata.write(tmp_path / "fit.h5ad")
    reference, new = anndata.read_h5ad(tmp_path / "fit.h5ad"), adata[:20].copy()
    scverse.project(new, reference)
    fitted: Any = nmf_xp.nmf(adata.X, 3, beta_loss=loss, random_state=0)
    same(new.obsm["X_nmf"], nmf_xp.transform(adata.X[:20], fitted).W, 1e-9)
