"""Sphinx configuration."""

import sys
from pathlib import Path

import nmf_xp

sys.path.insert(0, str(Path(__file__).parent))  # mathml

project = "nmf_xp"
author = "The nmf_xp developers"
copyright = "2026, the nmf_xp developers"  # noqa: A001
version = release = nmf_xp.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "mathml"]
exclude_patterns = ["_build", "benchmarks"]  # the tables that benchmarks.md includes
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_typehints = "none"
nitpicky = False

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"nmf_xp {version}"
