"""Threads of our own. They wait for the next call, and the thread of a call takes part in its work.

To start a thread takes as long as many calls do, so those that were needed once stay. Calls from several threads share them: there are
never more than one call asked for, however many calls there are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from threading import Lock, Thread, current_thread, main_thread
from typing import TypeVar

Piece = TypeVar("Piece")
Answer = TypeVar("Answer")


def share(work: Callable[[Piece], object], pieces: Iterable[Piece], threads: int) -> None:
    """``work(piece)`` for each of the pieces, on so many threads at most, of which the caller's is one.

    Each thread draws its pieces: others of the library may go on spinning after a product, and take half of a processor. When one
    fails, Ctrl-C included, the others stop after the piece that they are at, and only then the error goes on.
    """
    todo, lock = iter(pieces), Lock()
    if threads == 1:
        for piece in todo:
            work(piece)
        return

    def draw() -> None:
        nonlocal todo
        try:
            while True:
                with lock:
                    piece = next(todo, _NONE)
                if piece is _NONE:
                    return
                work(piece)  # type: ignore[arg-type]
        except BaseException:
            with lock:
                todo = iter(())
            raise

    if _by_team(draw, threads):
        return
    turns = [_Turn(draw) for _ in range(threads - 1)]
    _POOL.submit(turns)
    try:
        draw()
    finally:
        interrupt = None
        for turn in turns:
            interrupt = turn.end() or interrupt
        error = interrupt or next((turn.error for turn in turns if turn.error is not None), None)
        turns.clear()
    if error is not None:
        try:
            raise error
        finally:
            del error, interrupt  # their traceback knows this frame


def share_rows(work: Callable[[int, int], Answer], rows: int, threads: int, least: int = 16) -> list[Answer]:
    """What ``work(start, stop)`` answers for pieces of the rows, each a multiple of ``least`` but the last."""
    if threads == 1 or rows <= least:
        return [work(0, rows)] if rows else []
    step, found = -(-rows // (4 * threads * least)) * least, []

    def piece(start: int) -> None:
        found.append(work(start, min(start + step, rows)))

    share(piece, range(0, rows, step), min(threads, -(-rows // step)))
    return found


@contextmanager
def using(team: Team | None) -> Iterator[None]:
    """Threads of a library in place of ours. Only those of the main thread: a library may have others for each thread."""
    before = _TEAM.set(team if current_thread() is main_thread() else None)
    try:
        yield
    finally:
        _TEAM.reset(before)


def _by_team(draw: Callable[[], None], threads: int) -> bool:
    """The work by the team, if there is one that can."""
    team, errors, context = _TEAM.get(), list[BaseException](), copy_context()

    def alone() -> None:
        _TEAM.set(None)  # one team at a time
        draw()

    def work() -> None:
        try:
            context.copy().run(alone)
        except BaseException as error:
            errors.append(error)

    if team is None or not team(work, threads):
        return False
    try:
        draw()  # nothing is left, unless Ctrl-C came before a thread's first line
        for error in sorted(errors, key=lambda e: not isinstance(e, KeyboardInterrupt)):
            raise error
    finally:
        errors.clear()  # their traceback knows this frame
    return True


Team = Callable[[Callable[[], None], int], bool]
"""Calls a function on so many threads at once, the caller's among them; False, and nothing was called, if it cannot."""
_TEAM: ContextVar[Team | None] = ContextVar("team", default=None)
_NONE = object()


class _Turn:
    """What one more thread is asked for: the first that is free takes it, unless the call has ended before."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work
        self.context = copy_context()
        self.error: BaseException | None = None
        self.taken, self.running = Lock(), Lock()
        self.running.acquire()

    def run(self) -> None:
        if not self.taken.acquire(blocking=False):
            return
        try:
            assert self.work is not None
            self.context.run(self.work)
        except BaseException as error:
            self.error = error
        finally:
            self.work = None
            self.running.release()

    def end(self) -> KeyboardInterrupt | None:
        """From now on nobody takes it, and who did is done. Memory is being written until then: Ctrl-C does not end the wait."""
        interrupt = None
        while True:
            try:
                if self.taken.acquire(blocking=False):
                    self.work = None
                    self.running.release()
                with self.running:
                    return interrupt
            except KeyboardInterrupt as error:
                interrupt = error


class _Pool:
    """The threads that wait, and what they wait for."""

    def __init__(self) -> None:
        self.turns: SimpleQueue[_Turn] = SimpleQueue()
        self.count, self.lock = 0, Lock()

    def submit(self, turns: list[_Turn]) -> None:
        with self.lock:
            while self.count < len(turns):
                try:
                    Thread(target=_serve, args=(self.turns,), name=f"pairx-{self.count}", daemon=True).start()
                except RuntimeError:  # the system has none left, or Python is about to end: the caller does what is to be done
                    break
                self.count += 1
        for turn in turns:
            self.turns.put(turn)


def _serve(turns: SimpleQueue[_Turn]) -> None:
    while True:
        turns.get().run()


_POOL = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.__init__)  # type: ignore[misc]  # a child has no threads but its own
