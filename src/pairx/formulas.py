"""The formulas of the table of metrics, which are LaTeX, as plain text for a terminal."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.")
_WORDS = {
    "neq": " != ", "lor": " or ", "cdot": " * ", "quad": "  ", "left": "", "right": "", "textstyle": "",
    "Delta": "delta_", ",": " ", " ": " ", "{": "{", "}": "}", "Big": "", "le": " <= ", "leq": " <= ", "pm": "+-", "cup": " or ",
    "propto": " ~ ", "lfloor": "floor(", "rfloor": ")", "ldots": "...",
}  # fmt: skip


def plain(formula: str) -> str:
    r"""A formula in LaTeX as plain text.

    Parameters
    ----------
    formula
        In the LaTeX of :attr:`pairx.Metric.formula`.

    Examples
    --------
    >>> plain(r"\sqrt{\tfrac12 \sum_k w_k (x_k - y_k)^2}")
    'sqrt(1/2 sum_k w_k (x_k - y_k)^2)'
    >>> plain(r"\frac{\sum_k x_k \log\tfrac{x_k}{y_k}}{n}")
    '(sum_k x_k log(x_k/y_k))/n'
    """
    text = _render(_TOKEN.findall(formula))
    return re.sub(r" +([,)])", r"\1", re.sub(r"\( +", "(", re.sub(r" +", " ", text))).strip()


def _render(tokens: list[str]) -> str:
    """Consumes the tokens up to the end of their group."""
    text = ""
    while tokens and (token := tokens.pop(0)) != "}":
        if token in "_^":
            found = _argument(tokens)
            text += token + (found if re.fullmatch(r"-?\w+", found) else f"({found})")
        elif token in (r"\frac", r"\tfrac"):
            quotient = "/".join(_whole(_argument(tokens)) for _ in range(2))
            text += f"({quotient})" if re.search(r"(log|sin|cos)(\^2)? ?$", text) else quotient
            text += " " * (bool(tokens) and tokens[0] not in (" ", ")", "}", r"\right"))
        elif token == r"\sqrt":
            text += f"{' ' * text[-1:].isalpha()}sqrt({_argument(tokens)})"
        elif token == r"\overline":
            text += f"conj({_argument(tokens)})"
        elif token in (r"\hat", r"\tilde"):
            text += f"{_argument(tokens)}'"
        elif token == r"\bar":
            text += f"mean({_argument(tokens)})"
        elif token in (r"\operatorname", r"\text", r"\mathrm"):
            text += _argument(tokens)
        elif token.startswith("\\"):
            word = _WORDS.get(token[1:], token[1:])
            text += " " * (text[-1:].isalnum() and word[:1].isalpha()) + word
        elif token == "{":
            text += _render(tokens)
        else:
            text += token
    return text


def _argument(tokens: list[str]) -> str:
    """The next group or symbol."""
    while tokens[0].isspace():
        tokens.pop(0)
    if tokens[0] == "{":
        tokens.pop(0)
        return _render(tokens).strip()
    if tokens[0] in (r"\hat", r"\bar", r"\sqrt", r"\overline", r"\tilde", r"\operatorname", r"\text", r"\mathrm"):
        return _render([tokens.pop(0), *_take(tokens)])
    return _render([tokens.pop(0)])


def _take(tokens: list[str]) -> list[str]:
    """The tokens of one group or symbol, removed."""
    taken, depth = [], 0
    while tokens:
        taken.append(tokens.pop(0))
        depth += (taken[-1] == "{") - (taken[-1] == "}")
        if not depth and not taken[-1].isspace():
            break
    return taken


def _whole(text: str) -> str:
    """In parentheses if it has several parts."""
    return text if re.fullmatch(r"[\w']+|\w+\([^()]*\)|\|[^|]*\|", text) else f"({text})"
