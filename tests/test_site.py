"""The built site, where there is one (``nox -s docs`` builds it first): it is whole, its links lead somewhere, and it needs nobody else."""

from __future__ import annotations

import re
import zlib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import pairx
from pairx.losses import LOSSES
from pairx.metrics import KERNELS, METRICS

SITE = Path(__file__).parents[1] / "site" / "docs"
pytestmark = pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="nox -s docs builds the site")
PAGES = sorted(p for p in SITE.rglob("*.html") if "_static" not in p.parts)  # that one is the theme's template


class Page(HTMLParser):
    """What a page loads, what it links to, the ids it has, and its formulas."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.formulas = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        self.ids.add(given.get("id", ""))
        self.formulas += tag == "math"
        if tag in ("script", "img", "iframe", "source") and "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon", "preconnect", "dns-prefetch"):
            self.loads.append(given.get("href", ""))
        if tag == "a":
            self.links.append(given.get("href", ""))


@cache
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@cache
def inventory() -> dict[str, str]:
    """Name -> kind, of everything that the reference describes."""
    *_, packed = (SITE / "objects.inv").read_bytes().split(b"\n", 4)
    lines = zlib.decompress(packed).decode().splitlines()
    return {name: kind for name, kind in (line.split(" ")[:2] for line in lines) if kind.startswith("py:")}


def public() -> list[str]:
    top = [f"pairx.{n}" for n in pairx.__all__ if n != "__version__"]
    mining = [f"pairx.mining.{n}" for n in pairx.mining.MINERS]
    return [*top, *(f"pairx.losses.{n}" for n in pairx.losses.__all__), *mining]


@pytest.mark.parametrize("name", public())
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert name in inventory()


def test_every_metric_and_loss_is_in_its_table() -> None:
    for name, rows in (("metrics", [*METRICS, *KERNELS]), ("losses", list(LOSSES))):
        text = (SITE / f"{name}.html").read_text(encoding="utf-8")
        cells = set(re.findall(r'<span class="pre">([a-z0-9_]+)(?:\(\))?</span>', text))
        assert set(rows) <= cells
        assert page(SITE / f"{name}.html").formulas >= len(rows)


@pytest.mark.parametrize("path", PAGES, ids=[str(p.relative_to(SITE)) for p in PAGES])
def test_page(path: Path) -> None:
    """It loads what lies in the folder, and a link inside the site ends at a file and a place that are there."""
    for target in page(path).loads:
        assert not urlsplit(target).scheme, f"{target} is not in the folder"
        assert not target.startswith("//"), f"{target} is not in the folder"
        assert (path.parent / unquote(urlsplit(target).path)).resolve().is_file(), target
    for link in page(path).links:
        parts = urlsplit(link)
        if parts.scheme or not link:
            continue
        end = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if end == SITE.parent / "index.html":  # the dashboard, which another session builds
            continue
        assert end.is_file(), link
        if parts.fragment and end.suffix == ".html":
            assert unquote(parts.fragment) in page(end).ids, link


def test_styles_fetch_nothing() -> None:
    for path in SITE.rglob("*.css"):
        for target in re.findall(r"url\(([^)]+)\)", path.read_text(encoding="utf-8")):
            assert not re.match(r"""["']?(https?:)?//""", target), f"{path.name}: {target}"
