"""PyTorch's own threads for our tiles: after an operation they spin for some milliseconds, in the way of any others."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from pairx import threads

_Function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@contextmanager
def of_torch() -> Iterator[None]:
    """Work that is shared in here is shared with the threads of torch, where they can be told what to do."""
    with threads.using(None if _parallel() is None else _team):
        yield


def _team(work: Callable[[], None], count: int) -> bool:
    """``work()`` on each of so many threads, the caller's among them; False if they are not as many as torch has ready."""
    if count != torch.get_num_threads():
        return False
    _parallel()(_Function(lambda _: work()), None, count, 0)
    return True


@lru_cache
def _parallel() -> Any:
    """``GOMP_parallel`` of the OpenMP that torch was built with, or None."""
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    try:
        found = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):  # other systems, or another OpenMP
        return None
    found.argtypes, found.restype = [_Function, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return found


def _forked() -> None:
    """The threads of OpenMP do not survive it, and it would wait for them."""
    global _parallel
    _parallel = lambda: None  # type: ignore[assignment]  # noqa: E731


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
