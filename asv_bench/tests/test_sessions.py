"""The sessions flag what was planted in a scratch clone (a broadcast in place of tiles, a tenfold slowdown), and know where history ends.

They run in this environment (``nox --no-venv --no-install``); asv builds one of its own for ``bench_time``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = "src/pairx/distances.py"
BROADCAST = '''

_tiled = cdist


def cdist(x, y=None, metric="euclidean", **given):
    return abs(x[:, None] - y[None]).sum(-1) if metric == "cityblock" else _tiled(x, y, metric, **given)
'''
TENFOLD = '''

_once = cdist


def cdist(*arguments, **given):
    for _ in range(9):
        _once(*arguments, **given)
    return _once(*arguments, **given)
'''
MEMORY = ("bench_memory", "--", "--backend", "numpy", "--select", r"PeakCPUCdist.*'(cityblock|canberra)'")


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=harness", "-c", "user.email=harness@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def nox(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "nox", "--no-venv", "--no-install", "-s", *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False)
    print(done.stdout)
    return done.returncode, done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """This commit as the tip of a main branch of its own: it is compared with the commit before."""
    git(tmp_path, "clone", "--quiet", str(ROOT), "clone")
    folder = tmp_path / "clone"
    git(folder, "checkout", "--quiet", "-B", "main")
    git(folder, "remote", "remove", "origin")
    return folder


def plant(folder: Path, path: str, text: str) -> None:
    with (folder / path).open("a", encoding="utf-8") as file:
        file.write(text)
    git(folder, "commit", "--quiet", "--all", "--message", "Planted")


def test_a_broadcast_fails(clone: Path):
    plant(clone, SOURCE, BROADCAST)
    code, out = nox(clone, *MEMORY)
    assert code != 0
    assert "GREW     distances.PeakCPUCdist.track_peak('numpy', 'cpu', 'cityblock'" in out
    assert "2 cases compared, 1 grew" in out


def test_what_is_new_or_unchanged_passes(clone: Path):
    """A metric that the commit before does not have."""
    new = "\n\n@metric('|x - y|', 'planted', aliases=())\ndef planted(xp):\n    return METRICS['cityblock'].define(xp)\n"
    plant(clone, "src/pairx/metrics.py", new)
    code, out = nox(clone, *MEMORY[:-1], r"PeakCPUCdist.*'(cityblock|planted)'")
    assert code == 0, out
    assert "new      1: distances.PeakCPUCdist.track_peak('numpy', 'cpu', 'planted'" in out
    assert "1 cases compared, 0 grew" in out


def test_a_shallow_clone_is_deepened(clone: Path):
    plant(clone, SOURCE, BROADCAST)
    git(clone.parent, "clone", "--quiet", "--depth", "1", clone.as_uri(), "shallow")
    code, out = nox(clone.parent / "shallow", *MEMORY)
    assert "fetching the rest of its history" in out
    assert code != 0
    assert "GREW" in out


def test_a_history_that_ends_here_is_told(clone: Path):
    git(clone.parent, "clone", "--quiet", "--depth", "1", clone.as_uri(), "shallow")
    git(clone.parent / "shallow", "remote", "remove", "origin")
    code, out = nox(clone.parent / "shallow", *MEMORY)
    assert code == 0
    assert "2 measured, 0 failed" in out
    assert "Nothing was compared" in out


def test_a_call_ten_times_slower_is_reported(clone: Path):
    conf = clone / "asv_bench" / "asv.conf.json"
    told = json.loads(conf.read_text(encoding="utf-8"))
    told["matrix"]["req"] = {k: told["matrix"]["req"][k] for k in ("numpy", "array-api-compat")}
    conf.write_text(json.dumps(told), encoding="utf-8")
    git(clone, "commit", "--quiet", "--all", "--message", "NumPy alone")
    plant(clone, SOURCE, TENFOLD)
    case = r"TimeSmallCall\.time_call\('numpy', 'cpu', '(cdist|vector_norm)'"
    code, out = nox(clone, "bench_time", "--", case)
    assert code == 0
    assert "PERFORMANCE DECREASED" in out
    assert "n/a" not in out
