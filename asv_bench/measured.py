"""asv with the arguments given, without what it prints of cases that were not chosen or are not there: thousands of rows of n/a.

python asv_bench/measured.py run HEAD^! --bench REGEX
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

FIGURE = re.compile(r"\d[\d.]*(±.*|[kMGT])|failed")
SKIPPED = re.compile(r"^.*For parameters: ")


def measured(lines: Iterable[str]) -> Iterator[str]:
    """The lines without empty rows, and without the two lines that asv prints for each case that it skipped."""
    held = ""
    for line in lines:
        if held and not line.lstrip().startswith("asv: skipped"):
            yield held
        if held and line.lstrip().startswith("asv: skipped"):
            held = ""
        elif SKIPPED.match(line):
            held = line
        else:
            held = ""
            cells = line.split()
            if not cells or cells[-1] != "n/a" or any(FIGURE.fullmatch(c) for c in cells):
                yield line
    if held:
        yield held


def main() -> int:
    with subprocess.Popen(["asv", *sys.argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        for line in measured(process.stdout or ()):
            print(line, end="", flush=True)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
