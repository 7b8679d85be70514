"""``pairx doctor``: what it finds, what it says, and its exit code."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import Any

import numpy as np
import pytest

import pairx.backend
from pairx import doctor, measure
from pairx.__main__ import main
from pairx.metrics import KERNELS, METRICS

pytest.importorskip("typer")
pytest.importorskip("rich")

ROW = {
    "name", "installed", "version", "install", "status", "error", "devices", "engines", "dtype", "failing", "seconds",
    "peak_bytes", "peak_note",
}  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the timed call; small calls made before or here are not remembered: they would not look a planted metric up."""
    monkeypatch.setattr(doctor, "_cost", lambda lib, module, found: None)
    monkeypatch.setattr("pairx.distances._QUICK", {})


@pytest.fixture
def numpy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other library can be found."""
    monkeypatch.setattr(pairx.backend, "present", lambda name: True if name == "numpy" else None)
    monkeypatch.setattr(pairx.backend, "sys", type("sys", (), {"modules": {"numpy": np}}))


def test_the_flowers() -> None:
    data = doctor.iris()
    assert data.shape == (150, 4)
    # The summary that the repository of the data gives.
    np.testing.assert_array_equal(data.min(axis=0), [4.3, 2.0, 1.0, 0.1])
    np.testing.assert_array_equal(data.max(axis=0), [7.9, 4.4, 6.9, 2.5])
    np.testing.assert_allclose(data.mean(axis=0), [5.84, 3.05, 3.76, 1.20], atol=0.01)
    text = files("pairx").joinpath("data", "iris.csv").read_text(encoding="utf-8").splitlines()
    assert [row[4] for row in csv.reader(text[1:])] == ["setosa"] * 50 + ["versicolor"] * 50 + ["virginica"] * 50
    # Fisher's own values of two flowers, which some copies have wrong.
    assert data[34].tolist() == [4.9, 3.1, 1.5, 0.2]
    assert data[37].tolist() == [4.9, 3.6, 1.4, 0.1]


def test_every_metric_has_a_reference_and_the_reverse() -> None:
    known = {f"{row.kind}-{row.name}" for table in (METRICS, KERNELS) for row in table.values()}
    assert set(doctor.references()) == known
    for row in [*METRICS.values(), *KERNELS.values()]:
        x, y = doctor.flowers(row.domain)
        assert doctor.references()[f"{row.kind}-{row.name}"].shape == (len(x), len(y)) == (15, 11)
        assert (x[4] == y[10]).all(), "one flower in both sets: distance 0"


@pytest.mark.parametrize("name", ["cityblock", "canberra", "correlation", "mahalanobis", "jensenshannon", "yule"])
def test_the_references_are_scipys(name: str) -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    x, y = doctor.flowers(METRICS[name].domain)
    np.testing.assert_allclose(doctor.references()[f"distance-{name}"], distance.cdist(x, y, name), rtol=1e-10, atol=1e-14)


def test_numpy_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--backend", "numpy", "--json"])
    found = capsys.readouterr()
    report = json.loads(found.out)
    assert found.err == ""
    assert set(report) == {"pairx", "python", "platform", "data", "call", "compiler", "backends", "ok"}
    (row,) = report["backends"]
    assert set(row) == ROW
    assert row["failing"] == []
    assert (code, report["ok"], row["status"], row["dtype"]) == (0, True, "ok", "float64")
    assert row["engines"]["array"] == {"checked": len(METRICS) + len(KERNELS), "agree": len(METRICS) + len(KERNELS)}
    assert 0 < row["engines"]["native"]["checked"] < row["engines"]["array"]["checked"]
    assert row["seconds"] > 0
    if measure.missing_tool():
        assert row["peak_bytes"] is None
        assert "memray" in row["peak_note"]
    else:
        assert 4_000_000 <= row["peak_bytes"] < 100_000_000  # the result alone is 4 MB


def test_numpy_alone_is_enough() -> None:
    code = (
        "import sys, pairx.backend as b; real = b.present\n"
        "b.present = lambda n: real(n) if n == 'numpy' else None\n"
        "from pairx.__main__ import main; code = main(['doctor'])\n"
        "assert not {'torch', 'jax', 'tensorflow', 'dask', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All agree." in done.stdout
    assert "not installed: pip install 'pairx[torch]'" in done.stdout
    assert done.stderr == ""


@pytest.mark.usefixtures("quick")
def test_a_wrong_metric_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(METRICS, "cityblock", replace(METRICS["cityblock"], define=METRICS["chebyshev"].define, reduce="max"))
    monkeypatch.setitem(METRICS, "brand_new", replace(METRICS["canberra"], name="brand_new"))
    assert main(["doctor", "--backend", "numpy"]) == 1
    found = capsys.readouterr().out
    assert "disagrees" in found
    assert "cityblock (array)" in found
    assert ": off by" in found
    assert "brand_new (array)" in found
    assert ": no reference value" in found
    assert "Not all is well" in found


@pytest.mark.usefixtures("quick")
def test_a_metric_that_raises_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(xp: Any) -> Any:
        raise RuntimeError("one\ntwo")

    monkeypatch.setitem(METRICS, "cityblock", replace(METRICS["cityblock"], define=broken))
    report = doctor.report(["numpy"])
    assert report["backends"][0]["failing"] == [
        {"kind": "distance", "metric": "cityblock", "engine": engine, "reason": "RuntimeError: one two"}
        for engine in ("array", "compiled")
        if engine == "array" or report["compiler"] is None
    ]
    assert not report["ok"]


@pytest.mark.usefixtures("quick")
def test_one_reason_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "disagreement", lambda lib, row, engine: ("float64", "all is lost"))
    assert main(["doctor", "--backend", "numpy"]) == 1
    found = capsys.readouterr().out
    assert found.count("all is lost") == 1
    assert "sqeuclidean (array), sqeuclidean (native)" in found
    assert "more: all is lost" in found


@pytest.mark.parametrize(
    ("got", "why"),
    [
        (lambda want: want * (1 + 1e-6), "off by 1.0e-06"),
        (lambda want: want[:, :-1], "shape (15, 10) instead of (15, 11)"),
        (lambda want: np.where(want == 0, np.nan, want), "NaN or inf in other places"),
        (lambda want: want * (1 + 1e-14), None),
        (lambda want: (want * (1 + 1e-6)).astype(np.float32), None),
    ],
)
def test_what_agrees(monkeypatch: pytest.MonkeyPatch, got: Callable[[Any], Any], why: str | None) -> None:
    want = doctor.references()["distance-cityblock"]
    monkeypatch.setattr("pairx.distances.cdist", lambda *args, **kwargs: got(want))
    _, reason = doctor.disagreement(pairx.backend.by_name("numpy"), METRICS["cityblock"], "array")
    assert reason is None if why is None else why in str(reason)


@pytest.mark.usefixtures("quick")
def test_a_broken_library_is_shown_as_such(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = pairx.backend.load

    def load(root: str) -> Any:
        if root == "torch":
            raise OSError("libtorch.so:\n cannot open shared object file")
        return real(root)

    monkeypatch.setattr(pairx.backend, "load", load)
    monkeypatch.setattr(pairx.backend, "present", lambda name: True)
    assert main(["doctor", "--backend", "numpy", "--backend", "torch"]) == 1
    found = capsys.readouterr().out
    assert "broken: OSError: libtorch.so: cannot open shared object file" in found
    assert "Traceback" not in found


@pytest.mark.usefixtures("quick", "numpy_alone")
def test_a_missing_library_matters_only_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    report = doctor.report(["torch"])
    assert [row["status"] for row in report["backends"]] == ["missing"]
    assert report["backends"][0]["install"] == "pip install 'pairx[torch]'"
    assert main(["doctor", "--backend", "torch"]) == 1


def test_an_unknown_backend_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--backend", "torhc", "--json"]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1
    assert "'torhc' is unknown; registered:" in found.err


def test_without_memray_the_figure_is_blank_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "find_spec", lambda name: None)
    assert main(["doctor", "--backend", "numpy"]) == 0
    assert "no peak memory: memray is not installed: pip install memray" in capsys.readouterr().out


def test_without_a_probe_the_figure_is_blank_and_says_so() -> None:
    assert doctor.peak("nowhere.found:BACKEND", lambda: None) == (None, "the backend has no probe (nowhere.found.measure)")
    found, why = doctor.peak("pairx:BACKEND", lambda: None)  # a module of that name, but no probe in it
    assert found is None
    assert "peak_bytes" in str(why)


def test_memory_is_what_it_is() -> None:
    if measure.missing_tool():
        pytest.skip("needs memray")
    size = 50_000_000
    held = [np.zeros(8)]
    found = measure.cpu_peak_bytes(lambda: held.append(np.ones(size, np.uint8)) or held.pop())
    assert found is not None
    assert size <= found < size + 100_000


def test_the_probe_of_each_backend(backend: Any) -> None:
    """Found beside the record, and it sees at least the result."""
    lib = pairx.backend.by_name(backend.name)
    _, call = doctor.common_call(lib)
    found, why = doctor.peak(pairx.backend.backends()[backend.name]["module"], call)
    if found is None:
        assert why
    else:
        assert found >= 4_000_000


@pytest.mark.usefixtures("quick")
def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "missing", lambda: "it is not installed: pip install 'pairx[jit]'")
    assert main(["doctor", "--backend", "numpy"]) == 0
    assert "compiled: it is not installed: pip install 'pairx[jit]'." in capsys.readouterr().out
