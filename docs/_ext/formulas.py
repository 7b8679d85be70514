"""Formulas as MathML, which browsers set by themselves: no script, nothing to fetch. The font comes from a package, cut to what is used."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

SIGNS = (
    "U+20-7E,U+A0-FF,U+2C6-2DD,U+300-338,U+391-3F5,U+2010-2044,U+20D7,U+2100-214F,U+2190-21FF,U+2200-22FF,U+2300-23B7,U+27E6-27EF,"
    "U+1D434-1D7CB"
)
STATIC = Path(__file__).parents[1] / "generated" / "static"


def mathml(latex: str, block: bool) -> str:
    r"""LaTeX as MathML; ``\operatorname`` stands upright and bars keep to what they enclose."""
    text = re.sub(r"\\(operatorname|text)\b\s*", r"\\mathrm", latex) if "\\operatorname" in latex else latex
    text = re.sub(r"\\(arg|mean)\b", r"\\mathrm{\1}", text).replace(r"\Big", "").replace(r"\textstyle", "")
    found = convert(text, display="block" if block else "inline")
    # A bar between letters is a fence here, not a relation with space around it.
    bar = r'<mo( stretchy="false")?>(&#x0007C;|&#x02016;|&#x02225;)</mo>'
    found = re.sub(bar, r'<mo\1 lspace="0" rspace="0" form="prefix">\2</mo>', found)
    return found.replace("<math ", f'<math aria-label="{html.escape(latex.strip())}" ', 1)


def visit_inline(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="formula">{mathml(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def font() -> None:
    """STIX Two Math as the package ziamath brings it, with the signs that formulas use."""
    import ziamath
    from fontTools import subset

    target = STATIC / "STIXTwoMath.woff"
    if target.exists():
        return
    STATIC.mkdir(parents=True, exist_ok=True)
    source = Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"
    subset.main([str(source), f"--unicodes={SIGNS}", "--flavor=woff", "--layout-features=*", f"--output-file={target}"])


def setup(app: Any) -> dict[str, bool]:
    font()
    app.add_html_math_renderer("mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
