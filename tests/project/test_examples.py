"""The examples run and show what they say; the classic mistake beside the first is caught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp import beta_divergence, update_h, update_w
from tests.scripts import load

if TYPE_CHECKING:
    from pathlib import Path


def largest_rise(divergences: list[float]) -> float:
    """The monotone check: the largest relative rise from one iteration to the next."""
    d = np.asarray(divergences)
    return float(np.max(np.diff(d) / d[:-1]))


@pytest.mark.parametrize("library", ["numpy", "jax", "torch"])
def test_lee_seung_kl_falls_on_every_array_type(library: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    divergences = load("examples/lee_seung_kl.py").main(library)
    assert largest_rise(divergences) <= 0
    assert divergences[-1] < 0.01 * divergences[0]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 51
    assert lines[-1].startswith("iteration  50")


def test_the_stale_product_alternates_and_the_monotone_check_catches_it() -> None:
    """The classic mistake: W is updated with the WH from before H's update."""
    V, W, H = load("examples/lee_seung_kl.py").problem()

    def divergence(W: Any, H: Any) -> float:
        return float(beta_divergence(V, W, H, beta_loss="kullback-leibler"))

    stale, fresh = [divergence(W, H)], [divergence(W, H)]
    W1: Any = W
    H1: Any = H
    W2, H2 = W1, H1
    for _ in range(20):
        quotient = V / (W1 @ H1)
        H1 = H1 * (W1.T @ quotient) / W1.sum(axis=0)[:, None]
        W1 = W1 * (quotient @ H1.T) / H1.sum(axis=1)  # the quotient is one half-step old
        stale.append(divergence(W1, H1))
        H2 = update_h(V, W2, H2, beta_loss="kullback-leibler")
        W2 = update_w(V, W2, H2, beta_loss="kullback-leibler")
        fresh.append(divergence(W2, H2))
    signs = np.sign(np.diff(stale))
    assert np.count_nonzero(signs[1:] != signs[:-1]) >= 10, "it goes up and down, again and again"
    assert largest_rise(stale) > 0.1
    assert largest_rise(fresh) <= 0


def test_frobenius_overcomplete_fits_to_many_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = tmp_path / "error.png"
    errors = load("examples/frobenius_overcomplete.py").main(str(path))
    assert largest_rise(errors) <= 0
    assert errors[-1] < 1e-3 * errors[0]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "iteration     0" in capsys.readouterr().out


def test_leukemia_groups_are_those_of_the_doctors_but_for_a_few(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few restarts; of 38 samples the guess of the most frequent kind would misplace 11 at rank 2 and 19 at rank 3."""
    for library in ("matplotlib", "nimfa", "scipy"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    example, path = load("examples/leukemia.py"), tmp_path / "leukemia.png"
    selection = example.main(str(path), n_restarts=6)
    _, names = example.data()
    assert len(names) == 38
    for rank in (2, 3):
        labels = example.groups(selection.consensus[rank], rank)
        assert len(set(labels.tolist())) == rank
        assert len(example.misplaced(labels, names, rank)) <= 4
    assert example.misplaced(np.zeros(38, dtype=int), names, 2) == [name for name in names if name.startswith("AML")]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "cophenetic" in capsys.readouterr().out


def test_cells_in_lanes_are_told_from_the_lanes(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scanpy", reason="scanpy, which ships the cells, is not installed")
    load("examples/cells_in_lanes.py").main()
    cosines = [
        np.asarray(line.partition("[")[2].rstrip("]").split(), dtype=float)
        for line in capsys.readouterr().out.splitlines()[1:]
    ]
    assert cosines[0].min() < 0.8
    assert cosines[1].min() > 0.95
