"""The command line: `nmf-xp fit`, `nmf-xp demo`, `nmf-xp conformance`.

Every mistake that a user can make ends in one line and exit status 2; an interrupt in 130, with nothing written.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp import _compat
from nmf_xp.files import INPUTS, FileError, check_output, read_matrix, write_factors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nmf_xp import Progress, Result

BACKENDS = ("numpy", "jax", "torch", "cupy", "array_api_strict")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)  # noqa: T201
        return 130
    except (FileError, ImportError, TypeError, ValueError, MemoryError) as error:
        print(f"nmf-xp: error: {error}", file=sys.stderr)  # noqa: T201
        return 2


def say(line: str = "") -> None:
    """Print a line for the user."""
    print(line, flush=True)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nmf-xp", description="Non-negative matrix factorization on any array type.")
    parser.add_argument("--version", action="version", version=f"nmf-xp {nmf_xp.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add_command in (_add_fit, _add_demo, _add_conformance):
        add_command(commands)
    return parser


def _add_fit(commands: Any) -> None:
    fit = commands.add_parser(
        "fit", help="factorize a matrix from a file", description="Factorize a matrix from a file."
    )
    fit.set_defaults(run=_fit)
    fit.add_argument("file", type=Path, metavar="FILE", help=f"the matrix: {', '.join(INPUTS)}")
    fit.add_argument("-k", "--n-components", type=int, required=True, metavar="R", help="number of components")
    fit.add_argument("--out", type=Path, metavar="FILE", help=".npz or .safetensors (default: NAME.factors.npz, here)")
    fit.add_argument("--force", action="store_true", help="replace the output if it exists")

    file = fit.add_argument_group("the file")
    file.add_argument("--key", metavar="NAME", help="the array to take from an .npz that holds several")
    yes_or_no = argparse.BooleanOptionalAction
    file.add_argument("--header", action=yes_or_no, help="a table's first line holds column names (default: find out)")
    file.add_argument("--index", action=yes_or_no, help="a table's first column holds row names (default: find out)")

    model = fit.add_argument_group("the factorization (defaults are those of nmf_xp.nmf)")
    model.add_argument("--beta-loss", type=_name_or_number, metavar="LOSS", help="a number or a name, see the docs")
    model.add_argument("--solver", metavar="NAME", help="auto or mu")
    model.add_argument("--init", metavar="NAME", help="random, nndsvd, nndsvda or nndsvdar")
    model.add_argument("--start", type=Path, metavar="FILE", help="start from the W and H in this .npz instead")
    model.add_argument("--missing", choices=["nan"], help="NaN and empty cells are missing, not errors")
    model.add_argument("--absent", choices=["zero", "missing"], help="what a sparse file does not store")
    model.add_argument("--alpha-W", type=float, metavar="X", help="penalty on W")
    model.add_argument("--alpha-H", type=_name_or_number, metavar="X", help="penalty on H, or 'same'")
    model.add_argument("--l1-ratio", type=float, metavar="X", help="share of L1 in the penalties")
    model.add_argument("--upper-w", type=float, metavar="X", help="upper bound on W")
    model.add_argument("--upper-h", type=float, metavar="X", help="upper bound on H")
    model.add_argument("--normalize", choices=["W", "H"], help="which factor's components sum to 1")
    model.add_argument("--n-restarts", type=int, metavar="N", help="random starts, of which the best is kept")
    model.add_argument("--random-state", type=int, metavar="SEED", help="seed of the start")
    model.add_argument("--max-iter", type=int, metavar="N", help="most iterations")
    model.add_argument("--tol", type=float, metavar="X", help="relative decrease at which to end")
    model.add_argument("--check-every", type=int, metavar="N", help="iterations between checks")

    where = fit.add_argument_group("where it runs")
    where.add_argument("--backend", choices=BACKENDS, default="numpy", help="array library (default: numpy)")
    where.add_argument("--device", metavar="NAME", help="its device, such as cuda:0 (default: the library's)")
    where.add_argument("--dtype", choices=["float32", "float64"], help="precision (default: the file's)")
    where.add_argument("--progress", action=yes_or_no, help="a progress bar (default: on a terminal)")


def _name_or_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


NMF_OPTIONS = (
    "beta_loss", "solver", "init", "missing", "absent", "alpha_W", "alpha_H", "l1_ratio", "upper_w", "upper_h",
    "normalize", "n_restarts", "random_state", "max_iter", "tol", "check_every",
)  # fmt: skip


def _fit(options: argparse.Namespace) -> int:
    out = options.out or Path(f"{options.file.stem}.factors.npz")
    check_output(out, force=options.force)
    if options.start is not None and options.init is not None:
        msg = "--start and --init exclude each other; give one of them"
        raise ValueError(msg)
    matrix = read_matrix(options.file, key=options.key, header=options.header, index=options.index)
    V, where = _to_backend(matrix.values, options)
    chosen = {name: getattr(options, name) for name in NMF_OPTIONS if getattr(options, name) is not None}
    if options.start is not None:
        chosen["init"] = tuple(
            _to_backend(read_matrix(options.start, key=key).values, options)[0] for key in ("W", "H")
        )
    progress = sys.stderr.isatty() if options.progress is None else options.progress
    if options.progress is None and progress:
        progress = importlib.util.find_spec("tqdm") is not None
    begin = time.perf_counter()
    result = nmf_xp.nmf(V, options.n_components, progress=progress, **chosen)
    seconds = time.perf_counter() - begin
    _write(out, result, matrix, options)
    _summary(result, V, where, out, seconds)
    return 0


def _to_backend(values: Any, options: argparse.Namespace) -> tuple[Any, str]:
    """The matrix as an array of the chosen library, device and dtype, and a description of the three."""
    import numpy as np

    if options.backend == "jax" and options.dtype == "float64":
        importlib.import_module("jax").config.update("jax_enable_x64", True)
    if not isinstance(values, np.ndarray):  # sparse
        values = values.astype(options.dtype) if options.dtype else values
        if options.backend == "numpy":
            return values, f"numpy (sparse), {values.dtype}"
        say(f"{options.backend}: the sparse file is made dense, {np.prod(values.shape) * 8 / 1e6:.0f} MB")
        values = values.toarray()
    if options.dtype is not None:
        values = values.astype(options.dtype, copy=False)
    if options.backend == "numpy" and options.device in (None, "cpu"):
        return values, f"numpy, {values.dtype}"
    try:
        module = importlib.import_module("jax.numpy" if options.backend == "jax" else options.backend)
    except ImportError as error:
        msg = f"--backend {options.backend}: {error}"
        raise ImportError(msg) from error
    xp = _compat.array_namespace(module.empty(0))
    try:
        V = xp.asarray(values, **_device(options.backend, options.device))
    except (RuntimeError, ValueError, TypeError) as error:
        msg = f"--backend {options.backend} --device {options.device}: {' '.join(str(error).split())}"
        raise ValueError(msg) from error
    return V, f"{options.backend} on {_compat.device(V)}, {_compat.dtype_name(V.dtype)}"


def _device(backend: str, name: str | None) -> dict[str, Any]:
    """The keyword that puts an array on the named device."""
    if name is None:
        return {}
    if backend == "jax":
        kind, _, number = name.partition(":")
        return {"device": importlib.import_module("jax").devices(kind)[int(number or 0)]}
    if backend == "array_api_strict":
        return {"device": importlib.import_module(backend).Device(name)}
    if backend == "cupy":
        return {"device": importlib.import_module(backend).cuda.Device(int(name.removeprefix("cuda").lstrip(":") or 0))}
    return {"device": name}


def _write(out: Path, result: Result, matrix: Any, options: argparse.Namespace) -> None:
    import numpy as np

    arrays = {
        "W": _compat.to_host(result.W),
        "H": _compat.to_host(result.H),
        "history": np.asarray(result.history),
        "divergence": np.asarray(result.divergence),
        "n_iter": np.asarray(result.n_iter),
    }
    for name in ("row_names", "column_names"):
        if getattr(matrix, name) is not None:
            arrays[name] = np.asarray(getattr(matrix, name), dtype=str)
    settings = {
        "status": result.status.name,
        "beta": str(result.beta),
        "solver": result.solver,
        "random_state": str(options.random_state),
        "input": options.file.name,
        "nmf_xp": nmf_xp.__version__,
    }
    write_factors(out, arrays, settings)


def _summary(result: Result, V: Any, where: str, out: Path, seconds: float) -> None:
    m, n = V.shape
    rows = {
        "matrix": f"{m} x {n}",
        "components": str(result.H.shape[0]),
        "loss": f"beta {result.beta:g}",
        "ran on": where,
        "iterations": f"{result.n_iter} in {seconds:.2f} s",
        "ended": result.status.message,
        "divergence": f"{result.divergence:.6g}",
        "KKT residual": f"{result.kkt_residual:.2g}",
        "written": str(out),
    }
    for name, value in rows.items():
        say(f"{name:<13} {value}")


def _add_conformance(commands: Any) -> None:
    text = "Run all conformance checks on every installed backend and device, and print a table."
    command = commands.add_parser("conformance", help="prove the backends that are installed", description=text)
    command.set_defaults(run=_conformance)
    command.add_argument("--backend", action="append", metavar="NAME", help="only this one; may be given several times")
    command.add_argument("--json", metavar="FILE", help="write the report as JSON as well")


def _conformance(options: argparse.Namespace) -> int:
    return int(importlib.import_module("nmf_xp.testing.command").run(options))


def _add_demo(commands: Any) -> None:
    text = "Factorize 1797 images of handwritten digits, and draw the parts of which they are made."
    demo = commands.add_parser("demo", help="factorize real data and draw the components", description=text)
    demo.set_defaults(run=_demo)
    demo.add_argument("--out", type=Path, default=Path("nmf-xp-demo.png"), metavar="FILE.png", help="the picture")


def _demo(options: argparse.Namespace) -> int:
    try:
        digits = importlib.import_module("sklearn.datasets").load_digits()
        matplotlib = importlib.import_module("matplotlib")
    except ImportError as error:
        msg = f'the demo needs {error.name}: pip install "nmf_xp[demo]"'
        raise ImportError(msg) from error
    matplotlib.use("agg")
    from nmf_xp import plot

    if options.out.suffix.lower() != ".png" or not options.out.absolute().parent.is_dir():
        msg = f"--out must be a .png in a folder that exists, got {options.out}"
        raise ValueError(msg)
    V = digits.data
    say(f"{V.shape[0]} images of handwritten digits, {V.shape[1]} pixels each, are the rows of V. They are written as")
    say("sums of 10 parts, V ~ W @ H: the rows of H are the parts, and W says how much of each is in an image. The")
    say("Kullback-Leibler divergence of V from W @ H never rises:")
    say()

    def show(progress: Progress) -> None:
        say(f"  iteration {progress.iteration:4d}   divergence {progress.divergence:12.1f}")

    result = nmf_xp.nmf(V, 10, beta_loss="kullback-leibler", random_state=0, tol=1e-3, callback=show)
    say()
    say(f"After {result.n_iter} iterations it ended: {result.status.message}.")
    axes = plot.components(result.H, (8, 8))
    axes.figure.set_size_inches(7, 3.2)
    axes.set_title("10 parts of handwritten digits")
    axes.figure.savefig(options.out, dpi=120)
    say(f"The parts are drawn in {options.out}.")
    return 0
