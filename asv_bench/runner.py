"""The benchmarks on one commit in the environment that is there, written as asv writes its results.

asv builds an environment for each commit and starts a process for each case. A GPU machine may have neither a network nor asv, and peaks
of memory need no process of their own: here one process for each library goes through all its cases, in minutes. pairx need not be
installed: its sources are taken from git (or from the folder as it stands, where there is no git) together with their entry points.

    python asv_bench/runner.py --machine NAME --kind PeakCPU --backend numpy,torch [--commit REVISION] [--select REGEX]...
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib
import io
import itertools
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
import timeit
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MODULES = ("distances", "norms", "losses", "overhead")
COLUMNS = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_q_25", "stats_q_75",
           "stats_number", "stats_repeat"]  # fmt: skip
STATS = COLUMNS[5:]
Case = tuple[Any, ...]


# ---------------------------------------------------------------- one library, in a process of its own


def cases(backend: str, kind: str, select: list[str]) -> Iterator[tuple[str, type, str, Case]]:
    """The benchmarks of one library: name, class, method and parameters, chosen as ``asv --bench`` chooses."""
    from benchmarks.places import Bench

    for module in MODULES:
        for found in vars(importlib.import_module(f"benchmarks.{module}")).values():
            if not (isinstance(found, type) and issubclass(found, Bench) and found.params and found.__name__.startswith(kind)):
                continue
            method = "track_peak" if hasattr(found, "track_peak") else "time_call"
            name = f"{module}.{found.__name__}.{method}"
            for case in itertools.product(*found.params):
                text = f"{name}({', '.join(map(repr, case))})"
                if case[0] == backend and (not select or any(re.search(s, text) for s in select)):
                    yield name, found, method, case


def seconds(call: Callable[[], Any], enough: float = 1.0) -> dict[str, Any]:
    """The median of at least eight samples of 10 ms or more, and its spread: the extremes of eight hold it with 99 %."""
    timer = timeit.Timer(call)
    number, one = 1, timer.timeit(1)
    while number * one < 0.01:
        number *= max(2, min(10, math.ceil(0.012 / max(number * one, 1e-9))))
        one = timer.timeit(number) / number
    samples: list[float] = []
    while len(samples) < 8 or (len(samples) < 30 and sum(samples) * number < enough):
        samples.append(timer.timeit(number) / number)
    low, middle, high = statistics.quantiles(samples, n=4)
    found = dict(zip(STATS, (min(samples), max(samples), low, high, number, len(samples)), strict=True))
    return {"result": middle, **found}


def measure(kind: type, method: str, case: Case) -> dict[str, Any]:
    """One case: its result, why it was skipped, or how it failed."""
    from benchmarks import places

    faulthandler.dump_traceback_later(kind.timeout, exit=True)  # type: ignore[attr-defined]
    try:
        bench = kind()
        bench.setup(*case)
        return seconds(bench.call) if method == "time_call" else {"result": bench.track_peak(*case)}
    except NotImplementedError as error:
        return {"result": math.nan, "skipped": str(error)}
    except Exception:
        return {"result": None, "failed": traceback.format_exc()}
    finally:
        faulthandler.cancel_dump_traceback_later()
        if places._prepared.cache_info().currsize:  # it would hold every case's inputs
            places._prepared.cache_clear()
            gc.collect()


def child(backend: str, kind: str, select: list[str]) -> None:
    """All cases of one library, a line of JSON for each; what libraries print goes to stderr."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.path.insert(0, str(HERE))
    todo = list(cases(backend, kind, select))
    for name, found, method, case in todo:
        started = time.time()
        row = measure(found, method, case)
        head = {"name": name, "case": [repr(v) for v in case], "params": [[repr(v) for v in p] for p in found.params], "of": len(todo)}  # type: ignore[attr-defined]
        print(json.dumps({**head, "version": found.version, "started": started, "took": time.time() - started, **row}), file=lines)  # type: ignore[attr-defined]


# ---------------------------------------------------------------- the commit


def git(*arguments: str) -> bytes | None:
    """What git answers in this repository, or None."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def sources(commit: str | None, folder: Path) -> tuple[str, int]:
    """pairx as of a commit, with its entry points, into a folder; the commit's hash and when it was made (seconds)."""
    told = re.fullmatch(r"([0-9a-f]{40})@(\d+)", commit or "")
    if told:  # no git here: the sources as they stand, of the commit that the caller names
        for part in ("src", "backends"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        found = told[1], int(told[2])
    else:
        about, packed = git("show", "-s", "--format=%H %ct", f"{commit or 'HEAD'}^0"), git("archive", commit or "HEAD")
        if about is None or packed is None:
            raise SystemExit(
                f"{commit or 'HEAD'}: git does not know it here. Without git, name the commit of these sources: --commit HASH@SECONDS, "
                "as git show -s --format=%H@%ct prints it where there is git."
            )
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        found = about.split()[0].decode(), int(about.split()[1])
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / "src" / f"pairx-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pairx\nVersion: {project['version']}\n", encoding="utf-8")
    groups = ((g, rows) for g, rows in project["entry-points"].items())
    text = "".join(f"[{g}]\n" + "".join(f"{name} = {value}\n" for name, value in rows.items()) for g, rows in groups)
    (info / "entry_points.txt").write_text(text, encoding="utf-8")
    return found


def versions(environment: dict[str, str]) -> dict[str, str]:
    """What is installed of the libraries, without importing any."""
    code = "import json, pairx; print(json.dumps({k: v['version'] for k, v in pairx.backends().items() if v['installed']}))"
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(f"pairx cannot be imported in this environment:\n{found.stderr}")
    return json.loads(found.stdout)


# ---------------------------------------------------------------- the results


class Results:
    """One file of asv's results, for a machine, a commit and this environment; runs of parts are merged."""

    def __init__(self, folder: Path, commit: str, date: int, libraries: dict[str, str]) -> None:
        machine = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
        machine.pop("version", None)
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        name = f"installed-py{python}"
        self.path = folder / f"{commit[:8]}-{name}.json"
        self.data: dict[str, Any] = {
            "commit_hash": commit, "env_name": name, "date": 1000 * date, "params": {**machine, "python": python}, "python": python,
            "requirements": libraries, "env_vars": {}, "result_columns": COLUMNS, "results": {}, "durations": {}, "version": 2,
        }  # fmt: skip
        self.rows: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {}
        self.params: dict[str, list[list[str]]] = {}
        if self.path.exists():
            old = json.loads(self.path.read_text(encoding="utf-8"))
            if all(libraries.get(k, v) == v for k, v in old["requirements"].items()):  # else they were measured with other versions
                self.data["requirements"] = {**old["requirements"], **libraries}
                self._read(old)

    def _read(self, old: dict[str, Any]) -> None:
        for name, row in old["results"].items():
            cells = dict(zip(old["result_columns"], row, strict=False))
            self.params[name] = cells["params"]
            for i, case in enumerate(itertools.product(*cells["params"])):
                values = {k: (cells.get(k) or {i: None})[i] if cells.get(k) else None for k in ("result", *STATS)}
                if values["result"] is None or not math.isnan(values["result"]):
                    kept = {"version": cells["version"], "started": cells["started_at"] / 1000, "took": 0}
                    self.rows.setdefault(name, {})[case] = {**values, **kept}

    def add(self, line: dict[str, Any]) -> None:
        """What the child told of one case."""
        name, case = line["name"], tuple(line["case"])
        self.params[name] = line["params"]
        rows = self.rows.setdefault(name, {})
        if any(r["version"] != line["version"] for r in rows.values()):
            rows.clear()
        if "skipped" in line:
            rows.pop(case, None)
        else:
            rows[case] = line

    def save(self) -> None:
        """Written in one step, so that an interrupted run leaves a whole file."""
        for name, rows in sorted(self.rows.items()):
            cells = [rows.get(case) for case in itertools.product(*self.params[name])]
            if not rows:
                continue
            columns = [[c.get(k) if c else None for c in cells] for k in STATS]
            first = min(r["started"] for r in rows.values())
            row = [
                [c["result"] if c else math.nan for c in cells], self.params[name], next(iter(rows.values()))["version"], int(1000 * first),
                round(sum(r["took"] for r in rows.values()), 3), *(c if any(v is not None for v in c) else None for c in columns),
            ]  # fmt: skip
            while row[-1] is None:
                row.pop()
            self.data["results"][name] = row
        if not self.data["results"]:
            return
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(self.data), encoding="utf-8")
        draft.replace(self.path)


def run(backend: str, arguments: argparse.Namespace, environment: dict[str, str], results: Results) -> tuple[int, Counter[str], list[str]]:
    """One library: cases measured, why others were skipped, what failed."""
    command = [sys.executable, __file__, "--child", backend, "--kind", arguments.kind, *(f"--select={s}" for s in arguments.select)]
    measured, skipped, failed, place, started = 0, Counter[str](), [], "", time.monotonic()
    with subprocess.Popen(command, env=environment, cwd=HERE, stdout=subprocess.PIPE, text=True) as process:
        for count, text in enumerate(process.stdout or (), 1):
            line = json.loads(text)
            results.add(line)
            place = f"{line['name']}({', '.join(line['case'])})"
            if "skipped" in line:
                skipped[line["skipped"]] += 1
            elif "failed" in line:
                failed.append(place)
                print(f"{place} failed:\n{line['failed']}", file=sys.stderr, flush=True)
            else:
                measured += 1
            if sys.stdout.isatty():
                print(f"\r\033[K{backend}: {count} of {line['of']}  {place[:100]}", end="", flush=True)
            elif count % 50 == 0:
                print(f"{backend}: {count} of {line['of']}", flush=True)
    if process.returncode:
        failed.append(f"{backend} ended with status {process.returncode} after {place or 'no case'}")
    end = "\r\033[K" if sys.stdout.isatty() else ""
    print(f"{end}{backend}: {measured} measured, {len(failed)} failed, {time.monotonic() - started:.0f} s", flush=True)
    return measured, skipped, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--machine", default="", help="folder of this machine's results; it holds machine.json")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--kind", default="", help="how the classes' names begin: Time, PeakCPU, PeakGPU")
    parser.add_argument("--backend", default="numpy", help="separated by commas")
    parser.add_argument("--commit", help="a revision, HEAD by default; HASH@SECONDS where there is no git")
    parser.add_argument("--select", action="append", default=[], help="as asv's --bench: a regular expression")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.kind, arguments.select)
        return 0
    with TemporaryDirectory(prefix="pairx-bench-") as folder:
        commit, date = sources(arguments.commit, Path(folder))
        path = os.pathsep.join([str(Path(folder) / "src"), str(Path(folder) / "backends")])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        if arguments.kind.startswith("Peak"):
            environment["PYTHONMALLOC"] = "malloc"  # Python's own arenas are of 1 MiB: one more would look like a regression
        results = Results(arguments.results / arguments.machine, commit, date, versions(environment))
        print(f"pairx {commit[:8]}: {arguments.kind or 'all'} benchmarks of {arguments.backend}", flush=True)
        measured, skipped, failed = 0, Counter[str](), []
        for backend in arguments.backend.split(","):
            count, why, broken = run(backend, arguments, environment, results)
            measured, skipped, failed = measured + count, skipped + why, failed + broken
            results.save()
    for why, count in skipped.most_common():
        print(f"skipped: {why} ({count})")
    for place in failed:
        print(f"FAILED: {place}")
    print(f"{measured} results in {results.path.relative_to(arguments.results.parent)}")
    return 1 if failed or not measured else 0


if __name__ == "__main__":
    sys.exit(main())
