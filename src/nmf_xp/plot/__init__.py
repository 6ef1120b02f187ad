"""Pictures of a factorization. Each function draws on matplotlib axes and returns them.

They take arrays of every library, and dense or sparse data. Size is shown by lightness, in shades of grey; lines are
told apart by more than their hue, and their hues are those of Okabe & Ito (2008).
"""

from nmf_xp.plot.features import spectra, top_features
from nmf_xp.plot.model import reconstruction
from nmf_xp.plot.parts import components
from nmf_xp.plot.run import convergence
from nmf_xp.plot.selection import consensus, losses, ranks

__all__ = ["components", "consensus", "convergence", "losses", "ranks", "reconstruction", "spectra", "top_features"]
