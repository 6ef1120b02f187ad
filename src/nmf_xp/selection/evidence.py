"""What is known of one rank, which depends on no other rank, and how it is kept on the disk.

The file is one of `nmf_xp.run.checkpoint`: whole or not there, the last two kept, and refused where V or an option
differs.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import nmf_xp
from nmf_xp.arrays import libraries, operators, transfer
from nmf_xp.factorization import nmf
from nmf_xp.problem.overdispersed import NegativeBinomial
from nmf_xp.result import Result, Status
from nmf_xp.result.storing import losses_of
from nmf_xp.run.checkpoint import CheckpointError, identity
from nmf_xp.run.checkpoint.place import Place
from nmf_xp.run.checkpoint.storage import Stored
from nmf_xp.selection.consensus import consensus_matrix, cophenetic_correlation, dispersion
from nmf_xp.selection.stability import stability

if TYPE_CHECKING:
    import os
    from types import TracebackType

    import numpy as np

    from nmf_xp.arrays.typing import Array
    from nmf_xp.problem.posing import Posed
    from nmf_xp.selection.held_out import Losses

    Matrix = np.ndarray[Any, Any]

COLUMNS = ("rank", "divergence", "cophenetic", "dispersion", "matched", "amari")
NUMBERS = ("divergence", "objective", "kkt_residual", "n_iter", "solver", "beta")


class Evidence(NamedTuple):
    """What several restarts of one rank show."""

    best: Result
    row: dict[str, float]  # of the table
    consensus: Matrix
    loss: Matrix  # on what was held out, one number a fold; none without cross-validation


def gather(
    V: Array,
    rank: int,
    *,
    n_restarts: int,
    options: dict[str, Any],
    losses: Losses | None,
    seed: int,
) -> Evidence:
    """Factorize V from several starts, and parts of it where that is asked for; `options` are those of `nmf`."""
    import numpy as np

    rng = np.random.default_rng([seed, 2, rank])
    best = nmf(V, rank, n_restarts=n_restarts, keep_restarts=True, random_state=rng, **options)
    assert best.restarts is not None
    W, H = best.restarts.W, best.restarts.H
    xp = libraries.array_namespace(W)
    loadings = H * operators.transposed(xp.sum(W, axis=-2, keepdims=True))
    consensus = consensus_matrix(transfer.to_host(xp.argmax(loadings, axis=-2)))
    agreement = stability(W, H, xp=xp)
    row = {
        "rank": rank,
        "divergence": best.divergence,
        "cophenetic": cophenetic_correlation(consensus),
        "dispersion": dispersion(consensus),
        "matched": agreement.matched,
        "amari": agreement.amari,
    }
    best = dataclasses.replace(best, restarts=None)._remember(best._seen)
    return Evidence(best, row, consensus, np.empty(0) if losses is None else losses(rank))


class Kept:
    """The evidence of the ranks that are finished, on the disk where a path is given, within a `with` statement."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        """Only the path is looked at."""
        self.seed = 0
        self._place = None if path is None else Place(path)
        self._lock = threading.Lock()
        self._evidence: dict[int, Evidence] = {}
        self._header: dict[str, Any] = {}

    def __enter__(self) -> Kept:
        if self._place is not None:
            self._place.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        if self._place is not None:
            self._place.__exit__(kind, value, traceback)

    def take_up(self, posed: Posed, options: dict[str, Any], seed: int) -> None:
        """Take up what stands at the path; it must be of this V and these options.

        `options` are those by the names that the user knows. `seed` is drawn for this run; where the user gave none,
        that of the run in the file takes its place.
        """
        self.seed = seed
        if self._place is None:
            return
        described = {"function": "select_rank", **options, **identity.of_data(posed)}
        header = {"nmf_xp": nmf_xp.__version__, "options": described, "contents": identity.contents(posed, None)}
        stored = self._place.claim(header)
        if stored is not None:
            ranks: dict[str, Any] = stored.header.get("ranks", {})
            wrong = [rank for rank in ranks if not _fits(rank, ranks[rank], stored.arrays, posed)]
            if wrong or "ranks" not in stored.header:
                what = f"rank {wrong[0]} does not fit V" if wrong else "it is that of a single run"
                msg = f"{self._place.path}: is no checkpoint that nmf_xp wrote: {what}; name another file"
                raise CheckpointError(msg)
            self.seed = stored.header["seed"]
            self._evidence = {int(rank): _restored(rank, ranks[rank], stored.arrays, posed) for rank in ranks}
        self._header = {**header, "seed": self.seed}

    def __contains__(self, rank: int) -> bool:
        return rank in self._evidence

    def __getitem__(self, rank: int) -> Evidence:
        return self._evidence[rank]

    def keep(self, rank: int, evidence: Evidence) -> None:
        """Hold on to the evidence of one more rank; threads may do so at the same time."""
        with self._lock:
            self._evidence[rank] = evidence
            if self._place is None:
                return
            arrays: dict[str, Matrix] = {}
            ranks: dict[str, Any] = {}
            for k, (best, row, consensus, loss) in sorted(self._evidence.items()):
                factors = {"W": transfer.to_host(best.W), "H": transfer.to_host(best.H)}
                held = {**factors, "consensus": consensus, "loss": loss}
                arrays |= {f"{k}.{name}": x for name, x in held.items()}
                numbers = {name: getattr(best, name) for name in NUMBERS} | losses_of(best)
                ranks[str(k)] = {**numbers, "history": best.history, "status": best.status.name, "row": row}
            at = f"with rank {', '.join(ranks)}"
            self._place.write(Stored({**self._header, "at": at, "ranks": ranks}, arrays))


def _fits(rank: str, numbers: dict[str, Any], arrays: dict[str, Matrix], posed: Posed) -> bool:
    """Whether what was kept of a rank has the shapes and the names that it must have."""
    (m, n), k = posed.shape, int(rank)
    shapes = {"W": (m, k), "H": (k, n), "consensus": (n, n)}
    if any(arrays[f"{rank}.{name}"].shape != shape for name, shape in shapes.items()):
        return False
    if any(x.dtype.kind not in "biuf" for x in arrays.values()) or arrays[f"{rank}.loss"].ndim != 1:
        return False
    return set(numbers["row"]) == set(COLUMNS)


def _restored(rank: str, numbers: dict[str, Any], arrays: dict[str, Matrix], posed: Posed) -> Evidence:
    """The evidence that was kept, with factors like V."""
    V, xp = posed.values, posed.xp
    W, H = (
        transfer.from_host(arrays[f"{rank}.{name}"], xp=xp, dtype=V.dtype, device=libraries.device(V)) for name in "WH"
    )
    best = Result(
        W=W,
        H=H,
        solver=numbers["solver"],
        beta=numbers["beta"],
        _divergence=numbers["divergence"],
        _objective=numbers["objective"],
        _history=tuple(numbers["history"]),
        _n_iter=numbers["n_iter"],
        _status=Status[numbers["status"]].value,
        _kkt_residual=numbers["kkt_residual"],
        noise=NegativeBinomial(**json.loads(numbers["noise"])) if "noise" in numbers else None,
    )
    return Evidence(best, numbers["row"], arrays[f"{rank}.consensus"], arrays[f"{rank}.loss"])
