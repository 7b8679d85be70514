"""``python growth.py [--bytes]``: time and peak bytes against n, of pairx and its peers, into results/<machine>/growth-<threads>.json.

``--bytes`` leaves the times away, which only a quiet machine can tell; a later run without it measures both. A peer that would need
more than ``ROOM`` bytes, or more than ``PATIENCE`` seconds, at a size is left out there, and the record says so.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import conftest  # sets the threads, before any library is imported, and the way to the dashboard
from dashboard.about import about, write
from loss_peers import LOSS_IMPLEMENTATIONS, LossCase
from peers import IMPLEMENTATIONS, Case

ROOM, PATIENCE = 3e9, 20.0
Call = Callable[[], Any]


@dataclass(frozen=True)
class Growth:
    """One chart: what grows, and who takes part."""

    title: str
    sizes: tuple[int, ...]
    power: int
    """The peak of a peer that keeps everything grows by this power of n: what says whether the next size still fits."""
    make: Callable[[int], Any]
    """A case of ``peers`` or ``loss_peers``, of a size."""
    who: tuple[str, ...]
    """The implementations; "pairx" is ours."""

    @property
    def loss(self) -> bool:
        return isinstance(self.make(8), LossCase)

    def call(self, who: str, n: int) -> Call | None:
        case = self.make(n)
        return (LOSS_IMPLEMENTATIONS if self.loss else IMPLEMENTATIONS)[who](case, *case.data())


SIZES = (250, 500, 1000, 2000, 4000, 8000)
GROWTH = [
    *(
        Growth(f"{m}, n x n pairs of 64 features, float32", SIZES, 2, lambda n, m=m: Case(m, m=n, n=n, d=64),
               ("pairx", "scipy", "sklearn", "torch.cdist", "jax.jit"))
        for m in ("cityblock", "euclidean")
    ),
    Growth("supcon with gradient, batch of n, 4 of a class", (256, 512, 1024, 2048, 4096, 8192), 2, lambda n: LossCase("supcon", n),
           ("pairx", "direct", "pytorch-metric-learning")),
    Growth("all triplets with gradient, batch of n, 8 of a class", (64, 128, 256, 512, 1024, 2048), 3,
           lambda n: LossCase("triplet_batch_all", n, each=8), ("pairx", "direct", "pytorch-metric-learning")),
]  # fmt: skip


def timed(call: Call) -> tuple[float, float]:
    """Fastest, and the median over it, of a warm call."""
    start = perf_counter()
    call()
    took = perf_counter() - start
    rounds = 1 if took > 5 else max(5, min(30, int(2 / took)))
    found = []
    for _ in range(rounds):
        start = perf_counter()
        call()
        found.append(perf_counter() - start)
    return min(found), median(found) / min(found)


def measured(growth: Growth, who: str, times: bool) -> Iterator[dict[str, Any]]:
    """One curve, size by size."""
    from pairx.measure import cpu_peak_bytes

    peak, took, before = 0.0, 0.0, 0
    for n in growth.sizes:
        row: dict[str, Any] = {"growth": growth.title, "implementation": who, "n": n, "peak_bytes": None, "seconds": None, "spread": None}
        factor = (n / before) ** growth.power if before else 1.0
        if peak * factor > ROOM or (times and took * factor > PATIENCE):
            what = f"about {peak * factor / 1e9:.0f} GB" if peak * factor > ROOM else f"about {took * factor:.0f} s"
            yield {**row, "reason": f"left out: it would take {what}"}
            continue
        try:
            call = growth.call(who, n)
        except ImportError as error:
            yield {**row, "reason": f"{error.name} is not installed"}
            return
        if call is None:
            yield {**row, "reason": f"{who} does not have it"}
            return
        held = sum(g.nbytes for g in call()) if growth.loss else 0  # gradients belong to the result
        found = cpu_peak_bytes(call)
        row["peak_bytes"] = None if found is None else found - held
        if times:
            row["seconds"], row["spread"] = timed(call)
            took = row["seconds"]
        peak, before = float(found or 0), n
        del call
        gc.collect()
        yield row


def main(times: bool) -> None:
    head, rows = about(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for growth in GROWTH:
            for who in growth.who:
                for row in measured(growth, who, times):
                    print(row["growth"], who, row["n"], row["peak_bytes"], row["seconds"], row.get("reason", ""), flush=True)
                    rows.append(row)
    print(write(f"growth-{conftest.THREADS}.json", {**head, "threads": conftest.THREADS, "rows": rows}))


if __name__ == "__main__":
    main("--bytes" not in sys.argv)
