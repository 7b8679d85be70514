"""What ``runner.py`` writes is read by asv, beside the peers' files and results of a second machine (made up here, and labelled so)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE))

import compare  # noqa: E402
from measured import measured  # noqa: E402

COMMIT = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()


def run(results: Path, machine: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "runner.py"), "--results", str(results), "--machine", machine, "--backend", "numpy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a first machine, measured here; and of a second one, whose figures are the first one's times two."""
    folder = tmp_path_factory.mktemp("bench") / "results"
    for name in ("here", "synthetic-second"):
        (folder / name).mkdir(parents=True)
        about = {"machine": name, "os": "Linux", "arch": "x86_64", "cpu": name, "num_cpu": "2", "ram": "8 GB", "version": 1}
        (folder / name / "machine.json").write_text(json.dumps(about), encoding="utf-8")
    assert run(folder, "here", "--kind", "PeakCPU", "--select", "PeakCPUCdist.*'(cityblock|canberra)'").returncode == 0
    assert run(folder, "here", "--kind", "Time", "--select", "TimeSmallCall.*'cpu', 'paired'").returncode == 0
    (first,) = (folder / "here").glob(f"{COMMIT[:8]}-*.json")
    data = json.loads(first.read_text(encoding="utf-8"))
    data["params"].update(machine="synthetic-second", cpu="synthetic-second")
    for row in data["results"].values():
        row[0] = [2 * v for v in row[0]]
    (folder / "synthetic-second" / first.name).write_text(json.dumps(data), encoding="utf-8")
    for path in (HERE / "results").glob("*/peers-*.json"):
        shutil.copy(path, folder / "here")
    return folder


def test_runs_of_parts_are_merged(results: Path):
    found = compare.figures(results / "here", COMMIT)
    assert len(found) == 3
    assert found["distances.PeakCPUCdist.track_peak('numpy', 'cpu', 'cityblock', 'float32', '1000x1000x64')"] >= 4_000_000
    assert 0 < found["overhead.TimeSmallCall.time_call('numpy', 'cpu', 'paired')"] < 60


def test_asv_takes_both_machines(results: Path, tmp_path: Path):
    """asv's own discovery, then its pages: both machines have graphs, and the peers' files do not stop it."""
    told = json.loads((HERE / "asv.conf.json").read_text(encoding="utf-8"))
    told |= {"repo": HERE.parent, "results_dir": results, "html_dir": tmp_path / "html", "benchmark_dir": HERE / "benchmarks"}
    told |= {"branches": ["HEAD"], "env_dir": tmp_path / "env"}
    conf = tmp_path / "asv.conf.json"
    conf.write_text(json.dumps(told, default=str), encoding="utf-8")
    code = "import sys, asv.main; sys.argv[0] = 'asv'; asv.main.main()"
    ask = [sys.executable, "-c", code, "--config", str(conf)]
    discover = ("run", "--bench", "just-discover", "--environment", "existing:same", "--machine", "here", "--set-commit-hash", COMMIT)
    home = tmp_path / "home"
    home.mkdir()
    machines = {"here": json.loads((results / "here" / "machine.json").read_text(encoding="utf-8")), "version": 1}
    machines["here"].pop("version")
    (home / ".asv-machine.json").write_text(json.dumps(machines), encoding="utf-8")
    for arguments in (discover, ("publish", "--no-pull")):
        done = subprocess.run([*ask, *arguments], capture_output=True, text=True, check=False, env={**os.environ, "HOME": str(home)})
        assert done.returncode == 0, done.stdout + done.stderr
    index = json.loads((tmp_path / "html" / "index.json").read_text(encoding="utf-8"))
    assert set(index["params"]["machine"]) == {"here", "synthetic-second"}
    graphs = list((tmp_path / "html" / "graphs").rglob("distances.PeakCPUCdist.track_peak.json"))
    assert {part for g in graphs for part in g.parts if part.startswith("machine-")} == {"machine-here", "machine-synthetic-second"}


def test_what_is_absent_is_skipped_and_said(results: Path, tmp_path: Path):
    (tmp_path / "m").mkdir()
    shutil.copy(results / "here" / "machine.json", tmp_path / "m")
    done = run(tmp_path, "m", "--kind", "PeakGPU", "--select", r"PeakGPUCdist\..*'cityblock'")
    assert "skipped: numpy has no gpu (1)" in done.stdout
    assert done.returncode == 1, "nothing measured is no success"
    assert not list((tmp_path / "m").glob("*-installed-*.json"))


def test_growth_is_told_from_noise():
    base = {"a": 1e7, "b": 1e7, "small": 1000.0, "gone": 1.0, "broken before": None}
    head = {"a": 1.1e7, "b": 1.01e7, "small": 3000.0, "new": 5e6, "broken before": 1e6, "broken": None}
    fails, report = compare.compare(base, head, 1.02, 1 << 16)
    assert [f.split(":")[0].split() for f in fails] == [["GREW", "a"], ["FAILED", "broken"]]
    assert report == ["new      2: new, broken before", "gone     1: gone", "3 cases compared, 1 grew by more than 2 %"]


def test_accepted_growth_has_a_limit():
    accepted = [{"case": r"^a\(.*'kl'", "bytes": 1.2e7, "why": "logarithms ahead"}]
    base = {"a('kl')": 1e7, "a('other')": 1e7, "b('kl')": 1e7}
    fails, report = compare.compare(base, dict.fromkeys(base, 1.1e7), 1.02, 1 << 16, accepted)
    assert [f.split(":")[0] for f in fails] == ["GREW     a('other')", "GREW     b('kl')"]
    assert report[0].startswith("accepted a('kl')")
    assert report[0].endswith("logarithms ahead")
    fails, _ = compare.compare(base, dict.fromkeys(base, 1.3e7), 1.02, 1 << 16, accepted)
    assert len(fails) == 3


def test_tables_keep_only_what_was_measured():
    rows = ["  backend  call\n", "  numpy  cdist   4.23±0ms\n", "  numpy  2.5  n/a\n", "  torch  5.04M  n/a\n", "  jax  failed  n/a\n"]
    skips = ["[50.00%] ···· For parameters: 'cupy', 'cpu'\n", "      asv: skipped: NotImplementedError('cupy has no cpu')\n"]
    error = ["[50.00%] ···· For parameters: 'torch', 'cpu'\n", "      Traceback\n"]
    assert list(measured([*rows, *skips, *error])) == [rows[0], rows[1], rows[3], rows[4], *error]
