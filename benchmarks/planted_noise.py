"""How often `compare_losses` finds a planted noise, of its default losses.

    python -m benchmarks.planted_noise

V is 60 x 40 with means of rank 3, about 20. Three splits, two starts, ten seeds for each noise.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp import compare_losses

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = range(100, 110)
NOISES: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "Poisson": lambda rng, Y: rng.poisson(Y),
    "negative binomial, alpha 0.25": lambda rng, Y: rng.poisson(Y * rng.gamma(4.0, 0.25, Y.shape)),
    "negative binomial, alpha 0.05": lambda rng, Y: rng.poisson(Y * rng.gamma(20.0, 0.05, Y.shape)),
    "gamma, shape 10": lambda rng, Y: rng.gamma(10.0, Y / 10),
    "Gaussian, sigma 2": lambda rng, Y: abs(rng.normal(Y, 2.0)),
    "Tweedie 1.5, phi 1": lambda rng, Y: rng.gamma(np.maximum(rng.poisson(2 * Y**0.5), 1e-300), Y**0.5 / 2),
}


def means(seed: int) -> Any:
    """Of rank 3."""
    rng = np.random.default_rng(seed)
    return 20 * rng.gamma(1.0, size=(60, 3)) @ rng.gamma(1.0, size=(3, 40)) / 3 + 1.0


def main() -> None:
    """Print the table."""
    print("| planted | recommended | said to be weak |\n|---|---|---|")
    for name, drawn in NOISES.items():
        found: Counter[str] = Counter()
        weak = 0
        for seed in SEEDS:
            V = drawn(np.random.default_rng(seed), means(seed))
            comparison = compare_losses(V, 3, n_splits=3, n_restarts=2, max_iter=300, random_state=seed)
            found[comparison.noise] += 1
            weak += comparison.weak
        said = ", ".join(f"{noise}: {count}" for noise, count in found.most_common())
        print(f"| {name} | {said} | {weak} |", flush=True)


if __name__ == "__main__":
    main()
