"""How the documentation site is built: `make docs`, into build/docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tiedexport

if TYPE_CHECKING:
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))  # for `records`, which is of this site alone

project = "tiedexport"
release = tiedexport.__version__
extensions = ["myst_parser", "records", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]

html_theme = "furo"
html_title = "tiedexport"
html_copy_source = html_show_sourcelink = html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}

smartquotes = False  # options begin with two hyphens, and are to be copied
default_role = "code"  # docstrings are written with single backticks
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"  # sessions and bundles are not made by their constructors
autodoc_typehints_format = "short"
napoleon_use_rtype = False

# Every reference has to lead somewhere, except to what lies outside of the project: the site is
# built without a network.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!tiedexport\.).*"), ("py:.*", r"tiedexport\..*\b_\w+")]


_MARKUP = re.compile(r"\||(?<![*\w])\*(?=\w)")

_ATTRIBUTES = {
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
    'role="heading"': 'role="heading" aria-level="2"',
}


def _plain(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """In docstrings |x| is an absolute value and *shape what Python makes of it, never markup."""
    lines[:] = [_MARKUP.sub(r"\\\g<0>", line) for line in lines]


def _for_keyboards(
    _app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object
) -> None:
    """What scrolls sideways can be scrolled by keys, and what is a heading has a level."""
    for part in {"body", "furo_navigation_tree"} & context.keys():
        for found, instead in _ATTRIBUTES.items():
            context[part] = context[part].replace(found, instead)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _plain, priority=1000)
    app.connect("html-page-context", _for_keyboards, priority=1000)
