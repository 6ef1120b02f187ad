"""Update rules and gradients with one planted bug each, and the check that must catch it."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import nmf_xp

if TYPE_CHECKING:
    from collections.abc import Callable


def divergence(V: Any, W: Any, H: Any, *, beta: float = 1) -> Any:
    return nmf_xp.beta_divergence(V, W, H, beta_loss=beta)


def numerator_w(V: Any, W: Any, H: Any) -> Any:
    return (V / (W @ H)) @ H.T


def numerator_h(V: Any, W: Any, H: Any) -> Any:
    return W.T @ (V / (W @ H))


def total(x: Any, axis: int) -> Any:
    """Sum over an axis, which stays."""
    xp = importlib.import_module("array_api_compat").array_namespace(x)
    return xp.sum(x, axis=axis, keepdims=True)


def right_w(V: Any, W: Any, H: Any) -> Any:
    return W * numerator_w(V, W, H) / total(H, 1).T


def right_h(V: Any, W: Any, H: Any) -> Any:
    return H * numerator_h(V, W, H) / total(W, 0).T


def right(V: Any, W: Any, H: Any) -> Any:
    """Lee & Seung's update for the Kullback-Leibler divergence, without a bug."""
    W = right_w(V, W, H)
    return W, right_h(V, W, H)


def stale_product(V: Any, W: Any, H: Any) -> Any:
    quotient = V / (W @ H)
    W = W * (quotient @ H.T) / total(H, 1).T
    return W, H * (W.T @ quotient) / total(W, 0).T


def swapped_in_w(V: Any, W: Any, H: Any) -> Any:
    W = W * total(H, 1).T / numerator_w(V, W, H)
    return W, right_h(V, W, H)


def swapped_in_h(V: Any, W: Any, H: Any) -> Any:
    W = right_w(V, W, H)
    return W, H * total(W, 0).T / numerator_h(V, W, H)


def sum_over_all_axes(V: Any, W: Any, H: Any) -> Any:
    W = W * numerator_w(V, W, H) / total(total(H, 1), 0)
    return W, right_h(V, W, H)


def sum_over_the_wrong_axis(V: Any, W: Any, H: Any) -> Any:
    W = right_w(V, W, H)
    return W, H * numerator_h(V, W, H) / total(W, 1)[: H.shape[0], :]


def mean_instead_of_sum(V: Any, W: Any, H: Any) -> Any:
    W = W * numerator_w(V, W, H) / (total(H, 1).T / H.shape[1])
    return W, right_h(V, W, H)


def reshaped_instead_of_transposed(V: Any, W: Any, H: Any) -> Any:
    W = W * ((V / (W @ H)) @ H.reshape(H.shape[::-1])) / total(H, 1).T
    return W, right_h(V, W, H)


def transposed_result(V: Any, W: Any, H: Any) -> Any:
    W, H = right(V, W, H)
    return W.T, H.T


def no_denominator(V: Any, W: Any, H: Any) -> Any:
    return W * numerator_w(V, W, H), H


def squared_ratio(V: Any, W: Any, H: Any) -> Any:
    W = W * (numerator_w(V, W, H) / total(H, 1).T) ** 2
    return W, right_h(V, W, H)


def heuristic_exponent(V: Any, W: Any, H: Any, *, beta: float) -> Any:
    """Gamma 1 where beta is outside [1, 2]."""
    Y = W @ H
    return W * ((V * Y ** (beta - 2)) @ H.T) / (Y ** (beta - 1) @ H.T), H


def eps_in_the_denominator(V: Any, W: Any, H: Any) -> Any:
    W = W * numerator_w(V, W, H) / (total(H, 1).T + 1e-10)
    return W, right_h(V, W, H)


def eps_in_the_product(V: Any, W: Any, H: Any) -> Any:
    W = W * ((V / (W @ H + 1e-10)) @ H.T) / total(H, 1).T
    return W, right_h(V, W, H)


def eps_added_to_the_result(V: Any, W: Any, H: Any) -> Any:
    W, H = right(V, W, H)
    return W + 1e-8, H


def writes_into_w(V: Any, W: Any, H: Any) -> Any:
    W *= numerator_w(V, W, H) / total(H, 1).T
    return W, right_h(V, W, H)


def writes_into_h(V: Any, W: Any, H: Any) -> Any:
    W = right_w(V, W, H)
    H *= numerator_h(V, W, H) / total(W, 0).T
    return W, H


def writes_into_v(V: Any, W: Any, H: Any) -> Any:
    V += 1e-12
    return right(V, W, H)


def computes_in_float32(V: Any, W: Any, H: Any) -> Any:
    W, H = right(*(x.astype(np.float32) for x in (V, W, H)))
    return W.astype(np.float64), H.astype(np.float64)


def returns_float32(V: Any, W: Any, H: Any) -> Any:
    W, H = right(V, W, H)
    return W.astype(np.float32), H


def leaves_the_device(V: Any, W: Any, H: Any) -> Any:
    strict = importlib.import_module("array_api_strict")
    W, H = right(V, W, H)
    return W.to_device(strict.Device("CPU_DEVICE")), H


def reads_a_value(V: Any, W: Any, H: Any) -> Any:
    if float(total(total(V, 0), 1)[0, 0]) < 0:
        return W, H
    return right(V, W, H)


def leaves_w(V: Any, W: Any, H: Any) -> Any:
    return W, right_h(V, W, H)


def leaves_h(V: Any, W: Any, H: Any) -> Any:
    return right_w(V, W, H), H


def drops_a_component(V: Any, W: Any, H: Any) -> Any:
    W, H = right(V, W, H)
    return W * np.asarray([1.0, *[0.0] * (W.shape[1] - 1)]), H


def gradient_step_without_a_bound(V: Any, W: Any, H: Any) -> Any:
    return W - 0.5 * (total(H, 1).T - numerator_w(V, W, H)), H


def nan_at_zeros(V: Any, W: Any, H: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return right(V * (V / V), W, H)


def update_of_another_loss(V: Any, W: Any, H: Any) -> Any:
    W = W * (V @ H.T) / (W @ (H @ H.T))
    return W, H * (W.T @ V) / ((W.T @ W) @ H)


def absolute_floor(V: Any, W: Any, H: Any) -> Any:
    W, H = right(V, W, H)
    return np.maximum(W, 1.0), H


def normalises_one_factor_only(V: Any, W: Any, H: Any) -> Any:
    W, H = right(V, W, H)
    return W / total(W, 0), H


class Mutant(NamedTuple):
    """A rule with a bug, how to prove it, and the property that it must be seen to break."""

    update: Callable[[Any, Any, Any], Any]
    caught_by: str
    xp: str = "numpy"
    device: str | None = None
    beta: float = 1.0


ONE_STEP, MONOTONE = "never_raises_it_in_one_step", "never_raises_the_divergence"
EXACT, STATIONARY = "keeps_an_exact_factorization", "rests_only_where_the_divergence_is_stationary"
UNCHANGED, READS, SHAPE = "leaves_its_inputs_alone", "reads_nothing_back", "keeps_shape_and_dtype"
FINITE, SCALE, DEVICE = "stays_non_negative_and_finite", "scales_with_the_data", "stays_on_the_device"

MUTANTS = [
    Mutant(stale_product, MONOTONE),
    Mutant(swapped_in_w, MONOTONE),
    Mutant(swapped_in_h, MONOTONE),
    Mutant(sum_over_all_axes, EXACT),
    Mutant(sum_over_the_wrong_axis, MONOTONE),
    Mutant(mean_instead_of_sum, EXACT),
    Mutant(reshaped_instead_of_transposed, EXACT),
    Mutant(transposed_result, SHAPE),
    Mutant(no_denominator, MONOTONE),
    Mutant(squared_ratio, ONE_STEP),
    Mutant(functools.partial(heuristic_exponent, beta=-2.0), ONE_STEP, beta=-2.0),
    Mutant(functools.partial(heuristic_exponent, beta=4.0), ONE_STEP, beta=4.0),
    Mutant(eps_in_the_denominator, EXACT),
    Mutant(eps_in_the_product, EXACT),
    Mutant(eps_added_to_the_result, EXACT),
    Mutant(writes_into_w, UNCHANGED),
    Mutant(writes_into_h, UNCHANGED),
    Mutant(writes_into_v, UNCHANGED),
    Mutant(writes_into_w, UNCHANGED, xp="torch"),
    Mutant(computes_in_float32, SCALE),
    Mutant(returns_float32, SHAPE),
    Mutant(leaves_the_device, DEVICE, xp="array_api_strict", device="device1"),
    Mutant(reads_a_value, READS, xp="array_api_strict"),
    Mutant(reads_a_value, READS, xp="torch"),
    Mutant(reads_a_value, READS, xp="jax.numpy"),
    Mutant(reads_a_value, "compiles", xp="jax.numpy"),
    Mutant(leaves_w, STATIONARY),
    Mutant(leaves_h, STATIONARY),
    Mutant(drops_a_component, EXACT),
    Mutant(gradient_step_without_a_bound, FINITE),
    Mutant(nan_at_zeros, FINITE),
    Mutant(update_of_another_loss, ONE_STEP),
    Mutant(absolute_floor, SCALE),
    Mutant(normalises_one_factor_only, EXACT),
]
