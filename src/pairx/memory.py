"""How much memory is left: of the computer, and of the container around the process."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def free_ram() -> int | None:
    """Bytes that can still be allocated in main memory, or None where nobody can tell.

    The smaller of what the operating system calls available and what the control group (v2 or v1) still allows.
    """
    found = [n for n in (_system(), _cgroup()) if n is not None]
    return min(found) if found else None


def _system() -> int | None:
    if sys.platform == "win32":
        import ctypes

        class Status(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
                (name, ctypes.c_ulonglong) for name in ("total", "free", "page", "pagefree", "virtual", "virtualfree", "extended")
            ]

        status = Status(length=ctypes.sizeof(Status))
        return int(status.free) if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:  # macOS tells the total only
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _cgroup() -> int | None:
    root = Path("/sys/fs/cgroup")
    for limit, used, stat, cache in (
        (root / "memory.max", root / "memory.current", root / "memory.stat", "inactive_file"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes", root / "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            most = limit.read_text().strip()
            if most == "max" or int(most) > 1 << 60:
                continue
            held = int(used.read_text())
            # Cached files count as used but are given back on demand.
            reclaim = next((int(s.split()[1]) for s in stat.read_text().splitlines() if s.split()[0] == cache), 0)
            return max(0, int(most) - held + reclaim)
        except (OSError, ValueError, StopIteration, IndexError):
            continue
    return None
