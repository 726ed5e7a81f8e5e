"""How Sphinx builds these pages: ``make docs``. They are plain Markdown and read as well in a repository's browser."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

project = "socratic"
release = importlib.metadata.version("socratic")
extensions = ["myst_parser"]
smartquotes = False  # they would make a dash of --option
html_theme = "furo"
html_title = "socratic"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 3


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _fit)


def _fit(app: Any, page: str, source: list[str]) -> None:
    """What Sphinx needs and plain Markdown would show as it stands.

    The index gets a table of contents of the pages that it links to; files outside of ``docs`` become downloads, which
    have no anchors.
    """
    if page == "index":
        pages = dict.fromkeys(re.findall(r"\]\(([\w-]+)\.md\)", source[0]))
        source[0] += "\n".join(["\n", "```{toctree}", ":hidden:", "", *pages, "```", ""])
    source[0] = re.sub(r"\]\((\.\./[^)#]+\.md)(#[^)]*)?\)", r"](path:\1)", source[0])
