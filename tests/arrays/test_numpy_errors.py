"""NumPy's error handling: no warning reaches a user, and it is as it was after every call, whatever ended that."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import nmf_xp
from nmf_xp import RowBlocks, cli, online
from nmf_xp.arrays import libraries, precision, threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

V = np.random.default_rng(0).random((30, 20)) + 0.1
W, H = np.ones((30, 3)), np.ones((3, 20))
STATE: dict[str, Any] = {"divide": "print", "over": "warn", "under": "raise", "invalid": "call"}


def handler(*_: Any) -> None:
    """A function of the user's for NumPy's errors."""


def calls() -> dict[str, Callable[[], Any]]:
    state = online.online_start(H)
    stacks = np.stack([W, W]), np.stack([H, H])
    return {
        "nmf": lambda: nmf_xp.nmf(V, 3, random_state=0),
        "a start of singular vectors": lambda: nmf_xp.nmf(V, 3, init="nndsvda"),
        "blocks": lambda: nmf_xp.nmf(RowBlocks([V]), 3, random_state=0),
        "transform": lambda: nmf_xp.transform(V, H),
        "a divergence": lambda: nmf_xp.beta_divergence(V, W, H),
        "an update of W": lambda: nmf_xp.update_w(V, W, H),
        "an update of H": lambda: nmf_xp.update_h(V, W, H),
        "a stack": lambda: nmf_xp.nmf(V, 3, init=stacks),
        "an online step": lambda: online.online_step(state, V),
        "ranks": lambda: nmf_xp.select_rank(V, [1, 2], n_restarts=2, random_state=0),
        "merged factors": lambda: nmf_xp.consensus_factors(V, 2, n_restarts=4, random_state=0),
    }


@pytest.fixture
def users() -> Iterator[Any]:
    """NumPy's error handling as a user has it."""
    before, function = np.geterr(), np.geterrcall()
    np.seterr(**STATE)
    np.seterrcall(handler)
    yield
    np.seterr(**before)
    np.seterrcall(function)


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("name", calls())
@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_it_is_as_it_was_after_every_call(
    name: str, error: type[BaseException] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where NumPy's own `errstate` was interrupted before it undid its changes."""
    call, found = calls()[name], libraries.array_namespace

    def changed(*args: Any) -> Any:
        np.seterr(all="ignore", invalid="call")
        np.seterrcall(lambda *_: None)
        if error is not None:
            raise error
        return found(*args)

    monkeypatch.setattr(libraries, "array_namespace", changed)
    with pytest.raises(error) if error is not None else contextlib.nullcontext():
        call()
    assert (np.geterr(), np.geterrcall()) == (STATE, handler)


def test_a_start_that_is_interrupted_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    before, function = np.geterr(), np.geterrcall()

    def interrupted(*_: Any, **__: Any) -> Any:
        np.seterr(all="ignore", invalid="call")
        np.seterrcall(handler)
        raise KeyboardInterrupt

    monkeypatch.setattr(np.linalg, "qr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nmf_xp.nmf(V, 3, init="nndsvd")
    assert (np.geterr(), np.geterrcall()) == (before, function)


@pytest.mark.usefixtures("users")
def test_a_callback_has_it_as_the_user_does() -> None:
    seen: list[Any] = []

    def look(*_: Any) -> None:
        seen.append((np.geterr(), np.geterrcall()))
        nmf_xp.nmf(V, 2, random_state=0, max_iter=1)

    nmf_xp.nmf(V, 3, random_state=0, callback=look, max_iter=20)
    online.online_nmf(V, W, online.online_start(H), max_iter=1, callback=look)
    assert len(seen) > 2
    assert seen == [(STATE, handler)] * len(seen)


def test_helping_threads_are_as_quiet() -> None:
    seen: list[Any] = []
    threads.start_helper(lambda: seen.append(np.geterr())).wait(10)
    with precision.own_errors():
        seen.append(np.geterr())
    assert seen == [dict.fromkeys(STATE, "ignore")] * 2


@pytest.mark.parametrize("beta", [-300, -1, 0, 0.5, 1, 1.5, 2, 3, 300])
@pytest.mark.parametrize("what", ["least", "span"])
def test_no_warning_of_numpys_reaches_the_user(
    beta: float, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    span = 10.0 ** np.random.default_rng(0).uniform(-300, 300, (8, 6))
    np.save("V.npy", np.full((8, 6), 5e-324) if what == "least" else span)
    for command in (
        ["fit", "V.npy", "-k", "2", "--beta-loss", str(beta), "--max-iter", "30"],
        ["report", "V.factors.npz"],
    ):
        assert cli.main(command) == 0
        assert "warning" not in capsys.readouterr().err
