"""The parts of the page about speed and size. Each is HTML of what the machines have, and a worded gap where they have nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from html import escape

from peers.table import shown, size

from . import answers
from .charts import Lane, Mark, called, curve_chart, lanes, legend, round_size, round_time, times
from .markup import Html, el, folded, gap, note, panels, table
from .results import OURS, YARDSTICK, Machine, Peers, Ratio, Record, Timing, curves, ratios

FASTER = "← the other is faster", "pairx is faster →"
SMALLER = "← the other is smaller", "pairx is smaller →"
RUN_PEERS = "not timed: nox -s peers on a quiet machine writes peers-1.json and peers-2.json."


def of_peers(machine: Machine) -> Record | None:
    """Where the figures of the peers come from."""
    return machine.main.head if machine.main else None


def figure(ratio: float, of: str = "") -> Html:
    """A ratio at the end of a row."""
    return el("em", times(ratio), class_="behind" if ratio < 1 else None) + (" " + el("small", escape(of)) if of else "")


def case_lanes(cases: dict[str, dict[str, Timing]], of: Callable[[dict[str, Timing]], dict[str, Ratio]] = ratios) -> list[Lane]:
    """A lane for each case that ours and a peer have."""
    found = []
    for case, timings in cases.items():
        compared = of(timings)
        if not compared:
            continue
        best = min(compared, key=lambda n: compared[n].value)
        what, detail = answers.parts(case)
        marks = [
            Mark(n, r, f"{called(n)}: {times(r.value)} our time ({times(r.low)} to {times(r.high)})", n == best)
            for n, r in sorted(compared.items(), key=lambda item: -item[1].value)
        ]
        found.append(Lane(what, detail, marks, figure(compared[best].value, called(best))))
    return found


def timing_table(cases: dict[str, dict[str, Timing]]) -> Html:
    """All numbers of a run."""
    names = list(dict.fromkeys(n for t in cases.values() for n in t if n not in (OURS, YARDSTICK)))
    losses = any(t.peak is not None for c in cases.values() for t in c.values())
    head = ["case", "pairx", "spread", *(["peak"] if losses else ["in matrix products"]), *(escape(called(n)) for n in names)]
    rows = []
    for case, timings in cases.items():
        own = timings.get(OURS)
        if own is None:
            continue
        product = timings.get(YARDSTICK)
        extra = size(own.peak) if losses else f"{own.fastest / product.fastest:.1f}" if product else "–"
        found = [escape(case), shown(own.fastest), f"{own.median / own.fastest:.2f}", extra]
        for n in names:
            t = timings.get(n)
            found.append("–" if t is None else times(t.fastest / own.fastest) + (f", {size(t.peak)}" if t.peak is not None else ""))
        rows.append(found)
    return table(head, rows, filtered=True, label="All figures") + note(
        "A peer's figure is its time over ours; – where it does not have the case."
    )


def present(cases: dict[str, dict[str, Timing]]) -> list[str]:
    return list(dict.fromkeys(n for t in cases.values() for n in ratios(t)))


def run_speed(peers: Peers, cases: dict[str, dict[str, Timing]]) -> Html:
    """One run's ratios, and all its figures."""
    if not case_lanes(cases):
        return gap(f"On {answers.threads(peers.threads)}: no case that pairx and a peer both have.")
    on = answers.threads(peers.threads)
    chart = lanes(case_lanes(cases), f"Time of others over time of pairx, {on}", *FASTER)
    return legend(present(cases)) + chart + folded(f"All figures, {on}", timing_table(cases))


def speed(machines: Sequence[Machine]) -> Html:
    def one(machine: Machine) -> Html | None:
        runs = [p for p in machine.peers.values() if p.distances]
        if not runs:
            return None
        first = run_speed(runs[0], runs[0].distances)
        return first + "".join(folded(f"The same on {answers.threads(p.threads)}", run_speed(p, p.distances)) for p in runs[1:])

    return panels(machines, one, RUN_PEERS, of_peers, narrow=True)


def behind(machines: Sequence[Machine]) -> Html:
    """Where somebody is faster than pairx, case by case."""

    def one(machine: Machine) -> Html | None:
        if machine.main is None:
            return None
        rows = [[escape(c), escape(called(n)), times(v)] for c, n, v in answers.slower(machine)]
        return table(["case", "faster than pairx", "its time over ours"], rows) if rows else "<p>In no case that was measured.</p>"

    return panels(machines, one, RUN_PEERS, of_peers, narrow=True)


def losses(machines: Sequence[Machine]) -> Html:
    """Time and bytes of losses."""

    def one(machine: Machine) -> Html | None:
        runs = [p for p in machine.peers.values() if p.losses]
        if not runs:
            return None
        cases = runs[0].losses

        def peaks(timings: dict[str, Timing]) -> dict[str, Ratio]:
            own = timings.get(OURS)
            if own is None or not own.peak:
                return {}
            return {n: Ratio(v, v, v) for n, t in timings.items() if n != OURS and t.peak and (v := t.peak / own.peak)}

        memory = case_lanes(cases, peaks)
        sizes = lanes(memory, "Peak bytes of others over those of pairx", *SMALLER) if memory else gap("No peak bytes were recorded.")
        more = "".join(folded(f"The same on {answers.threads(p.threads)}", run_speed(p, p.losses)) for p in runs[1:])
        return f"<h4>Time</h4>{run_speed(runs[0], cases)}<h4>Peak bytes</h4>{legend(present(cases))}{sizes}{more}"

    return panels(machines, one, RUN_PEERS, of_peers, narrow=True)


def growth(machines: Sequence[Machine]) -> Html:
    """Time and peak bytes against n, side by side."""

    def one(machine: Machine) -> Html | None:
        made = []
        for threads, record in machine.growth.items():
            for title, found in curves(record).items():
                drawn = []
                for what, points, unit in (("Peak bytes", lambda c: c.peak, round_size), ("Time", lambda c: c.seconds, round_time)):
                    if any(points(c) for c in found):
                        drawn.append(el("figure", curve_chart(found, points, unit, f"{what} of {title}") + el("figcaption", what)))
                    else:
                        drawn.append(gap(f"{what} against n: not measured on this machine yet. nox -s growth on a quiet one."))
                stops = [f"{called(c.name)}, {c.reason}" for c in found if c.reason]
                made.append(el("h4", f"{escape(title)} <small>{answers.threads(threads)}</small>"))
                made.append(el("div", "".join(drawn), class_="pair") + (note(escape("; ".join(stops)) + ".") if stops else ""))
        return "".join(made) or None

    return panels(
        machines, one, "not measured: nox -s growth writes growth-1.json.", lambda m: next(iter(m.growth.values()), None), narrow=True
    )


def threads(machines: Sequence[Machine]) -> Html:
    """Two threads against one: our time on one over that on two, beside the yardstick's."""

    def one(machine: Machine) -> Html | None:
        if len(machine.peers) < 2:
            return None
        few, many = (machine.peers[n] for n in (min(machine.peers), max(machine.peers)))
        found = []
        for case, timings in few.cases.items():
            other = many.cases.get(case, {})
            both = {n: Ratio(a.fastest / b.fastest, a.fastest / b.median, a.median / b.fastest)
                    for n in (YARDSTICK, OURS) if (a := timings.get(n)) and (b := other.get(n))}  # fmt: skip
            if OURS in both:
                marks = [Mark(n, r, f"{called(n)}: {times(r.value)}", n == OURS) for n, r in both.items()]
                found.append(Lane(*answers.parts(case), marks, figure(both[OURS].value)))
        sides = f"← {many.threads} threads are slower", f"{many.threads} threads are faster →"
        return legend([OURS, YARDSTICK]) + lanes(found, f"Time on {few.threads} over time on {many.threads} threads", *sides)

    return panels(machines, one, "one number of threads only: nox -s peers measures one and two.", of_peers, narrow=True)


def summary(machines: Sequence[Machine]) -> Html:
    """How fast against each peer over all cases: one lane for a peer, one dot for a case."""

    def one(machine: Machine) -> Html | None:
        if machine.main is None:
            return None
        by_peer: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for case, timings in machine.main.cases.items():
            for n, r in ratios(timings).items():
                by_peer[n].append((r.value, case))
        found = []
        for n, cases in sorted(by_peer.items(), key=lambda item: -sorted(item[1])[len(item[1]) // 2][0]):
            cases.sort()
            middle = cases[len(cases) // 2][0]
            marks = [Mark(n, Ratio(v, v, v), f"{case}: {times(v)}") for v, case in cases]
            found.append(Lane(called(n), f"{len(cases)} cases", marks, figure(middle, "median")))
        return lanes(found, "Time of each library over that of pairx, one dot for each case", *FASTER) if found else None

    return panels(machines, one, RUN_PEERS, of_peers, narrow=True)
