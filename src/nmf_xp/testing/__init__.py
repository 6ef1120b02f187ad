"""Conformance testing: prove a backend, an update rule or a gradient."""

from nmf_xp.testing.backends import Backend, Target

__all__ = ["Backend", "Target"]
