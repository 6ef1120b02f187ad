"""Sphinx configuration."""

import nmf_xp

project = "nmf_xp"
author = "The nmf_xp developers"
copyright = "2026, the nmf_xp developers"  # noqa: A001
version = release = nmf_xp.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "benchmarks"]  # the tables that benchmarks.md includes
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_typehints = "none"
nitpicky = False

html_theme = "furo"
html_title = "nmf_xp"
