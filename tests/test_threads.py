"""Work that is shared by threads: ours, or those that a library has."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar

import numpy as np
import pytest

import pairx
from pairx import threads
from pairx.threads import share, share_rows, using


def on_new_threads(work: Callable[[], None], count: int) -> bool:
    """A team whose threads Python has not seen before."""
    team = [threading.Thread(target=work) for _ in range(count - 1)]
    for t in team:
        t.start()
    work()
    for t in team:
        t.join()
    return True


TEAMS = {"ours": None, "a library's": on_new_threads, "a library's that cannot": lambda work, count: False}
team = pytest.mark.parametrize("team", TEAMS.values(), ids=TEAMS)


@team
@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_piece_once(team: threads.Team | None, count: int):
    done: list[int] = []
    with using(team):
        share(lambda piece: (time.sleep(0.001), done.append(piece)), range(40), count)
        rows = share_rows(lambda start, stop: (start, stop), 1000, count, 16)
        assert share_rows(lambda start, stop: start, 0, count) == []
    assert sorted(done) == list(range(40))
    spans = sorted(rows)
    assert spans[0][0] == 0
    assert spans[-1][1] == 1000
    assert [stop for _, stop in spans[:-1]] == [start for start, _ in spans[1:]]
    assert all(start % 16 == 0 for start, _ in spans)


@team
def test_several_at_once(team: threads.Team | None):
    """Four pieces that wait for each other need four threads, unless the team is not there; then ours."""
    together = threading.Barrier(4)
    with using(team):
        share(lambda piece: together.wait(timeout=30), range(4), 4)


@team
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("caller", [True, False], ids=["in the caller", "in another thread"])
def test_an_error_stops_the_other_threads(team: threads.Team | None, kind: type[BaseException], caller: bool):
    """Nobody writes any more when it goes on."""
    done, running = [], []
    both = threading.Barrier(2)

    def work(piece: int) -> None:
        done.append(piece)
        if piece < 2:
            both.wait(timeout=30)
        if (threading.current_thread() is threading.main_thread()) == caller:
            raise kind("here")
        running.append(piece)
        time.sleep(0.05)
        running.remove(piece)

    with using(team), pytest.raises(kind, match="here"):
        share(work, range(50), 2)
    assert not running
    assert len(done) < 5


def test_threads_stay():
    share(lambda piece: time.sleep(0.001), range(20), 3)
    before = threading.active_count()
    for _ in range(20):
        share(lambda piece: None, range(20), 3)
    assert threading.active_count() == before


def test_calls_from_many_threads_share_them():
    share(lambda piece: None, range(9), 3)
    before, wrong = threading.active_count(), []

    def call() -> None:
        for _ in range(50):
            done: list[int] = []
            share(done.append, range(30), 3)
            if sorted(done) != list(range(30)):
                wrong.append(done)

    callers = [threading.Thread(target=call) for _ in range(6)]
    for t in callers:
        t.start()
    assert threading.active_count() <= before + 6
    for t in callers:
        t.join()
    assert not wrong
    assert threading.active_count() == before


@team
def test_the_context_goes_with_the_work(team: threads.Team | None):
    told: ContextVar[int] = ContextVar("told", default=0)
    told.set(7)
    found = []
    with using(team), np.errstate(over="raise"):
        share(lambda piece: (time.sleep(0.001), found.append((told.get(), np.geterr()["over"]))), range(20), 3)
    assert set(found) == {(7, "raise")}


def test_what_was_shared_is_not_held():
    """A thread that was not needed must not keep the arrays of a call until the next one."""
    import gc
    import weakref

    class Held:
        pass

    held = Held()
    share(lambda piece, held=held: None, range(2), 4)
    gone = weakref.ref(held)
    del held
    gc.collect()
    until = time.monotonic() + 10
    while gone() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert gone() is None


def test_a_system_without_threads_left(monkeypatch: pytest.MonkeyPatch):
    """The caller does the work."""
    monkeypatch.setattr(threads, "_POOL", threads._Pool())
    monkeypatch.setattr(threads.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
    done: list[int] = []
    share(done.append, range(9), 3)
    assert done == list(range(9))


@pytest.mark.backends("torch")
def test_torch_lends_its_threads(backend):
    """The same bits, from tiles on the threads of its OpenMP."""
    pytest.importorskip("numba", reason="no compiled engine")
    from pairx_backends.torch import team as of

    if of._parallel() is None:
        pytest.skip("torch has another OpenMP here")
    torch, asked = backend.lib, []
    before = torch.get_num_threads()
    x = backend.asarray(np.random.default_rng(0).random((600, 90)), "float64")

    def call(count: int):
        leaf = x.clone().requires_grad_()
        with pairx.options(threads=count, engine="compiled"):
            d = pairx.cdist(leaf, x, "canberra")
            d.sum().backward()
        return d.detach(), leaf.grad

    want = call(1)
    original = of._team
    try:
        torch.set_num_threads(2)
        of._team = lambda work, count: asked.append(count) or original(work, count)
        got = call(2)
    finally:
        torch.set_num_threads(before)
        of._team = original
    assert set(asked) == {2}
    assert len(asked) >= 2  # forward and backward
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


@pytest.mark.backends("torch")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_leaves_them_alone(backend):
    """Where those of OpenMP are gone, and it would wait for them for ever."""
    pytest.importorskip("numba", reason="no compiled engine")
    code = (
        "import os, signal, torch, pairx\n"
        "torch.set_num_threads(2)\n"
        "x = torch.rand(900, 33)\n"
        "call = lambda: pairx.cdist(x, x + 0, metric='canberra', engine='compiled')\n"
        "with pairx.options(threads=2):\n"
        "    torch.exp(torch.rand(1000, 1000))\n"
        "    want = call()\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        signal.alarm(30)\n"
        "        os._exit(0 if (call().numpy() == want.numpy()).all() else 3)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert found.stdout == "0\n", found.stderr
