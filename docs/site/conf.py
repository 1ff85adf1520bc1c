"""Sphinx reads this from the folder that build.py fills. No page of the site asks another host for anything."""

from __future__ import annotations

from rankone import __version__

project = "rankone"
release = version = __version__
copyright = "the authors of rankone"  # noqa: A001 - the name is Sphinx's

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # the included changelog begins one level deeper
default_role = "literal"  # single backticks in docstrings are code, as in Markdown
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = f"rankone {__version__}"
html_copy_source = False
html_show_sphinx = False
