"""From curves over the ranks to one rank, with what speaks against it. Everything here is small and on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    Column = np.ndarray[Any, Any]

ERRORS_TO_WIN = 1.0  # standard errors by which a larger rank must predict better
ERRORS_TO_BE_SURE = 2.0  # and for which that is no weak evidence
RELEVANT = 0.1  # the relevance of a component that is needed; that of others tends to 0
SLIGHT = 0.5  # of the first component's relevance, below which one may be there for the noise
ROUNDING = 1e-9  # a fall of the cophenetic correlation or of the dispersion that is none
FALL = 0.01  # of the cophenetic correlation or rise of the Amari distance that is clear


class Recommendation(NamedTuple):
    """A rank, the rule that found it, and what makes the evidence weak, if anything does."""

    rank: int
    rule: str
    doubts: tuple[str, ...]


def by_prediction(ranks: Sequence[int], loss: Column, *, rule: str) -> Recommendation:
    """The least rank that predicts as well as the best one, up to the error of the comparison.

    That is the rule of one standard error (Breiman et al. 1984, section 3.4.3), with the error of the *difference*
    between the two ranks, which the same folds measure. `loss` has shape (ranks, folds).
    """
    best = int(loss.mean(axis=1).argmin())
    chosen = next(i for i in range(len(ranks)) if i == best or not _above(loss[i], loss[best], ERRORS_TO_WIN))
    doubts = _edges(ranks, chosen)
    if chosen > 0 and not _above(loss[chosen - 1], loss[chosen], ERRORS_TO_BE_SURE):
        doubts.append(f"rank {ranks[chosen - 1]} predicts nearly as well")
    if best != chosen:
        doubts.append(f"rank {ranks[best]} predicts better, by less than the error of the comparison")
    return Recommendation(ranks[chosen], rule, tuple(doubts))


def by_relevance(ranks: Sequence[int], relevance: Column) -> Recommendation:
    """The number of relevant components, K_eff of Tan & Fevotte (2013), or the rank that is nearest to it.

    `relevance` holds that of each component of the largest rank, in falling order.
    """
    needed = int((relevance > RELEVANT).sum())
    chosen = min(range(len(ranks)), key=lambda i: abs(ranks[i] - needed))
    doubts = _edges(ranks, chosen)
    if ranks[chosen] != needed:
        doubts.append(f"{needed} components are relevant, and this rank is the nearest to it")
    slight = int((relevance[:needed] < SLIGHT * relevance[0]).sum())
    if slight:
        doubts.append(f"{slight} of them {'is' if slight == 1 else 'are'} much less relevant than the first")
    return Recommendation(ranks[chosen], "relevance", tuple(doubts))


def by_cophenetic(ranks: Sequence[int], correlation: Column, dispersion: Column) -> Recommendation:
    """The first rank after which the cophenetic correlation falls (Brunet et al. 2004), from 2 on.

    The correlation is 1 for every consensus that is a tree, also for one on which restarts disagree: where only some
    of them split a group, say. So where it stays the same, a fall of the dispersion (Kim & Park 2007) counts.
    """
    first = _first_compared(ranks)
    falls, spreads = (column[:-1] - column[1:] for column in (correlation, dispersion))
    falling = (falls > ROUNDING) | ((falls >= -ROUNDING) & (spreads > ROUNDING))
    chosen = next((i for i, falls_here in enumerate(falling) if i >= first and falls_here), len(ranks) - 1)
    doubts = _edges(ranks, chosen, first)
    if chosen < len(falls) and falls[chosen] <= ROUNDING:
        doubts.append(f"the cophenetic correlation does not fall, only the dispersion does, by {spreads[chosen]:.2g}")
    elif chosen < len(falls) and falls[chosen] < FALL:
        doubts.append(f"the cophenetic correlation falls by {falls[chosen]:.2g} only")
    return Recommendation(ranks[chosen], "cophenetic", tuple(doubts))


def by_stability(ranks: Sequence[int], amari: Column) -> Recommendation:
    """The rank, from 2 on, whose components differ least between restarts (Wu et al. 2016)."""
    first = _first_compared(ranks)
    chosen = first + int(amari[first:].argmin())
    doubts = _edges(ranks, chosen, first)
    rivals = [str(rank) for i, rank in enumerate(ranks) if first <= i != chosen and amari[i] < amari[chosen] + FALL]
    if rivals:
        doubts.append(f"as stable, up to {FALL}: rank {', '.join(rivals)}")
    return Recommendation(ranks[chosen], "stability", tuple(doubts))


def _above(loss: Column, reference: Column, errors: float) -> bool:
    difference = loss - reference
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return bool(difference.mean() > errors * error)


def _first_compared(ranks: Sequence[int]) -> int:
    """Where the ranks begin of which agreement says something: at rank 1 all columns are in one group anyway."""
    return 1 if ranks[0] == 1 else 0


def _edges(ranks: Sequence[int], chosen: int, first: int = 0) -> list[str]:
    doubts = []
    if chosen == len(ranks) - 1:
        doubts.append("it is the largest rank that was tried")
    if chosen == 0 and ranks[0] > 1:
        doubts.append("it is the least rank that was tried")
    if chosen == first == 1:
        doubts.append("it is the least rank that was compared, as agreement at rank 1 is no evidence")
    return doubts
