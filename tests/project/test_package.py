"""What a user sees of the package itself: its names and its version."""

from __future__ import annotations

import importlib.metadata
import re

import pytest

import nmf_xp
from ci import least_versions
from tests.scripts import ROOT


def test_version_is_that_of_the_installed_package() -> None:
    assert nmf_xp.__version__ == importlib.metadata.version("nmf_xp")


def test_all_public_names_exist_and_are_documented() -> None:
    assert len(set(nmf_xp.__all__)) == len(nmf_xp.__all__)
    for name in nmf_xp.__all__:
        assert getattr(nmf_xp, name).__doc__, name


def test_a_package_has_one_least_version_wherever_it_is_named() -> None:
    project = least_versions.project()
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    found = [match for line in lines if (match := least_versions.REQUIREMENT.fullmatch(line)) and match["least"]]
    bounds = {(match["name"], match["least"]) for match in found}
    assert len(bounds) == len({name for name, _ in bounds})
    assert ("numpy", "2") in bounds
    assert len(least_versions.constraints(project, ["test"])) > 20


def test_the_least_releases_on_the_page_are_those_of_pyproject() -> None:
    project = least_versions.project()
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    table = page[page.index("## Least releases") : page.index("## Which checks hold")]
    shown = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", table, flags=re.MULTILINE))
    lines = least_versions.constraints(project, ["test"])
    known = dict(line.split("==") for line in lines) | {"python": project["requires-python"].removeprefix(">=")}
    assert {name.lower() for name in shown} == {"python", "numpy", "array-api-compat", "zarr", "jax"}
    assert all(known[name.lower()] == least for name, least in shown.items())


def test_the_least_versions_are_those_of_the_extras_and_of_the_extras_that_these_name() -> None:
    extras = {"all": ["own[plot,dask]", "zarr>=3.1"], "plot": ["matplotlib>=3.9"], "more": ["pandas>=2"]}
    project = {"name": "own", "dependencies": ["numpy>=2"], "optional-dependencies": extras}
    extras["dask"] = ["own[plot]", "dask[array]>=2024.8"]
    expected = ["numpy==2", "matplotlib==3.9", "dask==2024.8", "zarr==3.1"]
    assert least_versions.constraints(project, ["all"]) == expected
    for line in ("tqdm", "tqdm<5", "tqdm>=4,<5"):
        with pytest.raises(SystemExit, match=f"'{line}' names no least release; write it as NAME>=RELEASE"):
            least_versions.constraints(project | {"dependencies": [line]}, [])
