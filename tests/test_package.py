"""What a user sees of the package itself: its names and its version."""

from __future__ import annotations

import importlib.metadata

import nmf_xp


def test_version_is_that_of_the_installed_package() -> None:
    assert nmf_xp.__version__ == importlib.metadata.version("nmf_xp")


def test_all_public_names_exist_and_are_documented() -> None:
    assert sorted(nmf_xp.__all__) == nmf_xp.__all__
    for name in nmf_xp.__all__:
        assert getattr(nmf_xp, name).__doc__, name
