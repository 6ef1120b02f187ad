"""The benchmarks measure what they say, on matrices so small that the figures mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse

from benchmarks import (
    drop_in,
    figure,
    fixed_cost,
    memory,
    ours,
    per_iteration,
    results,
    run,
    scikit_learn,
    tables,
    time_to_divergence,
)
from benchmarks.competitors import OTHERS, PLAIN, SKLEARN_CD, SKLEARN_MU, Side
from benchmarks.datasets import Dataset
from benchmarks.protocol import LOSSES, NOT_INSTALLED, SKLEARN_EPSILON, divergence, interleaved, start

if TYPE_CHECKING:
    from pathlib import Path

# What the other libraries warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

KL, FROBENIUS = LOSSES
CASES = [pytest.param(x, loss, id=f"{x.name}-{loss}") for x in OTHERS for loss in x.losses]
# The same algorithm as the plain loop, and how it deviates: an epsilon of float32's size, and the order of updates.
SAME = {"scikit-learn mu": 1e-9, "nmf-torch mu": 1e-9, "tensorly mu": 1e-9, "torchnmf": 1e-4}


def counts() -> Any:
    return np.random.default_rng(0).poisson(4.0, size=(30, 20)).astype(np.float64)


def with_csr(V: Any) -> Any:
    return scipy.sparse.csr_array(V)


def ran(side: Side, V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:
    pytest.importorskip(side.module, reason=f"{side.package} is not installed")
    return tuple(np.asarray(x) for x in side.start(V, W, H, iterations, loss)())  # type: ignore[return-value]


@pytest.mark.parametrize(("side", "loss"), CASES)
def test_a_library_runs_from_the_start_and_leaves_it_alone(side: Side, loss: str) -> None:
    V = counts()
    W, H = start(V, 3, seed=0)
    before = W.copy(), H.copy()
    found = ran(side, V, W, H, 12, loss)
    np.testing.assert_array_equal(W, before[0])
    np.testing.assert_array_equal(H, before[1])
    assert divergence(V, *found, loss) < divergence(V, W, H, loss)
    if side.name == "torchnmf":  # it updates H first: the plain loop on the transposed problem
        H_T, W_T = PLAIN.start(V.T, H.T, W.T, 12, loss)()
        np.testing.assert_allclose(found[0] @ found[1], W_T.T @ H_T.T, rtol=SAME[side.name])
    elif side.name in SAME:
        W_plain, H_plain = PLAIN.start(V, W, H, 12, loss)()
        np.testing.assert_allclose(found[0], W_plain, rtol=SAME[side.name])
        np.testing.assert_allclose(found[1], H_plain, rtol=SAME[side.name])


@pytest.mark.parametrize(("side", "loss"), CASES)
def test_a_library_has_no_memory_so_that_it_can_be_continued(side: Side, loss: str) -> None:
    V = counts()
    W, H = start(V, 3, seed=1)
    at_once = ran(side, V, W, H, 7, loss)
    W, H = (np.ascontiguousarray(x) for x in ran(side, V, W, H, 4, loss))
    in_parts = ran(side, V, W, H, 3, loss)
    # Rounding only; a loss that halts inner sweeps by a tolerance sees the same numbers.
    np.testing.assert_allclose(in_parts[0] @ in_parts[1], at_once[0] @ at_once[1], rtol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["scikit-learn mu", "plain NumPy loop", "torchnmf"])
def test_sparse_data_give_what_dense_data_give(name: str, loss: str) -> None:
    (side,) = (x for x in OTHERS if x.name == name)
    V = counts()
    W, H = start(V, 3, seed=0)
    dense, sparse = ran(side, V, W, H, 5, loss), ran(side, with_csr(V), W, H, 5, loss)
    np.testing.assert_allclose(sparse[0], dense[0], rtol=1e-4)  # torchnmf's epsilon enters elsewhere


def test_dead_rows_and_columns_are_no_nan_in_the_plain_loop() -> None:
    V = counts()
    V[:, 3] = V[4, :] = 0
    for loss in LOSSES:
        for data in (V, with_csr(V)):
            W, H = PLAIN.start(data, *start(V, 3, seed=0), 50, loss)()
            assert np.isfinite(divergence(V, W, H, loss))


@pytest.mark.parametrize("loss", LOSSES)
def test_our_multiplicative_updates_are_those_of_the_plain_loop(loss: str) -> None:
    V = counts()
    W, H = start(V, 3, seed=0)
    mu, plain = ours.side("mu").start(V, W, H, 10, loss)(), PLAIN.start(V, W, H, 10, loss)()
    np.testing.assert_allclose(mu[0] @ mu[1], plain[0] @ plain[1], rtol=1e-9)


def test_a_solver_is_asked_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(ours.takes(solver, loss, sparse=True) for solver in ("auto", "mu") for loss in LOSSES)

    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError

    ours.takes.cache_clear()
    monkeypatch.setattr(ours, "nmf", refuse)
    assert not ours.takes("mu", KL, sparse=False)
    ours.takes.cache_clear()


def test_a_model_of_zero_is_raised_to_the_epsilon_of_scikit_learn() -> None:
    V, W, H = np.asarray([[1.0, 2.0]]), np.asarray([[1.0]]), np.asarray([[0.0, 2.0]])
    assert divergence(V, W, H, KL) == pytest.approx(-np.log(SKLEARN_EPSILON) - 3 + 2 + SKLEARN_EPSILON)
    assert divergence(with_csr(V), W, H, KL) == divergence(V, W, H, KL)


def test_jobs_take_turns_until_they_fail_or_have_spent_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    order: list[str] = []

    def job(name: str, seconds: float) -> Any:
        def run_it() -> str:
            nonlocal clock
            clock += seconds
            order.append(name)
            if name == "fails":
                raise ArithmeticError(name)
            return name

        return run_it

    monkeypatch.setattr("time.perf_counter", lambda: clock)
    jobs = {name: job(name, seconds) for name, seconds in (("fast", 1.0), ("fails", 1.0), ("slow", 6.0))}
    found = interleaved(jobs, rounds=3, budget=10.0)
    assert order == ["fast", "fails", "slow", "fast", "fast"]
    assert (found["fast"].median, found["fast"].output) == (1.0, "fast")
    assert found["fails"].error == "ArithmeticError: fails"
    assert found["slow"].seconds == (6.0,)


def still(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:
    return W, H


def nowhere(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:
    return W * np.nan, H


def broken(V: Any, W: Any, H: Any, iterations: int, loss: str) -> tuple[Any, Any]:
    msg = "out of order"
    raise RuntimeError(msg)


def measured(loss: str, *, sparse: bool = False) -> list[dict[str, Any]]:
    """All that can happen in this view, in no time."""
    pytest.importorskip("sklearn", reason="scikit-learn, the reference, is not installed")
    others = [
        PLAIN,
        Side("still", "numpy", "numpy", still, most_gathered=1e9),
        Side("nowhere", "numpy", "numpy", nowhere, most_gathered=1e9),
        Side("broken", "numpy", "numpy", broken, most_gathered=1e9),
        Side("absent", "no_such_package", "no_such_package", still),
    ]
    return list(
        time_to_divergence.measure(
            "tiny", Dataset(counts, 3), loss, 0,
            sparse=sparse, solvers=["auto", "mu"], rounds=2, budget=1.0, targets=(3, 6), others=others,
        )
    )  # fmt: skip


def by_side(rows: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["side"], row["target"]): row for row in rows}


@pytest.mark.parametrize("sparse", [False, True])
def test_time_to_a_divergence_counts_iterations_and_shows_failures(sparse: bool) -> None:
    rows = measured(KL, sparse=sparse)
    found = by_side(rows)
    for target in (3, 6):  # scikit-learn, the plain loop and ours are on one trajectory
        for side in ("nmf_xp mu", "plain NumPy loop"):
            # A call of microseconds may be ten times slower, and is then a failure that has its number of iterations.
            assert found[side, target]["iterations"] == target, found[side, target]
        assert found["still", target]["error"] == time_to_divergence.OUT_OF_BOUNDS
        assert found["nowhere", target]["error"] == "FloatingPointError: not a number"
        assert found["broken", target]["error"] == "RuntimeError: out of order"
        assert found["absent", target]["error"] == NOT_INSTALLED
        assert "times_faster" not in found["still", target]
    assert found["nmf_xp auto", 3]["solver"] in ours.solvers()


def test_a_target_that_multiplicative_updates_cannot_reach_is_a_failure() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, the reference, is not installed")
    search = time_to_divergence.Search({3: 0.0}, seconds=60.0)
    V = counts()
    time_to_divergence.search_ours(search, "mu", V, *start(V, 3, seed=0), KL)
    assert search.iterations == {}
    assert search.over(15)
    assert not search.over(14)


def test_a_changed_import_is_timed_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, the reference, is not installed")
    monkeypatch.setitem(drop_in.DATA, "small", drop_in.Case(counts, 3, 20))
    monkeypatch.setitem(drop_in.DATA, "stored", drop_in.Case(lambda: with_csr(counts()), 3, 20))
    lines = list(drop_in.table(["small", "stored"], list(drop_in.WAYS), rounds=1))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-1]]
    refused = [way for way, (fit, _) in drop_in.WAYS.items() if drop_in.FITS[fit][1].get("beta_loss") == 0]
    assert len(rows) == 2 * len(drop_in.WAYS) - len(refused)  # a zero that is not stored has no such divergence
    fits = [row for row in rows if row[2]]
    assert all(len(set(row[2].split(" / "))) == 1 for row in fits if "penalties" not in row[1])
    assert all(abs(float(row[6])) < 1e-6 for row in fits if row[1].startswith("cd"))
    assert f"of {len(rows)} rows" in lines[-1]


def test_the_targets_are_those_of_one_run_of_scikit_learn() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, the reference, is not installed")
    V = counts()
    W, H = start(V, 3, seed=0)
    for side, loss in ((SKLEARN_MU, KL), (SKLEARN_CD, FROBENIUS)):
        found = time_to_divergence.reference_run(side, V, W, H, loss, (5, 20)).targets
        for target, value in found.items():
            assert value == pytest.approx(divergence(V, *side.start(V, W, H, target, loss)(), loss), rel=1e-9)


def test_time_of_an_iteration_has_a_row_for_every_side() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, the reference, is not installed")
    options: dict[str, Any] = {"solvers": ["mu"], "backends": ["numpy"], "rounds": 1, "budget": 60.0, "seconds": 1e-4}
    rows = list(per_iteration.measure("tiny", Dataset(counts, 3), KL, **options))
    found = {row["side"]: row for row in rows}
    assert set(found) == {x.name for x in OTHERS if KL in x.losses} | {"nmf_xp mu"} | {
        x.name for x in per_iteration.LIMITS
    }
    mu = found["nmf_xp mu"]
    assert mu["iterations"] == per_iteration.LEAST
    assert mu["relative"]["scikit-learn mu"] == pytest.approx(mu["seconds"] / found["scikit-learn mu"]["seconds"])
    assert set(mu["relative"]) == {"scikit-learn mu", per_iteration.PRODUCTS, per_iteration.READ}
    assert "four matrix products" in tables.per_iteration(rows)


def test_small_calls_are_compared_with_the_plain_loop() -> None:
    rows = [row for row in fixed_cost.measure(solvers=["mu"], repeats=2, members=40) if "error" not in row]
    assert {row["ratio"] for row in rows if row["side"] in (PLAIN.name, fixed_cost.BARE)} == {1.0}
    assert {row["loss"] for row in rows if row["side"] == "nmf_xp mu"} == set(LOSSES)
    shown = tables.fixed(rows)
    assert "ms a call" in shown
    assert {row["side"] for row in rows if row["data"].startswith("40 of")} == {"mu, stack", "mu, loop"}
    assert "ms a member" in shown


def test_memory_counts_temporaries_of_the_size_of_v() -> None:
    V = np.random.default_rng(0).poisson(3.0, size=(700, 700)).astype(np.float64)
    assert memory.extra(PLAIN, V, "traced") > 1.5  # the model and the quotient
    assert memory.extra(Side("still", "numpy", "numpy", still), V, "traced") < 0.1


def test_results_are_read_as_they_were_written_and_the_last_one_counts(tmp_path: Path) -> None:
    rows = measured(KL)
    first = results.results(results.describe(0.1), rows)
    results.write(first, tmp_path / "first.json")
    assert results.read(tmp_path / "first.json") == first
    again = {**rows[0], "seconds": 42.0}
    second = results.results(results.describe(None), [again])
    both = results.merged([first, second])
    assert len(both["rows"]) == len(rows)
    assert [row for row in both["rows"] if row["run"] == 1] == [{**again, "run": 1}]
    assert len(both["runs"]) == 2
    assert results.merged([first, first])["runs"] == [first["runs"][0]]


def test_a_file_is_shown_without_running_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    found = results.results(results.describe(0.1), measured(KL) + measured(KL, sparse=True))
    results.write(found, tmp_path / "a.json")
    run.main(["--render", str(tmp_path / "a.json"), "--output", str(tmp_path / "shown")])
    shown = {path.name for path in (tmp_path / "shown").iterdir()}
    assert shown == {
        "machine.md", "per-iteration.md", "time-to.md", "time-to-cases.md", "fixed.md", "memory.md", "figure.md",
        "time-to.png", "results.json",
    }  # fmt: skip
    assert "| still" in capsys.readouterr().out
    assert results.read(tmp_path / "shown" / "results.json") == found


def row(side: str, seed: int, **outcome: Any) -> dict[str, Any]:
    common = {
        "view": "time-to",
        "loss": KL,
        "data": "tiny",
        "input": "dense",
        "reference": SKLEARN_MU.name,
        "target": 9,
    }
    return {**common, "side": side, "seed": seed, **outcome}


def test_means_are_geometric_and_a_failure_is_the_worst_case() -> None:
    rows = [
        row("a", 0, times_faster=1.0, solver="mu"),
        row("a", 1, times_faster=4.0, solver="mu"),
        row("b", 0, times_faster=8.0),
        row("b", 1, error=time_to_divergence.OUT_OF_BOUNDS),
        row("c", 0, error=NOT_INSTALLED),
    ]
    cells = [[x.strip() for x in line.split("|")[1:-1]] for line in tables.time_to(rows).splitlines() if "|" in line]
    assert cells[2:] == [
        ["a", "2", "2", "1: tiny, seed 0, to 9", "0 of 2"],
        ["b", "8", "8", "failed: tiny, seed 1, to 9", "1 of 2"],
        ["c", NOT_INSTALLED, NOT_INSTALLED, "", "1 of 1"],
    ]
    assert "2 (1 to 4)" in tables.cases(rows)
    assert "8, 1 of 2 failed" in tables.cases(rows)


def test_nothing_to_draw_is_no_plot(tmp_path: Path) -> None:
    rows = [row("c", 0, error=NOT_INSTALLED)]
    assert not figure.draw({"runs": [], "rows": rows}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_estimators_are_compared_with_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"few": Dataset(counts, 10), "sparse": Dataset(lambda: scipy.sparse.csr_array(counts()), 10, sparse=True)}
    monkeypatch.setattr(scikit_learn, "REAL", few)
    rows = [line.split("|")[1:-1] for line in scikit_learn.equal(list(few), 3)][2:]
    assert len(rows) == 2 * 2 * 5
    assert all(float(row[4]) < 1e-10 and float(row[5]) < 1e-10 for row in rows)
    rows = [line.split("|")[1:-1] for line in scikit_learn.cost(list(few), 1)][2:]
    assert len(rows) == 2 * 2 * 5
    assert all(float(row[5]) > 0 for row in rows)
    assert "scikit-learn" in scikit_learn.machine()
