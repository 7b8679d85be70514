"""Two commits' results that ``runner.py`` measured on one machine: what grew, what shrank, what is new, what is gone.

python asv_bench/compare.py FOLDER BASE HEAD [--factor 1.02] [--least 65536]     exits with 1 where something grew
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, float | None]
ACCEPTED = Path(__file__).with_name("accepted.toml")
"""Growth that was decided: a case, how far it may grow, and why."""


def figures(folder: Path, commit: str) -> Figures:
    """Each case measured (None where it failed), as ``name(parameters)``; empty where there is no file."""
    found: Figures = {}
    for path in sorted(folder.glob(f"{commit[:8]}-installed-*.json")):
        for name, (values, params, *_) in json.loads(path.read_text(encoding="utf-8"))["results"].items():
            for case, value in zip(itertools.product(*params), values, strict=True):
                if value is None or not math.isnan(value):
                    found[f"{name}({', '.join(case)})"] = value
    return found


def bytes_text(count: float) -> str:
    """As many digits as tell 2 % apart."""
    return f"{count / 1e6:.3f} MB" if count >= 1e5 else f"{count:.0f} B"


def compare(
    base: Figures, head: Figures, factor: float, least: float, accepted: Sequence[Mapping[str, Any]] = ()
) -> tuple[list[str], list[str]]:
    """What fails, and the report. A case that is new or that the base could not run has nothing to be compared with, and passes.

    ``accepted``: cases (a regular expression) that may grow to a number of bytes, and why.
    """
    fails, report = [], []
    for case, value in head.items():
        before = base.get(case)
        if value is None:
            fails.append(f"FAILED   {case}")
        elif before is not None and value > before * factor and value > before + least:
            reasons = [a["why"] for a in accepted if re.search(a["case"], case) and value <= a["bytes"]]
            text = f"{case}: {bytes_text(before)} -> {bytes_text(value)} (x {value / before:.2f})"
            if reasons:
                report.append(f"accepted {text}: {reasons[0]}")
            else:
                fails.append(f"GREW     {text}")
        elif before is not None and before > value * factor and before > value + least:
            report.append(f"shrank   {case}: {bytes_text(before)} -> {bytes_text(value)} (x {value / before:.2f})")
    new, gone = [c for c in head if base.get(c) is None and head[c] is not None], [c for c in base if c not in head]
    for word, cases in (("new", new), ("gone", gone)):
        if cases:
            report.append(f"{word:<8} {len(cases)}: {', '.join(cases[:3])}{', ...' * (len(cases) > 3)}")
    same = sum(1 for c, v in head.items() if v is not None and base.get(c) is not None)
    report.append(f"{same} cases compared, {sum(f.startswith('GREW') for f in fails)} grew by more than {100 * (factor - 1):.3g} %")
    return fails, report


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("base")
    parser.add_argument("head")
    parser.add_argument("--factor", type=float, default=1.02)
    parser.add_argument("--least", type=float, default=1 << 16, help="bytes that do not count: Python's own objects")
    arguments = parser.parse_args()
    base, head = figures(arguments.folder, arguments.base), figures(arguments.folder, arguments.head)
    if not head:
        print(f"Nothing was measured of {arguments.head[:8]}.")
        return 1
    accepted = tomllib.loads(ACCEPTED.read_text(encoding="utf-8")).get("accepted", [])
    fails, report = compare(base, head, arguments.factor, arguments.least, accepted)
    print("\n".join([*fails, *report]))
    return 1 if fails else 0


if __name__ == "__main__":
    sys.exit(main())
