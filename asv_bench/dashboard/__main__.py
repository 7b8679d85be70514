"""``python -m dashboard site SITE PACKAGES``: asv's pages made to work offline, where there are any, and our page, into SITE.

``python -m dashboard stage FOLDER SITE``: what ``asv publish`` needs into FOLDER, for pages in SITE.
``python -m dashboard pictures``: the SVG of the README.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import offline, pictures
from .page import page
from .results import read

RESULTS = Path(__file__).parents[1] / "results"
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


def build(site: Path, packages: Path) -> None:
    """Into a folder in which asv may have published."""
    regressions, links = None, []
    history = site / "asv"
    if (history / "index.html").is_file():
        path = history / "regressions.json"
        regressions = json.loads(path.read_text(encoding="utf-8"))["regressions"] if path.is_file() else None
        offline.make(history, packages)
        links.append(("History (asv)", "asv/index.html"))
    if (site / "docs" / "index.html").is_file():
        links.append(("Documentation", "docs/index.html"))
    site.mkdir(parents=True, exist_ok=True)
    (site / "index.html").write_text(page(read(RESULTS), found_regressions=regressions, links=links), encoding="utf-8")


def main(command: str, *paths: str) -> None:
    where = [Path(p).resolve() for p in paths]
    if command == "pictures":
        pictures.write(PICTURES, read(RESULTS))
    elif command == "stage":
        offline.stage(RESULTS, RESULTS.with_name("asv.conf.json"), *where)
    else:
        build(*where)


if __name__ == "__main__":
    main(*sys.argv[1:])
