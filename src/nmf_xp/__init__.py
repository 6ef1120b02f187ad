"""Non-negative matrix factorization on any array type."""

from nmf_xp.data.sources import RowBlocks
from nmf_xp.divergences import beta_divergence
from nmf_xp.factorization import nmf, transform
from nmf_xp.files import FileError
from nmf_xp.problem.confounding import ConfoundingWarning
from nmf_xp.problem.overdispersed import NegativeBinomial
from nmf_xp.problem.robust import Robust
from nmf_xp.problem.terms import L1, L2, Decorrelate, Fixed, Lower, Upper
from nmf_xp.result import Result, Status
from nmf_xp.result.features import TopFeatures
from nmf_xp.result.loading import load
from nmf_xp.run.checkpoint import CheckpointError
from nmf_xp.run.door import ConvergenceWarning
from nmf_xp.run.position import Progress
from nmf_xp.selection import (
    ConsensusFactors,
    LossComparison,
    RankSelection,
    compare_losses,
    consensus_factors,
    select_rank,
)
from nmf_xp.updates import update_h, update_w

__all__ = [
    "L1",
    "L2",
    "CheckpointError",
    "ConfoundingWarning",
    "ConsensusFactors",
    "ConvergenceWarning",
    "Decorrelate",
    "FileError",
    "Fixed",
    "LossComparison",
    "Lower",
    "NegativeBinomial",
    "Progress",
    "RankSelection",
    "Result",
    "Robust",
    "RowBlocks",
    "Status",
    "TopFeatures",
    "Upper",
    "beta_divergence",
    "compare_losses",
    "consensus_factors",
    "load",
    "nmf",
    "select_rank",
    "transform",
    "update_h",
    "update_w",
]

__version__ = "0.1.0"
