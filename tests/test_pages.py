"""Every code block of the docs runs, and what it prints is what the page says.

A section stands alone: it imports what it needs, and its blocks share one namespace. One that needs a library which is not
there is skipped. In a block with prompts (``>>>``) every answer is compared; ``...`` in an answer stands for anything.
"""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pairx.losses import LOSSES
from pairx.metrics import KERNELS, METRICS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "generated" not in p.parts)
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", flags=re.M | re.S)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Section(NamedTuple):
    page: Path
    title: str
    blocks: list[tuple[int, str]]
    """Line and text of each block of Python."""


def sections(page: Path) -> Iterator[Section]:
    """Those with code, from one heading of the first or second level to the next."""
    text = page.read_text(encoding="utf-8")
    # A comment in a block looks like a heading: blank the blocks while looking for headings, keeping their length.
    outside = FENCE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    starts = [(m.start(), m[1]) for m in re.finditer(r"^#{1,2} (.+)$", outside, flags=re.M)]
    for (start, title), end in zip(starts, [*(s for s, _ in starts[1:]), len(text)], strict=True):
        blocks = [
            (text.count("\n", 0, start + m.start(2)), m[2]) for m in FENCE.finditer(text[start:end]) if m[1] in ("python", "pycon", "py")
        ]
        if blocks:
            yield Section(page, title, blocks)


def imported(code: str) -> set[str]:
    """Root modules that a block imports."""
    lines = [e.source for e in doctest.DocTestParser().get_examples(code)] if ">>>" in code else [code]
    found: set[str] = set()
    for node in (n for line in lines for n in ast.walk(ast.parse(line))):
        if isinstance(node, ast.Import):
            found |= {a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    """A page may add a metric or a loss: it is gone after the test."""
    kept = [(table, dict(table)) for table in (METRICS, KERNELS, LOSSES)]
    yield
    for table, rows in kept:
        table.clear()
        table.update(rows)


ALL = [s for page in PAGES for s in sections(page)]


@pytest.mark.parametrize("section", ALL, ids=[f"{s.page.relative_to(DOCS)}: {s.title}" for s in ALL])
def test_section(section: Section) -> None:
    for _, code in section.blocks:
        for name in sorted(imported(code)):
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed")
    space: dict[str, object] = {"__name__": "page"}
    for line, code in section.blocks:
        where = f"{section.page.name}:{line + 1}"
        if ">>>" not in code:
            exec(compile("\n" * line + code, str(section.page), "exec"), space)
            continue
        said: list[str] = []
        test = doctest.DocTestParser().get_doctest(code, space, where, str(section.page), line)
        doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=said.append, clear_globs=False)
        space = test.globs
        assert not said, "".join(said)


# --- the tables of docs/moving ------------------------------------------------------------------------------------------

ROW = re.compile(r"^\| `(.+?)` \| `(.+?)` \| ?(.*?) ?\|$", flags=re.M)
MOVES = [(page, *m.groups()) for page in PAGES if page.parent.name == "moving" for m in ROW.finditer(page.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def arrays() -> dict[Path, dict[str, object]]:
    """What the first block of each page makes."""
    return {}


@pytest.mark.parametrize("page, there, here, note", MOVES, ids=[f"{m[0].stem}: {m[2]}" for m in MOVES])
def test_move(page: Path, there: str, here: str, note: str, arrays: dict[Path, dict[str, object]]) -> None:
    """Both calls of a row give the same numbers; where it says that they differ, they do."""
    code = next(sections(page)).blocks[0][1]
    for name in sorted(imported(code)):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    if page not in arrays:
        exec(code, arrays.setdefault(page, {}))
    old, new = (np.asarray(eval(call, arrays[page]), dtype=float) for call in (there, here))
    assert old.shape == new.shape
    scale = np.abs(old).max()
    same = np.allclose(old, new, rtol=1e-6, atol=1e-9 * scale)
    assert same != note.startswith("≠"), f"{there} = {old}, {here} = {new}"


def test_every_row_is_a_move() -> None:
    """No row of these tables escapes the pattern above."""
    for page in {m[0] for m in MOVES}:
        rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
        assert len(rows) == sum(m[0] == page for m in MOVES), page
    assert len({m[0] for m in MOVES}) == 5


def test_there_are_pages_with_code() -> None:
    assert len(ALL) > 20
    assert sum(">>>" in code for s in ALL for _, code in s.blocks) > 20


def test_a_wrong_answer_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n\n```python\n>>> 1 + 1\n3\n\n```\n", encoding="utf-8")
    (section,) = sections(page)
    with pytest.raises(AssertionError, match="Expected"):
        test_section(section)


def test_what_blocks_print_is_compared_and_not_only_shown() -> None:
    """No page has a block of output that nothing checks."""
    for page in PAGES:
        languages = [m[1] for m in FENCE.finditer(page.read_text(encoding="utf-8"))]
        assert not {"text", "console", "output"} & set(languages), page
