"""Peak memory of a call on the CPU; each backend's ``measure.py`` has the ``peak_bytes`` of its library."""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def missing_tool() -> str | None:
    """Why memory on the CPU cannot be measured here, or None."""
    if find_spec("memray") is None:
        return "memray is not installed: pip install memray (Linux and macOS)"
    return None


def cpu_peak_bytes(function: Callable[[], Any]) -> int | None:
    """Bytes that a call takes at most above what was held before, its result included.

    Parameters
    ----------
    function : callable
        The call. It runs twice: what a first call compiles or caches does not count.

    Returns
    -------
    int or None
        None where there is no memray, or another of its trackers is active.
    """
    if missing_tool():
        return None
    from memray import FileFormat, FileReader, Tracker

    function()
    gc.collect()
    with TemporaryDirectory(prefix="pairx-") as folder:
        record = Path(folder) / "peak.bin"
        try:
            tracker = Tracker(record, file_format=FileFormat.AGGREGATED_ALLOCATIONS)
            with tracker:
                function()
        except RuntimeError as error:
            if "tracker" in str(error).lower():
                return None
            raise
        return int(FileReader(record).metadata.peak_memory)
