"""`factorize` and `combine`: many factorizations from their seeds, each in a file, and all of a rank in one.

They are scikit-learn's iterations from scikit-learn's starts. So for the Frobenius loss each file is the one that cNMF
would write, but for rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from nmf_xp.arrays.checks import check_integer
from nmf_xp.files import FileError
from nmf_xp.problem.checks import check_n_components
from nmf_xp.scverse.cnmf.frames import Frame, read_frame
from nmf_xp.sklearn.together import components_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from nmf_xp.scverse.cnmf.folder import Folder

    Matrix = np.ndarray[Any, Any]

DENSITY = "local_density_cache.k_{k}.merged.df.npz"
SPECTRA, MERGED = "spectra.k_{k}.iter_{i}.df.npz", "spectra.k_{k}.merged.df.npz"


class Run(NamedTuple):
    """One factorization."""

    n_components: int
    iter: int
    nmf_seed: int


def runs_of(folder: Folder) -> list[Run]:
    """All factorizations that were asked for."""
    table = folder.frame("nmf_params.df.npz", columns=Run._fields)
    columns = [table.column(name) for name in Run._fields]
    least = (1, 0, 0)
    if not all(
        (x >= low).all() and (x % 1 == 0).all() and (x < 2**32).all() for x, low in zip(columns, least, strict=True)
    ):
        msg = f"{folder.inner('nmf_params.df.npz')}: must hold {', '.join(Run._fields)} as integers, got others"
        raise FileError(msg)
    return [Run(*map(int, row)) for row in zip(*columns, strict=True)]


def ranks_of(folder: Folder, components: Iterable[int] | None) -> list[int]:
    """These ranks, or all that were asked for."""
    known = sorted({run.n_components for run in runs_of(folder)})
    unknown = [k for k in components or () if k not in known]
    if unknown:
        msg = f"`components` must be among those that were prepared, {', '.join(map(str, known))}, got {unknown[0]}"
        raise ValueError(msg)
    return sorted(set(components or known))


def factorize(
    folder: Folder, *, worker_index: int = 0, total_workers: int = 1, skip_completed_runs: bool = False
) -> int:
    """Make the factorizations of one of several workers; returns how many."""
    total_workers = check_integer("total_workers", total_workers, minimum=1)
    worker_index = check_integer("worker_index", worker_index, minimum=0)
    if worker_index >= total_workers:
        msg = f"`worker_index` must be less than total_workers={total_workers}, got {worker_index}"
        raise ValueError(msg)
    mine = runs_of(folder)[worker_index::total_workers]  # before any is left out, so that workers agree on whose it is
    if skip_completed_runs:
        mine = [run for run in mine if not folder.inner(SPECTRA, k=run.n_components, i=run.iter).exists()]
    counts, options = folder.counts("norm_counts.h5ad"), folder.options
    for k in sorted({run.n_components for run in mine}):
        check_n_components(k, counts.values.shape)
        runs = [run for run in mine if run.n_components == k]

        def keep(i: int, H: Matrix, runs: list[Run] = runs) -> None:
            frame = Frame(H, list(range(1, len(H) + 1)), counts.genes)
            folder.write(SPECTRA, frame, k=len(H), i=runs[i].iter)

        components_of(counts.values, k, [run.nmf_seed for run in runs], keep, **options)
    return len(mine)


def combine(
    folder: Folder, components: Iterable[int] | None = None, *, skip_missing_files: bool = False
) -> dict[int, int]:
    """Put the factorizations of each rank into one file; returns how many there are of each."""
    import numpy as np

    found = {}
    for k in ranks_of(folder, components):
        parts, names, genes = [], [], None
        for run in sorted((run for run in runs_of(folder) if run.n_components == k), key=lambda run: run.iter):
            path = folder.inner(SPECTRA, k=k, i=run.iter)
            if not path.exists():
                if skip_missing_files:
                    continue
                msg = f"{path}: no such file; run `nmf-xp cnmf factorize`, or say --skip-missing-files"
                raise FileError(msg)
            part = read_frame(path)
            genes = genes or part.columns
            if part.columns != genes or len(part.values) != k:
                msg = f"{path}: must hold {k} spectra of the same genes as the others of this rank; factorize it again"
                raise FileError(msg)
            parts.append(part.values)
            names += [f"iter{run.iter}_topic{t}" for t in range(1, k + 1)]
        if genes is None:
            msg = f"{folder.inner(SPECTRA, k=k, i=0)}: no such file, nor any other of this rank"
            raise FileError(msg)
        folder.write(MERGED, Frame(np.concatenate(parts), names, genes), k=k)
        folder.inner(DENSITY, k=k).unlink(missing_ok=True)  # of earlier spectra
        found[k] = len(parts)
    return found
