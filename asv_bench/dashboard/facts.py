"""The parts of the page about what runs where, every benchmark of asv, its history, and where it was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from peers.table import shown, size

from . import answers
from .charts import times
from .markup import Html, el, folded, gap, note, panels, table, when
from .results import Bench, Machine

# --- support --------------------------------------------------------------------------------------------------------------


def places(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(b, d) for b, devices in record["absent"].items() for d in devices]


def support(machines: Sequence[Machine]) -> Html:
    """Backend x metric x device, and every gap with its reason."""

    def one(machine: Machine) -> Html | None:
        if machine.support is None:
            return None
        record = machine.support
        cells = {(c["kind"], c["metric"], c["backend"], c["device"]): c for c in record["cells"]}
        # A place that no library has is no column; one that is merely absent here is, and stays empty.
        there = [(b, d) for b, d in places(record) if (record["absent"][b][d] or "") != f"{b} has no {d}"]
        names = list(dict.fromkeys([(c["kind"], c["metric"]) for c in record["cells"]] + table_names()))
        rows = []
        for kind, metric in names:
            label = escape(metric) + (f" <small>{kind}</small>" if kind != "distance" else "")
            rows.append([label, *(mark(cells.get((kind, metric, *p)), record["absent"][p[0]][p[1]]) for p in there)])
        columns = [f"{escape(b)}<br><small>{d}</small>" for b, d in there]
        key = (
            "A, N, C: the array, native and compiled engine; ∂: gradients. Filled: it is there; outlined: it is not, and the reasons stand "
            f"below. Underlined: the engine of an ordinary call of {record['rows']} × {record['rows']} rows. –: no such place here."
        )
        absent = [[f"{escape(b)}, {d}", escape(why)] for b, ds in record["absent"].items() for d, why in ds.items() if why]
        return "".join([
            note(key),
            table(["metric", *columns], rows, filtered=True, label="Backend by metric by device"),
            "<h4>Every gap in it</h4>",
            table(["reason", "what is missing", "on", "metrics"], reasons(record["cells"]), wide=True, label="Reasons"),
            "<h4>Places that are not there</h4>", table(["place", "reason"], absent, label="Absent places"),
        ])  # fmt: skip

    return panels(machines, one, "not recorded: nox -s support asks every backend that is installed.", lambda m: m.support)


def table_names() -> list[tuple[str, str]]:
    """The metrics of the project as it stands: one that is newer than a record is a row with a gap."""
    from pairx.metrics import KERNELS, METRICS, SIMILARITIES

    return [(row.kind, row.name) for t in (METRICS, KERNELS, SIMILARITIES) for row in t.values()]


LETTERS = {"array": "A", "native": "N", "compiled": "C"}


def mark(cell: dict[str, Any] | None, absent: str | None = None) -> Html:
    """One cell: which engines, and gradients; or why there is nothing."""
    if absent is not None:
        return el("abbr", "–", class_="none", title=absent)
    if cell is None:
        return el("span", "not recorded yet", class_="gap")
    found = []
    for engine, why in cell["engines"].items():
        kind = ("off" if why else "on") + (" chosen" if engine == cell["chosen"] else "")
        said = why or (cell["why"] if engine == cell["chosen"] else "there")
        found.append(el("abbr", LETTERS.get(engine, engine), class_=kind, title=f"{engine}: {said}"))
    kind, said = ("off", cell["gradient"]) if cell["gradient"] else ("on", "there")
    found.append(el("abbr", "∂", class_=kind, title=f"gradient: {said}"))
    return el("span", "".join(found), class_="cell")


def named(cell: dict[str, Any]) -> str:
    """A metric, with its kind where it is not a distance."""
    return str(cell["metric"]) + (f" ({cell['kind']})" if cell["kind"] != "distance" else "")


def reasons(cells: Sequence[dict[str, Any]]) -> list[list[Html]]:
    """Each reason once: what it takes away, where, and from which metrics."""
    found: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for c in cells:
        for what, why in (*c["engines"].items(), ("gradient", c["gradient"])):
            if why:
                found[what, why.replace(repr(c["metric"]), "…")][f"{c['backend']} ({c['device']})"].append(named(c))
    everything = {named(c) for c in cells}
    rows = []
    for (what, why), by_place in found.items():
        by_metrics: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for place, metrics in by_place.items():
            by_metrics[tuple(metrics)].append(place)
        for metrics, where in by_metrics.items():
            told = f"all {len(everything)}" if set(metrics) == everything else ", ".join(metrics)
            rows.append([escape(why), what, escape(", ".join(where)), escape(told)])
    return rows


def gpu(machines: Sequence[Machine]) -> Html:
    """Results of GPUs, or why there are none."""
    found = [m for m in machines if any("gpu" in key for b in m.benches.values() for key in b.values)]
    if found:
        return panels(found, lambda m: benches(m, lambda key: "gpu" in key), "")
    said = []
    for m in machines:
        why = [w for devices in m.support["absent"].values() if (w := devices.get("gpu"))] if m.support else []
        why = [w for w in why if not w.endswith("has no gpu")]  # a library that never runs there is no news
        said += [f"{m.name}: {'; '.join(dict.fromkeys(why))}."] if why else []
    return gap(" ".join(["No result of a GPU is in the repository: no machine that measured had one.", *said])) + note(
        "The benchmarks have GPU cases (torch, TensorFlow, JAX, CuPy). Results of a machine with one are a folder, and appear here."
    )


# --- asv ------------------------------------------------------------------------------------------------------------------


def quantity(value: float, unit: str) -> str:
    """A value of asv for people."""
    return size(int(value)) if unit == "bytes" else shown(value) if unit == "seconds" else f"{value:g} {unit}"


def bench_table(bench: Bench, keep: Callable[[tuple[str, ...]], bool]) -> Html | None:
    """One benchmark, its backends side by side."""
    values = {k: v for k, v in bench.values.items() if keep(k)}
    if not values:
        return None
    if "backend" not in bench.params:
        return table(["case", bench.unit], [[escape(", ".join(k) or bench.name), quantity(v, bench.unit)] for k, v in values.items()])
    i = bench.params.index("backend")
    columns = list(dict.fromkeys(k[i] for k in values))
    rows: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for k, v in values.items():
        rows[k[:i] + k[i + 1 :]][k[i]] = v
    body = [[escape(", ".join(k)), *(quantity(v[c], bench.unit) if c in v else "–" for c in columns)] for k, v in rows.items()]
    return table([", ".join(p for p in bench.params if p != "backend"), *map(escape, columns)], body, filtered=True, label=bench.name)


def benches(machine: Machine, keep: Callable[[tuple[str, ...]], bool] = lambda key: True) -> Html | None:
    """All of asv's benchmarks of a machine."""
    made = []
    for name, bench in sorted(machine.benches.items()):
        found = bench_table(bench, keep)
        if found:
            about = f"{bench.unit}, {len(bench.values)} cases, commit {bench.commit[:8]}"
            made.append(folded(f"{name.rpartition('.')[0] or name}: {about}", found))
    return "".join(made) or None


def libraries(machines: Sequence[Machine]) -> Html:
    """Every benchmark on every library."""
    made = panels(machines, benches, "asv has measured nothing here: nox -s bench, and -- -b Peak for peak bytes.")
    timed = any(b.unit == "seconds" for m in machines for b in m.benches.values())
    if timed or not any(m.benches for m in machines):
        return made
    return made + gap("No times of asv yet, peak bytes only: nox -s bench on a quiet machine.")


def regressions(machines: Sequence[Machine], found: list[list[Any]] | None) -> Html:
    """What asv's step detection says; None: asv has published nothing."""
    measured = max((len(m.commits) for m in machines), default=0)
    if measured < 2:
        count = f"{measured} commit{'s' * (measured != 1)}"
        return gap(f"asv has measured {count}: a regression takes at least two. nox -s bench_history on a quiet machine.")
    if found is None:
        return gap("asv's pages are not built, which look for steps: nox -s dashboard.")
    if not found:
        return f"<p>None: {measured} commits, no step upwards that asv's detection takes for one.</p>"
    rows = []
    units = {name: bench.unit for m in machines for name, bench in m.benches.items()}
    for name, _, axes, _, now, best, *_ in found:
        unit = units.get(name.partition("(")[0], "")
        on = escape(axes.get("machine", machines[0].name))
        rows.append([escape(name), on, times(now / best), quantity(best, unit), quantity(now, unit)])
    return table(["benchmark", "machine", "now over best", "best", "now"], rows, filtered=True)


def where(machines: Sequence[Machine]) -> Html:
    """Machine, versions, threads, commit and date of every record."""
    made = []
    for m in machines:
        rows = []
        heads = [(f"peers, {answers.threads(n)}", p.head) for n, p in m.peers.items()]
        heads += [(f"growth, {answers.threads(n)}", g) for n, g in m.growth.items()]
        heads += [(name, r) for name, r in (("support", m.support), ("agreement", m.agreement)) if r]
        for name, head in heads:
            kept = head.get("versions") or {}
            told = escape(", ".join(f"{k} {v}" for k, v in kept.items())) or el("span", UNKNOWN, class_="gap")
            commit = str(head.get("commit") or "?")
            rows.append([name, code(commit.rstrip("+")) + " with local changes" * commit.endswith("+"), escape(when(head)), told])
        described = escape(", ".join(f"{k} {v}" for k, v in m.about.items() if k in ("cpu", "num_cpu", "ram", "os")))
        if m.commits:
            span = code(m.commits[-1]) + (f" and {len(m.commits) - 1} before it, from {code(m.commits[0])}" if len(m.commits) > 1 else "")
            rows.append(["asv", span, "", described])
        first = next((h for _, h in heads), {})
        count, system = first.get("processors") or m.about.get("num_cpu") or "?", str(first.get("system") or m.about.get("os") or "?")
        gpus = next((", ".join(h["gpus"]) or "no GPU" for _, h in heads if "gpus" in h), "GPU: not recorded")
        about = el("p", f"{escape(m.cpu)}, {count} processors, {escape(gpus)}, {escape(system)}")
        made.append(
            el("div", el("h3", escape(m.name)) + about + table(["record", "commit", "date", "versions"], rows, wide=True), class_="panel")
        )
    return el("div", "".join(made), class_="panels n1") if made else gap("No machine has results.")


UNKNOWN = "the file does not say; written by an older session"


def code(commit: str) -> Html:
    """A commit."""
    return el("code", escape(commit[:10]))
