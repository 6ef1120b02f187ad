"""`nmf-xp demo`: the parts of which handwritten digits are made."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nmf_xp
from nmf_xp.cli.terminal import say
from nmf_xp.files import check_output, write_atomically

if TYPE_CHECKING:
    import argparse

    from nmf_xp import Progress

TOL = 1e-3


def add_parser(commands: Any) -> None:
    """Add the command to those of `nmf-xp`."""
    text = "Factorize 1797 images of handwritten digits, and draw the parts of which they are made."
    demo = commands.add_parser("demo", help="factorize real data and draw the components", description=text)
    demo.set_defaults(run=run)
    default = Path("nmf-xp-demo.png")
    demo.add_argument("--out", type=Path, default=default, metavar="FILE.png", help=f"the picture (default: {default})")
    demo.add_argument("--force", action="store_true", help="replace the picture if it exists")


def run(options: argparse.Namespace) -> int:
    """Factorize, print each check, draw."""
    check_output(options.out, suffixes=(".png",), force=options.force)
    try:
        digits = importlib.import_module("sklearn.datasets").load_digits()
        matplotlib = importlib.import_module("matplotlib")
    except ImportError as error:
        msg = f'the demo needs {error.name}: pip install "nmf_xp[demo]"'
        raise ImportError(msg) from error
    matplotlib.use("agg")
    from nmf_xp import plot

    V = digits.data
    images, pixels = V.shape
    say(f"The rows of V are {images} images of handwritten digits, of {pixels} pixels each. nmf() writes each as a sum")
    say("of 10 parts, V ~ W @ H: the rows of H are the parts, and W says how much of each of them an image has.")
    say("The Kullback-Leibler divergence tells how far W @ H is from V; it falls with every step:")
    say()

    def show(progress: Progress) -> None:
        say(f"  iteration {progress.iteration:4d}   divergence {progress.divergence:10.1f}")

    result = nmf_xp.nmf(V, 10, beta_loss="kullback-leibler", random_state=0, tol=TOL, callback=show)
    small = result.status is nmf_xp.Status.CONVERGED
    why = f"the last 10 lowered it by less than {TOL:.1%}" if small else result.status.message
    say()
    say(f"It ended after {result.n_iter} iterations: {why}.")
    figure = plot.components(result.H, (8, 8)).figure
    figure.suptitle("The 10 parts of 1797 handwritten digits")
    figure.set_size_inches(7, 3.6)
    draw = functools.partial(figure.savefig, format="png", dpi=120)
    write_atomically(options.out, draw, replace=options.force)
    say(f"The parts are drawn in {options.out}. Your own data: nmf-xp fit FILE -k 10")
    return 0
