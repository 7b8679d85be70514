"""Pieces of rows on several threads. The caller's own thread takes part, so that one thread needs no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

Each = Callable[[Callable[[int, int], None], int, int], None]


@contextmanager
def crew(threads: int) -> Iterator[Each]:
    """``each(work, rows, least)`` calls ``work(start, stop)`` for pieces of the rows, of a multiple of so many, on threads that stay.

    Each thread draws its pieces, since threads of the library may go on spinning after a product, and take half of a processor.
    """
    pool, lock = ThreadPoolExecutor(max(threads - 1, 1), thread_name_prefix="pairx"), Lock()

    def each(work: Callable[[int, int], None], rows: int, least: int) -> None:
        step = max(rows, 1) if threads == 1 else -(-max(rows, 1) // (4 * threads * least)) * least
        todo = iter(range(0, rows, step))

        def draw() -> None:
            while True:
                with lock:
                    start = next(todo, None)
                if start is None:
                    return
                work(start, min(start + step, rows))

        others = [pool.submit(draw) for _ in range(min(threads, -(-rows // step)) - 1)]
        try:
            draw()
            for other in others:
                if not other.cancel():
                    other.result()
        except BaseException:
            with lock:
                todo = iter(range(0))  # the others stop after the piece they are at
            raise

    try:
        yield each
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)  # nobody may write any more
        raise
    pool.shutdown(wait=False)


def share(work: Callable[[int, int], int], rows: int, threads: int, least: int = 16) -> list[int]:
    """What ``work(start, stop)`` answers for pieces of the rows, each a multiple of ``least`` but the last."""
    found: list[int] = []
    with crew(threads) as each:
        each(lambda start, stop: found.append(work(start, stop)), rows, least)
    return found
