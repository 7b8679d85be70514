"""What the figures say, in sentences: each is made of the results, or says what is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

from peers.table import size

from .charts import called, times
from .results import OURS, YARDSTICK, Machine, Peers, Timing, curves, ratios

SPEED = re.compile(r"(?P<what>\S+(?: p=\S+)?) (?P<size>\d+x\d+x\d+) (?P<dtype>\w+)(?:, (?P<kind>\w+))?")
"""The name of a case of distances."""
COMMON = ("2000x2000x128", "float32", None)
"""What the pictures and the first sentence are about."""


def parts(case: str) -> tuple[str, str]:
    """What a case is about, and its details."""
    found = SPEED.fullmatch(case)
    if found is None:
        what, _, rest = case.partition(" ")
        return what, rest
    kind = {"self": "one set", "gradient": "with gradient"}.get(found["kind"], found["kind"])
    return found["what"], " ".join(filter(None, (found["size"].replace("x", "×"), found["dtype"], kind)))


def common(peers: Peers) -> dict[str, dict[str, Timing]]:
    """The cases of one size that tell metrics apart."""
    return {
        c: p for c, p in peers.distances.items() if (m := SPEED.fullmatch(c)) and (m["size"], m["dtype"], m["kind"]) == COMMON and OURS in p
    }


def threads(n: int) -> str:
    return "one thread" if n == 1 else f"{n} threads"


def faster(machine: Machine) -> str | None:
    """How fast, in a sentence."""
    peers = machine.main
    if peers is None:
        return None
    cases = common(peers)
    scipy = sorted(r["scipy"].value for p in cases.values() if "scipy" in (r := ratios(p)))
    if not scipy:
        return None
    compared = {c: r for c, p in peers.cases.items() if (r := ratios(p))}
    first = sum(min(v.value for v in r.values()) >= 1 for r in compared.values())
    others = {n for p in peers.cases.values() for n in p} - {OURS, YARDSTICK}
    return (
        f"On {threads(peers.threads)} of {machine.cpu}, a matrix of 2000 × 2000 distances takes SciPy {times(scipy[0])} to "
        f"{times(scipy[-1])} as long as pairx (median of {len(scipy)} metrics: {times(median(scipy))}). Against all {len(others)} others, "
        f"pairx is the fastest in {first} of {len(compared)} cases."
    )


def slower(machine: Machine) -> list[tuple[str, str, float]]:
    """Where another library is faster: case, library, its time over ours; the worst first."""
    peers = machine.main
    found = [] if peers is None else [(c, n, r.value) for c, p in peers.cases.items() for n, r in ratios(p).items() if r.value < 1]
    return sorted(found, key=lambda item: item[2])


def smaller(machine: Machine) -> str | None:
    """How little memory, in a sentence: for each thing that grows, at the largest size that a peer still takes part in."""
    said = []
    for record in machine.growth.values():
        for title, found in curves(record).items():
            own = dict(next((c.peak for c in found if c.name == OURS), []))
            there = [(n, p, c.name) for c in found if c.name != OURS for n, p in c.peak if n in own]
            best = max(there, default=None)  # the largest size; there, the largest peer
            if best is not None and best[1] > 5 * own[best[0]]:
                n, theirs, name = best
                what = title.partition(",")[0].replace(" with gradient", "")
                said.append((theirs / own[n], f"{what} of {n}: {size(own[n])} (the {called(name)}: {size(theirs)})"))
        break
    if not said:
        return None
    return (
        "Losses of all pairs keep no n × n array. Peak bytes with the gradient: "
        + "; ".join(text for _, text in sorted(said, reverse=True))
        + "."
    )


def lead(machines: Sequence[Machine]) -> list[str]:
    """The first lines of the page."""
    measured = [m for m in machines if m.main is not None]
    if not measured:
        return ["Nothing has been timed yet: results come from nox -s peers on a quiet machine."]
    return [s for s in (faster(measured[0]), smaller(measured[0])) if s]
