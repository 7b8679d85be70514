"""``pairx`` and ``python -m pairx``: the command line, or one line on how to install it."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        print(f"pairx: the command line needs {missing}: pip install 'pairx[cli]'", file=sys.stderr)
        return 2
    from .cli import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
