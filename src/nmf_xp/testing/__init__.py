"""Conformance testing: prove a backend, an update rule or a gradient."""

from nmf_xp.testing.backends import Backend, Target
from nmf_xp.testing.checks import checks
from nmf_xp.testing.conformance import check_backend, parametrize
from nmf_xp.testing.report import Entry, Outcome, Report, Skip
from nmf_xp.testing.rules import check_gradient, check_update

__all__ = [
    "Backend",
    "Entry",
    "Outcome",
    "Report",
    "Skip",
    "Target",
    "check_backend",
    "check_gradient",
    "check_update",
    "checks",
    "parametrize",
]
