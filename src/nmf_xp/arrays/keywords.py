"""Keywords that a function does not have: what another library calls ours, and what is nearly one of ours."""

from __future__ import annotations

import difflib
import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

OTHER_WORDS = {
    "seed": "random_state",
    "random_seed": "random_state",
    "rng": "random_state",
    "n_init": "n_restarts",
    "n_runs": "n_restarts",
    "nrun": "n_restarts",
    "restarts": "n_restarts",
    "replicates": "n_restarts",
    "k": "n_components",
    "r": "n_components",
    "n": "n_components",
    "rank": "n_components",
    "n_topics": "n_components",
    "n_clusters": "n_components",
    "n_iter": "max_iter",
    "n_iter_max": "max_iter",
    "iterations": "max_iter",
    "loss": "beta_loss",
    "beta": "beta_loss",
    "objective": "beta_loss",
    "update": "solver",
    "method": "solver",
    "algorithm": "solver",
    "mask": "weights",
    "sample_weight": "weights",
    "W": "init=(W, H)",
    "H": "init=(W, H)",
    "alpha": "alpha_W",
    "verbose": "progress",
    "tolerance": "tol",
}
"""What other libraries call our arguments."""


def check_keywords(function: Callable[..., Any], given: Collection[str]) -> None:
    """Refuse keywords that a function does not have, with the one that is meant."""
    known = _keywords(function)
    for name in given:
        if name in known:
            continue
        meant = next((ours for ours in (OTHER_WORDS.get(name),) if ours and ours.partition("=")[0] in known), None)
        near = [meant] if meant else difflib.get_close_matches(name, known, n=1)
        ours = f"calls it `{near[0]}`" if near else "has no such argument"
        msg = f"`{function.__name__}` {ours}, got `{name}`{'' if near else f'; see help({function.__name__})'}"
        raise TypeError(msg)


@functools.cache
def _keywords(function: Callable[..., Any]) -> tuple[str, ...]:
    """The arguments that may be given by name."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(name for name, x in inspect.signature(function).parameters.items() if x.kind in named)
