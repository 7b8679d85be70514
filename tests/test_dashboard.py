"""The dashboard shows what is there, and says in words what is not."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pairx
from pairx.metrics import METRICS

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "asv_bench"))

from benchmarks import places  # noqa: E402
from dashboard import about, agreement, answers, charts, facts, offline, page, pictures, results, sections, support  # noqa: E402

REAL = ROOT / "asv_bench" / "results"


# --- small results: round numbers, so that what the page must say is known ---------------------------------------------------

CASE, LOSS = "cityblock 2000x2000x128 float32", "supcon B=512, 128 classes"


def timing(case: str, who: str, threads: int, fastest: float, **info: Any) -> dict[str, Any]:
    stats = {"min": fastest, "median": 1.25 * fastest, "rounds": 5}
    return {"extra_info": {"case": case, "implementation": who, "threads": threads, **info}, "stats": stats}


def peers(threads: int, scale: float) -> dict[str, Any]:
    return {
        "machine_info": {"cpu": {"brand_raw": "Test processor", "count": 2}, "versions": {"numpy": "2.99"}, "gpus": ["Test GPU"]},
        "commit_info": {"id": "abcdef0123456789", "dirty": True}, "datetime": "2026-01-02T03:04:05",
        "benchmarks": [
            timing(CASE, "pairx", threads, 0.010 * scale), timing(CASE, "matmul", threads, 0.005 * scale),
            timing(CASE, "scipy", threads, 0.073), timing(CASE, "torch.cdist", threads, 0.006),
            timing("canberra 500x500x64 float32", "scipy", threads, 0.123),  # ours is missing
            timing(LOSS, "pairx", threads, 0.020 * scale, peak_bytes=2_000_000),
            timing(LOSS, "direct", threads, 0.062, peak_bytes=23_000_000),
        ],
    }  # fmt: skip


def grown(who: str, n: int, peak: int | None, seconds: float | None, **more: Any) -> dict[str, Any]:
    return {"growth": "supcon, batch of n", "implementation": who, "n": n, "peak_bytes": peak, "seconds": seconds, "spread": None, **more}


GROWTH = {
    "machine": "test", "cpu": "Test processor", "date": "2026-01-02", "commit": "abcdef0123456789", "versions": {"numpy": "2.99"},
    "threads": 1,
    "rows": [
        *(grown("pairx", n, 1000 * n, 1e-4 * n) for n in (100, 1000, 10_000, 100_000)),
        *(grown("direct", n, n * n, 1e-7 * n * n) for n in (100, 1000, 10_000)),
        grown("direct", 100_000, None, None, reason="left out: it would take about 9 GB"),
    ],
}  # fmt: skip
PLAIN = {"engine": "array", "dtype": "float32"}
AGREEMENT = {
    "machine": "test", "date": "2026-01-02", "commit": "abcdef0123456789", "versions": {},
    "distances": [
        {"operation": "cdist", "metric": "cityblock", "backend": "numpy", **PLAIN, "error": 1.1e-7, "allowed": 1e-6},
        {"operation": "cdist", "metric": "canberra", "backend": "numpy", **PLAIN, "error": 3.3e-7, "allowed": 1e-6},
        {"operation": "cdist", "metric": "yule", "backend": "jax", **PLAIN, "error": None, "reason": "jax is away"},
    ],
    "losses": [{"loss": "supcon", "library": "torch", "dtype": "float64", "value": 2.5e-16, "gradient": 7.5e-16}],
    "edges": [{"loss": "supcon", "case": "empty batch", "backend": "torch", "outcome": "zero, as documented"},
              {"loss": "supcon", "case": "no mask", "backend": "torch", "outcome": None, "reason": "the mask is empty"}],
}  # fmt: skip
SUPPORT = {
    "machine": "test", "cpu": "Test processor", "date": "2026-01-02", "commit": "abcdef0123456789", "versions": {}, "rows": 2000,
    "absent": {"numpy": {"cpu": None, "gpu": "numpy has no gpu"}, "torch": {"cpu": None, "gpu": "torch sees no GPU"}},
    "cells": [
        {
            "kind": row.kind, "metric": row.name, "backend": b, "device": "cpu", "chosen": "array", "why": "it is a test",
            "gradient": "no slope at all",
            "engines": {"array": None, "native": f"metric {row.name!r} has no product here", "compiled": "nothing compiles here"},
        }
        for table in support.TABLES.values() for row in table.values() for b in ("numpy", "torch")
    ],
}  # fmt: skip
ASV = {
    "commit_hash": "1234567890abcdef", "date": 1_700_000_000_000, "env_name": "e", "params": {}, "version": 2,
    "result_columns": ["result", "params"],
    "results": {
        "distances.PeakCPUCdist.track_peak": [[5_100_000, float("nan"), None], [["'numpy'", "'torch'", "'jax'"], ["'cpu'"]]],
        "distances.TimeCdist.time_call": [[0.0042, 0.0017], [["'numpy'", "'torch'"], ["'gpu'"]]],
    },
}  # fmt: skip
DESCRIBED = {
    "version": 2,
    "distances.PeakCPUCdist.track_peak": {"unit": "bytes", "param_names": ["backend", "device"]},
    "distances.TimeCdist.time_call": {"unit": "seconds", "param_names": ["backend", "device"]},
    "distances.TimeNothing.time_call": {"unit": "seconds", "param_names": []},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of one machine, complete."""
    there = tmp_path / "results" / "test-machine"
    there.mkdir(parents=True)
    later = {**ASV, "commit_hash": "fedcba0987654321", "date": ASV["date"] + 1, "results": {}}  # type: ignore[operator]
    files = {
        "peers-1.json": peers(1, 1.0), "peers-2.json": peers(2, 0.5), "growth-1.json": GROWTH, "agreement.json": AGREEMENT,
        "support.json": SUPPORT,
        "12345678-e.json": ASV, "fedcba09-e.json": later, "machine.json": {"cpu": "Test processor", "ram": "1 GB", "version": 1},
    }  # fmt: skip
    for name, record in files.items():
        (there / name).write_text(json.dumps(record))
    (there.parent / "benchmarks.json").write_text(json.dumps(DESCRIBED))
    return there.parent


REGRESSIONS: list[list[Any]] = [["distances.TimeCdist.time_call('numpy')", "graphs/x.json", {}, 0, 3.0, 2.0, []]]
SHOWN = {
    "summary": ["SciPy", "7.3×", "median"],
    "speed": ["cityblock", "2000×2000×128 float32", "7.3×", "0.60×", "10.0 ms", "14.6×"],
    "behind": [CASE, "torch.cdist", "0.60×"],
    "losses": ["supcon", "3.1×", "11.5×", "2.0 MB", "23.0 MB"],
    "growth": ["n ≈ 1000", "9 GB", "pairx, n = 10000: 10 MB", "pairx, n = 10000: 1 s", "direct formula, n = 100000: left out"],
    "threads": ["2.0×", "pairx: 2.0×", "matrix product"],
    "gpu": ["4.2 ms", "1.7 ms", "gpu"],
    "support": [
        "cityblock",
        "torch sees no GPU",
        "metric … has no product here",
        "nothing compiles here",
        "no slope at all",
        "it is a test",
    ],
    "agreement": [
        "Yes: all 2 comparisons",
        "3.3e-07",
        "2.5e-16",
        "7.5e-16",
        "jax: jax is away",
        "cupy: not in this record",
        "zero, as documented",
        "the mask is empty",
    ],
    "libraries": ["5.1 MB", "4.2 ms", "PeakCPUCdist", "12345678"],
}
"""What each part must say of these results."""


def text(html: str) -> str:
    """What a reader sees, titles included."""
    said = re.findall(r'title="([^"]*)"|<title>([^<]*)</title>', html)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)) + " ".join(a or b for a, b in said)


@pytest.mark.parametrize("part", page.SECTIONS, ids=lambda s: s.key)
def test_a_part_shows_what_is_there(folder: Path, part: Any):
    said = text(part.make(results.read(folder)))
    assert [s for s in SHOWN[part.key] if s not in said] == []


@pytest.mark.parametrize("part", page.SECTIONS, ids=lambda s: s.key)
@pytest.mark.parametrize("machines", [[], [results.Machine("empty")]], ids=["no machine", "a machine without results"])
def test_a_part_without_results_is_a_gap_in_words(part: Any, machines: list[Any]):
    html = part.make(machines)
    assert 'class="gap"' in html
    assert not re.search(r"\d(×| ms| MB|\.\d|e-)", text(html)), "a figure that nobody measured"


def test_a_case_that_ours_lacks_is_no_ratio(folder: Path):
    (machine,) = results.read(folder)
    assert results.ratios(machine.peers[1].distances["canberra 500x500x64 float32"]) == {}
    assert "canberra" not in sections.speed([machine])


def test_ratios_and_their_bounds():
    own, peer = results.Timing(2.0, 2.5), results.Timing(6.0, 8.0)
    assert results.ratio(peer, own) == results.Ratio(3.0, 6.0 / 2.5, 4.0)


def test_what_was_not_a_number_is_none(folder: Path):
    bench = results.read(folder)[0].benches["distances.PeakCPUCdist.track_peak"]
    assert bench.values == {("numpy", "cpu"): 5_100_000}
    assert "nan" not in text(facts.libraries(results.read(folder))).lower()


def test_results_older_than_a_parameter_keep_their_names(folder: Path):
    path = folder / "benchmarks.json"
    described = json.loads(path.read_text())
    described["distances.PeakCPUCdist.track_peak"]["param_names"].append("dtype")
    path.write_text(json.dumps(described))
    assert results.read(folder)[0].benches["distances.PeakCPUCdist.track_peak"].params == ("backend", "device")


def test_times_missing_beside_bytes_are_a_gap(folder: Path):
    path = folder / "test-machine" / "growth-1.json"
    record = json.loads(path.read_text())
    for row in record["rows"]:
        row["seconds"] = None
    path.write_text(json.dumps(record))
    html = sections.growth(results.read(folder))
    assert "Time against n: not measured on this machine yet" in html
    assert "pairx, n = 10000: 10 MB" in html


def test_two_machines_stand_side_by_side(folder: Path):
    """A second machine, synthetic: it lives in this test's folder only."""
    shutil.copytree(folder / "test-machine", folder / "synthetic-machine")
    both = results.read(folder)
    assert {m.name for m in both} == {"test-machine", "synthetic-machine"}
    for part in page.SECTIONS:
        html = part.make(both)
        assert all(f"<small>{name}<" in html for name in ("test-machine", "synthetic-machine")), part.key
        assert not re.search(r'class="gap">[^<]*-machine: ', html), part.key


@pytest.mark.parametrize("part", ["summary", "speed", "behind", "losses", "threads", "growth", "support", "agreement"])
def test_a_panel_says_how_old_its_figures_are(folder: Path, part: str):
    (found,) = (s for s in page.SECTIONS if s.key == part)
    assert "measured on 2026-01-02, commit abcdef01" in found.make(results.read(folder))


def test_a_machine_that_lacks_a_part_says_so(folder: Path):
    (folder / "new-machine").mkdir()
    html = agreement.agreement(results.read(folder))
    assert "3.3e-07" in html
    assert "new-machine: not recorded" in html


def test_a_new_metric_is_a_row_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(METRICS, "brand_new", replace(METRICS["cityblock"], name="brand_new"))
    assert re.search(r"brand_new</th><td><span class=\"gap\">not recorded yet", facts.support(results.read(folder)))


def test_a_cell_is_the_largest_of_its_errors():
    assert ">3.3e-07<" in agreement.worst(AGREEMENT["distances"], "error")
    assert "jax is away" in agreement.worst(AGREEMENT["distances"][2:], "error")


def test_environments_of_asv_at_one_commit_are_joined_and_older_ones_are_not(folder: Path):
    name = "distances.TimeCdist.time_call"
    other = {**ASV, "results": {name: [[0.5], [["'jax'"], ["'gpu'"]]]}}
    old = {**other, "commit_hash": "0", "date": 1, "results": {name: [[9.0, 9.0], [["'dask'", "'numpy'"], ["'gpu'"]]]}}
    for file, record in (("12345678-f.json", other), ("0-e.json", old)):
        (folder / "test-machine" / file).write_text(json.dumps(record))
    assert results.read(folder)[0].benches[name].values == {("numpy", "gpu"): 0.0042, ("torch", "gpu"): 0.0017, ("jax", "gpu"): 0.5}


def test_a_disagreement_is_named():
    rows = [{**AGREEMENT["distances"][0], "error": 2e-6}, AGREEMENT["distances"][1]]
    html = agreement.agreement([results.Machine("m", agreement={"distances": rows})])
    assert "Not everywhere: 1 of 2" in html
    assert "cityblock on numpy (array, float32)" in html
    assert re.search(r'<span class="behind"[^>]*>2\.0e-06', html)


def test_regressions(folder: Path):
    machines = results.read(folder)
    assert machines[0].commits == ("1234567890abcdef", "fedcba0987654321")
    said = text(facts.regressions(machines, REGRESSIONS))
    for fact in ("TimeCdist.time_call('numpy')", "test-machine", "1.5×", "2.00 s", "3.00 s"):
        assert fact in said.replace("&#x27;", "'")
    assert "None: 2 commits" in facts.regressions(machines, [])
    assert "at least two" in facts.regressions([results.Machine("m", commits=("a",))], [])
    assert "not built" in facts.regressions(machines, None)


def test_where_it_was_measured(folder: Path):
    said = text(facts.where(results.read(folder)))
    for fact in (
        "Test processor",
        "Test GPU",
        "abcdef0123",
        "with local changes",
        "numpy 2.99",
        "2026-01-02 03:04",
        "peers, 2 threads",
        "growth, one thread",
        "support",
    ):
        assert fact in said
    assert "the file does not say" in said, "agreement.json has no versions here"


def test_the_first_sentences(folder: Path):
    first, second = answers.lead(results.read(folder))
    assert "On one thread of Test processor" in first
    assert "takes SciPy 7.3× to 7.3×" in first
    assert "fastest in 1 of 2 cases" in first
    assert "supcon of 10000: 10.0 MB (the direct formula: 100 MB)" in second


# --- marks ------------------------------------------------------------------------------------------------------------------


def test_where_curves_cross():
    sizes = (10, 100, 1000, 10_000)
    n, value, wins = results.crossing([(k, 1000 * k) for k in sizes], [(k, k * k) for k in sizes if k != 1000])
    assert (round(n), round(value), wins) == (1000, 1_000_000, True)
    assert results.crossing([(1, 1.0), (2, 2.0)], [(1, 3.0), (2, 6.0)]) is None


def test_labels_keep_apart():
    found = charts.apart([50, 51, 52, 10], 15, 0, 100)
    assert sorted(found)[0] == 10
    assert min(b - a for a, b in zip(sorted(found), sorted(found)[1:], strict=False)) >= 15


def test_the_axis_is_logarithmic():
    assert charts.part(10, 1, 100) == pytest.approx(0.5)
    assert charts.ticks(0.5, 200) == [1, 10, 100]


# --- the page ---------------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing(folder: Path):
    html = page.page(results.read(folder), found_regressions=REGRESSIONS, links=[("History", "asv/index.html")])
    there = re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", html)
    assert [u for u in there if not u.startswith(("#", "data:", "asv/"))] == []
    assert "@import" not in html
    assert "url(" not in html
    assert "fetch(" not in html
    for part in page.SECTIONS:
        assert f'<section id="{part.key}">' in html


def test_names_are_escaped(folder: Path):
    shutil.copytree(folder / "test-machine", folder / "a&b <i>machine")
    html = page.page(results.read(folder))
    assert "<i>machine" not in html
    assert "a&amp;b &lt;i&gt;machine" in html


def test_the_committed_results_make_a_page():
    machines = results.read(REAL)
    assert any(m.peers for m in machines)
    html = page.page(machines)
    for machine in machines:
        assert machine.name in html
        for run in machine.peers.values():
            assert all(charts.escape(c) in html for c, t in run.cases.items() if results.OURS in t)


# --- pictures ---------------------------------------------------------------------------------------------------------------


def test_the_pictures_are_those_of_the_committed_results():
    made = pictures.draw(results.read(REAL))
    assert set(made) == {p.name for p in (ROOT / "docs" / "pictures").glob("*.svg")} == {"speed.svg", "memory.svg"}
    for name, svg in made.items():
        assert (ROOT / "docs" / "pictures" / name).read_text(encoding="utf-8") == svg, f"{name}: run nox -s dashboard"
        assert f"docs/pictures/{name}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_picture_says_what_was_measured(folder: Path):
    made = pictures.draw(results.read(folder))
    assert "7.3×" in made["speed.svg"]
    assert "0.60×" in made["speed.svg"]
    assert "abcdef0" in made["speed.svg"]
    assert "n = 10000: 10 MB" in text(made["memory.svg"])
    for svg in made.values():
        assert "prefers-color-scheme: dark" in svg


# --- support ----------------------------------------------------------------------------------------------------------------


def test_support_is_asked_of_the_code():
    row = METRICS["cityblock"]
    cell = support.cell(row, "numpy", "cpu")
    assert cell["engines"]["array"] is None
    with pytest.raises(ValueError) as refused:
        pairx.cdist([[1.0]], [[2.0]], "cityblock", engine="native")
    assert cell["engines"]["native"]
    assert cell["engines"]["native"] in str(refused.value)
    with pytest.raises(NotImplementedError, match=str(cell["gradient"])):
        places.differentiable("numpy")


def test_an_engine_that_fails_when_it_runs_is_a_gap(monkeypatch: pytest.MonkeyPatch):
    def broken(x: Any, y: Any, metric: str, engine: str | None = None) -> Any:
        return pairx.cdist(x, y, metric, engine=engine) if engine is None or _planning() else 1 / 0

    def _planning() -> bool:
        from pairx.calls import asked

        return asked()

    monkeypatch.setitem(support.OPERATIONS, "distance", broken)
    cell = support.cell(METRICS["cityblock"], "numpy", "cpu")
    assert cell["engines"]["array"] == "ZeroDivisionError: division by zero"


def test_places_that_are_absent_have_a_reason():
    absent = support.support(())
    assert absent == {"rows": support.LARGE, "absent": {}, "cells": []}
    assert places.absent("numpy", "gpu") == "numpy has no gpu"


def test_a_record_has_its_head():
    head = about.about()
    assert {"machine", "cpu", "processors", "date", "commit", "versions"} <= set(head)
    assert head["versions"]["numpy"]


# --- asv's pages ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asv_site(tmp_path: Path) -> tuple[Path, Path]:
    """A page as asv writes it, and packages with what it asks for."""
    packages, site = tmp_path / "node_modules", tmp_path / "asv"
    for file in offline.FILES.values():
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        (packages / file).write_text(f"/* {file} */")
    (site / "graphs").mkdir(parents=True)
    digest = base64.b64encode(hashlib.sha256((packages / offline.FILES["md5.min.js"]).read_bytes()).digest()).decode()
    (site / "index.html").write_text(
        '<script src="https://x.example/jquery-3.3.1.min.js"></script>\n'
        f'<script src="https://x.example/js/md5.min.js" integrity="sha256-{digest}" onerror="f()"></script>\n'
        '<link rel="stylesheet" href="https://x.example/bootstrap.min.css" crossorigin="anonymous">\n<script src="asv.js"></script>'
    )
    (site / "index.json").write_text('{"project": "x"}')
    (site / "graphs" / "a b.json").write_text("[[1, 2.5]]")
    return site, packages


def test_asv_is_made_to_work_offline(asv_site: tuple[Path, Path]):
    site, packages = asv_site
    assert offline.make(site, packages) == 2
    html = (site / "index.html").read_text()
    assert "https://" not in html
    assert html.index("vendor/jquery") < html.index("vendor/files.js") < html.index('"asv.js"')
    assert all((site / s).is_file() for s in re.findall(r'(?:src|href)="(vendor/[^"]+)"', html))
    assert (site / "graphs" / "a b.json.js").read_text() == 'asvFile("graphs/a b.json", [[1, 2.5]]);\n'
    assert not list(site.rglob("*.json"))
    assert '"graphs/a b.json"' in (site / "vendor" / "files.js").read_text()


def test_other_bytes_than_asv_asks_for_are_refused(asv_site: tuple[Path, Path]):
    site, packages = asv_site
    (packages / offline.FILES["md5.min.js"]).write_text("tampered")
    with pytest.raises(ValueError, match="digest"):
        offline.make(site, packages)


def test_a_file_without_a_package_is_refused(asv_site: tuple[Path, Path]):
    site, packages = asv_site
    path = site / "index.html"
    path.write_text(path.read_text() + '<script src="https://x.example/unheard-of.js"></script>')
    with pytest.raises(ValueError, match=r"unheard-of\.js"):
        offline.make(site, packages)


def test_every_vendored_package_is_pinned_by_its_digest():
    lock = json.loads((ROOT / "asv_bench" / "dashboard" / "web" / "package-lock.json").read_text())["packages"]
    for file in offline.FILES.values():
        assert lock[f"node_modules/{file.split('/')[0]}"]["integrity"].startswith("sha512-")


def test_asv_is_given_its_own_results_only(folder: Path, tmp_path: Path):
    config = tmp_path / "repo" / "asv_bench" / "asv.conf.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"project": "pairx", "version": 1}))
    assert offline.stage(folder, config, tmp_path / "work", tmp_path / "site")
    there = {p.name for p in (tmp_path / "work" / "results" / "test-machine").iterdir()}
    assert there == {"12345678-e.json", "fedcba09-e.json", "machine.json"}
    kept = json.loads((tmp_path / "work" / "results" / "benchmarks.json").read_text())
    assert set(kept) == set(DESCRIBED) - {"distances.TimeNothing.time_call"}
    for path in folder.glob("*/*-e.json"):
        path.unlink()
    assert not offline.stage(folder, config, tmp_path / "work", tmp_path / "site")
