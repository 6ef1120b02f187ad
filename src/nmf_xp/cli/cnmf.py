"""`nmf-xp cnmf prepare | factorize | combine | consensus`: cNMF's commands, on cNMF's folders."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmf_xp.cli.terminal import Parser, say

if TYPE_CHECKING:
    import argparse

    from nmf_xp.scverse.cnmf import Folder


def add_parser(commands: Any) -> None:
    """Add the command to those of `nmf-xp`."""
    text = "Consensus NMF of single cells, with cNMF's commands, options and files: a run may be begun by one program "
    cnmf = commands.add_parser("cnmf", help="cNMF's commands", description=f"{text}and finished by the other.")
    inner = cnmf.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)
    _add_prepare(inner)
    _add_factorize(inner)
    _add_combine(inner)
    _add_consensus(inner)


def _command(inner: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = inner.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(run=run)
    command.add_argument("--name", default="cNMF", help="of the run; its files are in OUTPUT_DIR/NAME (default: cNMF)")
    command.add_argument("--output-dir", type=Path, default=Path(), help="where that folder is (default: here)")
    command.add_argument("--quiet", action="store_true", help="say nothing but warnings and errors")
    return command


def _add_components(command: argparse.ArgumentParser, *, required: bool = False) -> None:
    text = "numbers of components" if required else "of these numbers of components only"
    command.add_argument("-k", "--components", type=int, nargs="+", required=required, metavar="K", help=text)


def _add_prepare(inner: Any) -> None:
    command = _command(inner, "prepare", _prepare, "choose genes, scale them, and give each factorization its seed")
    counts = "cells by genes: .h5ad, .df.npz, or text with tabs"
    command.add_argument("-c", "--counts", type=Path, required=True, metavar="FILE", help=counts)
    _add_components(command, required=True)
    n_iter = "factorizations of each number of components (default: 100)"
    command.add_argument("-n", "--n-iter", type=int, default=100, metavar="N", help=n_iter)
    command.add_argument("--seed", type=int, metavar="SEED", help="from which each factorization gets its own")
    command.add_argument("--numgenes", type=int, default=2000, metavar="N", help="variable genes (default: 2000)")
    command.add_argument("--genes-file", type=Path, metavar="FILE", help="or these genes, one a line")
    command.add_argument("--tpm", type=Path, metavar="FILE", help="shares of a million, like the counts")
    losses = ["frobenius", "kullback-leibler", "itakura-saito"]
    command.add_argument("--beta-loss", choices=losses, default=losses[0], help="the loss (default: frobenius)")
    command.add_argument("--init", choices=["random", "nndsvd"], default="random", help="the start (default: random)")
    most = "iterations of a factorization (default: 1000)"
    command.add_argument("--max-nmf-iter", type=int, default=1000, metavar="N", help=most)
    command.add_argument("--densify", action="store_true", help="treat the counts as dense")


def _add_factorize(inner: Any) -> None:
    command = _command(inner, "factorize", _factorize, "make the factorizations")
    command.add_argument("--total-workers", type=int, default=1, metavar="N", help="that share them (default: 1)")
    command.add_argument("--worker-index", type=int, default=0, metavar="I", help="which one this is, from 0 on")
    command.add_argument("--skip-completed-runs", action="store_true", help="leave out those that are there")


def _add_combine(inner: Any) -> None:
    command = _command(inner, "combine", _combine, "put the factorizations of a number of components into one file")
    _add_components(command)
    command.add_argument("--skip-missing-files", action="store_true", help="do without those that are missing")


def _add_consensus(inner: Any) -> None:
    command = _command(inner, "consensus", _consensus, "find the spectra that the factorizations agree on")
    _add_components(command)
    threshold = "mean distance to its neighbours from which on a spectrum is left out, up to 2 (default: 0.5)"
    command.add_argument("--local-density-threshold", type=float, default=0.5, metavar="X", help=threshold)
    size = "neighbours, as a share of the factorizations (default: 0.3)"
    command.add_argument("--local-neighborhood-size", type=float, default=0.3, metavar="X", help=size)


def _steps() -> Any:
    """The commands, for which scikit-learn is imported."""
    return importlib.import_module("nmf_xp.scverse.cnmf")


def _folder(asked: argparse.Namespace) -> Folder:
    return _steps().Folder(asked.output_dir, asked.name)


def _say(asked: argparse.Namespace, line: str) -> None:
    if not asked.quiet:
        say(line)


def _prepare(asked: argparse.Namespace) -> int:
    names = ("n_iter", "seed", "numgenes", "genes_file", "tpm", "beta_loss", "init", "max_nmf_iter", "densify")
    chosen = {name: getattr(asked, name) for name in names}
    made = _steps().prepare(_folder(asked), asked.counts, asked.components, **chosen)
    cells, genes = made.values.shape
    _say(asked, f"{cells} cells, {genes} genes, {asked.n_iter * len(set(asked.components))} factorizations to be made")
    return 0


def _factorize(asked: argparse.Namespace) -> int:
    names = ("worker_index", "total_workers", "skip_completed_runs")
    try:
        count = _steps().factorize(_folder(asked), **{name: getattr(asked, name) for name in names})
    except KeyboardInterrupt as interrupt:
        msg = "interrupted; say --skip-completed-runs to go on"
        raise KeyboardInterrupt(msg) from interrupt
    _say(asked, f"{count} factorizations made")
    return 0


def _combine(asked: argparse.Namespace) -> int:
    found = _steps().combine(_folder(asked), asked.components, skip_missing_files=asked.skip_missing_files)
    for k, count in found.items():
        _say(asked, f"{k} components: {count} factorizations combined")
    return 0


def _consensus(asked: argparse.Namespace) -> int:
    names = ("local_density_threshold", "local_neighborhood_size")
    chosen = {name: getattr(asked, name) for name in names}
    folder = _folder(asked)
    for k in _steps().ranks_of(folder, asked.components):
        _steps().consensus(folder, k, **chosen)
        _say(asked, f"{k} components: written to {folder.place / folder.name}")
    return 0
