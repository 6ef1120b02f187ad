"""What a user sees of the package itself: its names and its version."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import nmf_xp

ROOT = Path(__file__).parents[1]


def test_version_is_that_of_the_installed_package() -> None:
    assert nmf_xp.__version__ == importlib.metadata.version("nmf_xp")


def test_all_public_names_exist_and_are_documented() -> None:
    assert sorted(nmf_xp.__all__) == nmf_xp.__all__
    for name in nmf_xp.__all__:
        assert getattr(nmf_xp, name).__doc__, name


def test_a_package_has_one_least_version_wherever_it_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    found = (re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in lines)
    bounds = {(match[1], match[2]) for match in found if match is not None}
    assert len(bounds) == len({name for name, _ in bounds})
    assert ("numpy", "2") in bounds
