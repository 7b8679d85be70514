"""Sphinx's settings. ``nox -s docs`` builds the site; nothing in it is fetched from elsewhere, so it opens from a folder, too."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "_ext")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gallery  # noqa: E402
import pictures  # noqa: E402
import reference  # noqa: E402
import tables  # noqa: E402

import pairx  # noqa: E402

project = "pairx"
author = "The pairx developers"
copyright = author
release = version = pairx.__version__
language = "en"
smartquotes = False  # "finite" is a string, not a quotation

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "formulas",
]
templates_path = ["_templates"]
exclude_patterns = ["generated", "examples", "plots", "gallery/*.ipynb"]
nitpicky = True
# One is not public, one is the standard library's.
nitpick_ignore = [("py:class", "pairx.engine.Task"), ("py:class", "contextlib.nullcontext")]

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

add_function_parentheses = False
autodoc_typehints = "none"
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = gallery.SETTINGS
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

html_theme = "pydata_sphinx_theme"
html_title = "pairx"
html_math_renderer = "mathml"
html_context = {"default_mode": "auto"}
html_static_path = ["_static", "generated/static"]
html_css_files = ["pairx.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # summaries are fetched by requests, which browsers refuse in a folder
html_sidebars = {"index": [], "metrics": [], "losses": [], "start": []}
WIDE = ["index", "metrics", "losses", "gallery/index", *(f"moving/{p.stem}" for p in (HERE / "moving").glob("*.md"))]
html_theme_options: dict[str, Any] = {
    "logo": {"text": "pairx"},
    "show_prev_next": False,
    "header_links_before_dropdown": 8,
    "navbar_align": "left",
    "navbar_end": ["dashboard", "theme-switcher"],
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": {"**": ["page-toc"], **{page: [] for page in WIDE}},
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "back_to_top_button": False,
}


def fill(app: Any, docname: str, source: list[str]) -> None:
    """The tables of a page as the site has them: formulas set, names linked."""
    page = f"{docname}.md"
    if page in tables.PAGES:
        source[0] = tables.filled(page, source[0], rich=True)


def bars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A bar in a docstring is a magnitude, not a substitution."""
    for i, line in enumerate(lines):
        if "|" in line and not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(`+[^`]+`+)", line)
            lines[i] = "".join(part if part.startswith("`") else part.replace("|", r"\|") for part in parts)


def small(name: str, rawtext: str, text: str, *rest: Any) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """``{small}`text```: what stands under a formula."""
    return [nodes.inline(rawtext, text, classes=["small"])], []


def setup(app: Any) -> None:
    app.add_role("small", small)
    reference.write(HERE / "reference" / "api")
    pictures.write(HERE / "generated")
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", bars)
