"""``pairx cdist`` and the rest of the command line: values, files, every error as one line, and its exit code."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pairx
from pairx import blockwise
from pairx.__main__ import main
from pairx.formulas import plain
from pairx.metrics import KERNELS, METRICS

pytest.importorskip("typer")
pytest.importorskip("rich")
distance = pytest.importorskip("scipy.spatial.distance")

PAIRX = [sys.executable, "-m", "pairx"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two sets of rows."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("a.npy", rng.normal(size=(50, 5)))
    np.save("b.npy", rng.normal(size=(40, 5)))
    np.save("w.npy", np.linspace(0.5, 2, 5))
    return tmp_path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks of few rows."""
    monkeypatch.setattr(blockwise, "LARGEST", 7)


def error_of(capsys: pytest.CaptureFixture[str], *args: str, code: int = 2) -> str:
    """The one line that a failing call prints."""
    before = sorted(os.listdir())
    assert main([*args]) == code
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.count("\n") == 1, found.err
    assert found.err.startswith("pairx: ")
    assert sorted(os.listdir()) == before, "something was left behind"
    return found.err


# --- values -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here", "small_blocks")
@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        (["-m", "cityblock"], {"metric": "cityblock"}),
        (["-m", "manhattan", "--w", "w.npy"], {"metric": "cityblock", "w": np.linspace(0.5, 2, 5)}),
        ([], {"metric": "euclidean"}),
        (["--engine", "native"], {"metric": "euclidean"}),
        (["-m", "minkowski", "-p", "3"], {"metric": "minkowski", "p": 3}),
        (["-m", "minkowski", "--p", "inf"], {"metric": "chebyshev"}),
        (["-m", "seuclidean"], {"metric": "seuclidean"}),
        (["-m", "mahalanobis"], {"metric": "mahalanobis"}),
        (["-m", "hamming", "--no-normalize"], {"metric": lambda u, v: (u != v).sum()}),
    ],
)
@pytest.mark.parametrize("other", ["a.npy", "b.npy", None])
def test_values(options: list[str], keywords: dict[str, Any], other: str | None) -> None:
    assert main(["cdist", "a.npy", *([other] if other else []), *options, "-o", "o.npy"]) == 0
    x, got = np.load("a.npy"), np.load("o.npy")
    if other is None:  # SciPy's own way for one set, whose V and VI are of that set
        want = distance.squareform(distance.pdist(x, **keywords))
        assert (got == got.T).all()
        assert not got.diagonal().any()
    else:
        want = distance.cdist(x, np.load(other), **keywords)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-7)
    assert got.dtype == np.float64


@pytest.mark.usefixtures("here", "small_blocks")
def test_more_options() -> None:
    rng = np.random.default_rng(1)
    np.save("p.npy", rng.random((20, 4)))
    np.savetxt("VI.csv", np.eye(5), delimiter=",")
    np.savetxt("V.csv", np.arange(1.0, 6.0), delimiter=",")  # in a column
    x, p = np.load("a.npy"), np.load("p.npy")

    def run(*options: str) -> Any:
        assert main(["cdist", *options, "-o", "o.npy"]) == 0
        return np.load("o.npy")

    got = run("p.npy", "-m", "jensenshannon", "--base", "2")
    np.testing.assert_allclose(got, distance.cdist(p, p, "jensenshannon") / np.sqrt(np.log(2)), atol=1e-7)
    np.testing.assert_allclose(run("a.npy", "-m", "mahalanobis", "--VI", "VI.csv"), distance.cdist(x, x), atol=1e-7)
    np.testing.assert_allclose(run("a.npy", "-m", "mahalanobis", "--cov", "VI.csv"), distance.cdist(x, x), atol=1e-7)
    want = distance.cdist(x, x, "seuclidean", V=np.arange(1.0, 6.0))
    np.testing.assert_allclose(run("a.npy", "-m", "seuclidean", "--V", "V.csv"), want, atol=1e-7)
    assert run("a.npy", "--out-dtype", "float32").dtype == np.float32
    kl = run("p.npy", "-m", "kl_divergence", "--normalize")  # not symmetric: both triangles
    q = p / p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(kl, (q[:, None] * np.log(q[:, None] / q)).sum(-1), atol=1e-12)
    assert not kl.diagonal().any()
    x[3, 2] = np.nan
    np.save("n.npy", x)
    got = run("n.npy", "-m", "cityblock", "--nan-policy", "omit")
    np.testing.assert_allclose(got[3, 0], np.nansum(abs(x[3] - x[0])) * 5 / 4)
    assert np.isnan(run("n.npy", "-m", "cityblock")[3]).all()
    np.save("z.npy", np.zeros((2, 3)))
    assert not run("z.npy", "-m", "braycurtis").any()
    assert np.isnan(run("z.npy", "z.npy", "-m", "braycurtis", "--zero", "scipy")).all()


@pytest.mark.usefixtures("here", "small_blocks")
def test_complex_numbers_are_mirrored_as_they_should() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(20, 3)) + 1j * rng.normal(size=(20, 3))
    np.save("c.npy", x)
    assert main(["cdist", "c.npy", "-m", "inner_product", "-o", "o.npy"]) == 0
    np.testing.assert_allclose(np.load("o.npy"), x.conj() @ x.T, atol=1e-12)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("dtype", ["uint8", "bool", ">f4", "float16"])
def test_dtypes(dtype: str) -> None:
    x = (np.arange(24).reshape(6, 4) % 5 * 40).astype(dtype)
    np.save("i.npy", x)
    assert main(["cdist", "i.npy", "-m", "cityblock", "-o", "o.npy"]) == 0
    np.testing.assert_array_equal(np.load("o.npy"), distance.cdist(x.astype(float), x.astype(float), "cityblock"))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (3, 0)])
def test_few_rows(shape: tuple[int, int]) -> None:
    np.save("f.npy", np.ones(shape))
    assert main(["cdist", "f.npy", "-m", "cityblock", "-o", "o.npy"]) == 0
    np.testing.assert_array_equal(np.load("o.npy"), np.zeros((shape[0], shape[0])))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("max_bytes", ["1GB", "40kB"])
@pytest.mark.parametrize("metric", ["cityblock", "mahalanobis"])
def test_another_library(backend: Any, max_bytes: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend.name not in ("numpy", "torch", "array_api_strict"):
        monkeypatch.setattr(blockwise, "LARGEST", 32)  # few blocks, since each compiles or schedules something
        max_bytes = "1GB"
    for args, want in (
        (["a.npy"], pairx.cdist(np.load("a.npy"), None, metric)),
        (["a.npy", "b.npy"], pairx.cdist(np.load("a.npy"), np.load("b.npy"), metric)),
    ):
        assert main(["cdist", *args, "-m", metric, "-b", backend.name, "--max-bytes", max_bytes, "-o", "o.npy"]) == 0
        got = np.load("o.npy")
        assert got.dtype in (np.float64, np.float32)  # JAX without x64 has no float64
        np.testing.assert_allclose(got, want, rtol=1e-12 if got.dtype == np.float64 else 1e-4)
        if len(args) == 1:
            assert (got == got.T).all()
            assert not got.diagonal().any()


@pytest.mark.usefixtures("here")
def test_what_is_brought_to_a_library_keeps_to_the_budget() -> None:
    x = np.load("a.npy")
    job = blockwise.prepare(x, None, "cityblock", backend="array_api_strict", max_bytes="20kB")
    side = job.side
    assert 1 <= side < 50
    assert 2 * side * side * 8 + 2 * (2 * side * 5 * 8) <= 10_000
    assert job.keywords["max_bytes"] == 10_000
    assert job.pairs < 50 * 50


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA does not count maps of files on Linux only")
def test_a_result_larger_than_memory(tmp_path: Path) -> None:
    import resource

    x = np.random.default_rng(0).normal(size=(6000, 2)).astype(np.float32)
    np.save(tmp_path / "a.npy", x)
    limit = 120 << 20  # the interpreter and NumPy with them; the result has 144 MB
    done = subprocess.run(
        [*PAIRX, "cdist", "a.npy", "-m", "cityblock", "--max-bytes", "4MB", "-o", "o.npy"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    out = np.load(tmp_path / "o.npy", mmap_mode="r")
    assert out.nbytes > limit
    for i in (0, 2047, 2048, 5999):
        np.testing.assert_allclose(out[i], abs(x[i] - x).sum(axis=1), rtol=1e-5)
        assert (out[i] == out[:, i]).all()


@pytest.mark.usefixtures("here")
def test_a_small_result_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.csv").write_text("x,y\n0,0\n3,4\n")
    assert main(["cdist", "s.csv"]) == 0
    found = capsys.readouterr()
    assert [line.split() for line in found.out.splitlines()] == [["0", "5"], ["5", "0"]]
    assert found.err == ""
    assert "50 x 50" in error_of(capsys, "cdist", "a.npy")
    assert "-o out.npy" in error_of(capsys, "cdist", "a.npy")


@pytest.mark.usefixtures("here")
def test_an_older_result_is_replaced_whole() -> None:
    Path("o.npy").write_bytes(b"older")
    assert main(["cdist", "a.npy", "-o", "o.npy"]) == 0
    assert np.load("o.npy").shape == (50, 50)
    assert sorted(os.listdir()) == ["a.npy", "b.npy", "o.npy", "w.npy"]


# --- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["Missing argument", "pairx cdist --help"]),
        (["absent.npy"], ["absent.npy", "No such file"]),
        (["a.npy", "absent.csv"], ["absent.csv", "No such file"]),
        (["a.npy", "c.npy"], ["a.npy has shape (50, 5) and c.npy (4, 3)", "numbers of features"]),
        (["w.npy"], ["w.npy", "(5,)", "two axes"]),
        (["a.npy", "-m", "eucldean"], ["eucldean", "Did you mean 'euclidean'"]),
        (["a.npy", "-m", "dice"], ["a.npy: metric 'dice' compares booleans"]),
        (["c.npy", "a.npy", "-m", "poincare"], ["features"]),
        (["c.npy", "-m", "poincare"], ["c.npy", "unit ball"]),
        (["a.npy", "-m", "haversine"], ["a.npy has 5 features", "latitude"]),
        (["a.npy", "-b", "nope"], ["nope", "registered: "]),
        (["a.npy", "-p", "3"], ["p: metric 'euclidean' has no such parameter"]),
        (["a.npy", "-m", "minkowski", "-p", "-1"], ["p=-1.0"]),
        (["a.npy", "-m", "minkowski", "-p", "x"], ["-p"]),
        (["a.npy", "--base", "2"], ["base"]),
        (["a.npy", "--w", "c.npy"], ["w has shape (4, 3)"]),
        (["a.npy", "-m", "mahalanobis", "--VI", "c.npy"], ["VI has shape (4, 3)", "(5, 5)"]),
        (["c.npy", "-m", "mahalanobis"], ["covariance"]),
        (["same.npy", "-m", "mahalanobis"], ["covariance", "no inverse"]),
        (["a.npy", "--max-bytes", "lots"], ["max-bytes='lots'"]),
        (["a.npy", "--max-bytes", "3"], ["max-bytes", "smallest"]),
        (["a.npy", "--max-bytes", "3", "-b", "array_api_strict"], ["max-bytes", "smallest"]),
        (["a.npy", "--out-dtype", "int8"], ["out-dtype='int8'"]),
        (["a.npy", "--engine", "warp"], ["engine='warp'"]),
        (["a.npy", "-m", "cityblock", "--engine", "native"], ["native"]),
        (["a.npy", "--zero", "none"], ["zero='none'"]),
        (["a.npy", "--nan-policy", "drop"], ["nan-policy='drop'"]),
        (["nan.npy", "--nan-policy", "raise"], ["nan.npy has NaN"]),
        (["a.npy", "--unknown"], ["--unknown"]),
        (["a.npy", "b.npy", "c.npy"], ["c.npy"]),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) and len(value) < 5 else None,
)
def test_wrong_usage_is_one_line_and_exit_code_2(args: list[str], words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    np.save("c.npy", np.arange(12.0).reshape(4, 3))
    np.save("same.npy", np.ones((9, 3)))
    np.save("nan.npy", np.full((4, 3), np.nan))
    found = error_of(capsys, "cdist", *args, "-o", "o.npy")
    assert all(word in found for word in words), found


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("out", "why"),
    [("o.txt", "ending"), ("a.npy", "is an input"), ("absent/o.npy", "no folder"), ("folder.npy", "no plain file")],
)
def test_a_wrong_output_is_refused_before_any_work(
    out: str, why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("folder.npy").mkdir()
    monkeypatch.setattr(blockwise, "fill", None)
    assert why in error_of(capsys, "cdist", "a.npy", "-o", out)


@pytest.mark.usefixtures("here")
def test_a_missing_library_names_its_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pairx.backend.present", lambda name: None)
    assert "pip install 'pairx[torch]'" in error_of(capsys, "cdist", "a.npy", "-b", "torch", "-o", "o.npy")


@pytest.mark.usefixtures("here")
def test_a_broken_library(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def load(root: str) -> Any:
        raise OSError("libtorch.so: cannot open\nshared object file")

    monkeypatch.setattr("pairx.backend.present", lambda name: True)
    monkeypatch.setattr("pairx.backend.load", load)
    assert "libtorch.so: cannot open shared" in error_of(capsys, "cdist", "a.npy", "-b", "torch", "-o", "o.npy")


@pytest.mark.usefixtures("here")
@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="a call of POSIX")
def test_a_full_disk_is_exit_code_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert "the result takes 19.5 KiB" in error_of(capsys, "cdist", "a.npy", "-o", "o.npy", code=1)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of POSIX, of which Linux keeps this one")
def test_a_limit_of_the_system_is_exit_code_1(here: Path) -> None:
    import resource

    done = subprocess.run(
        [*PAIRX, "cdist", "a.npy", "-o", "o.npy"], capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pairx: the result takes 19.5 KiB")
    assert done.stderr.count("\n") == 1
    assert sorted(os.listdir()) == ["a.npy", "b.npy", "w.npy"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("half-way")])
def test_what_fails_half_way_is_exit_code_1(error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(job: Any, out: Any, advance: Any) -> None:
        advance(10)
        raise error

    monkeypatch.setattr(blockwise, "fill", fill)
    error_of(capsys, "cdist", "a.npy", "-o", "o.npy", code=1)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, number: str) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(20_000, 64)))  # 3.2 GB, minutes of work
    (tmp_path / "o.npy").write_bytes(b"as it was")
    running = subprocess.Popen(
        [*PAIRX, "cdist", "a.npy", "-m", "jensenshannon", "-o", "o.npy"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A job in the background inherits that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        for _ in range(600):
            if list(tmp_path.glob(".o.npy.*.part")) or running.poll() is not None:
                break
            time.sleep(0.05)
        time.sleep(0.5)  # into the work
        assert running.poll() is None, running.communicate()
        running.send_signal(getattr(signal, number))
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert (running.returncode, out) == (130, "")
    assert err == "pairx: interrupted; nothing was written.\n"
    assert sorted(os.listdir(tmp_path)) == ["a.npy", "o.npy"]
    assert (tmp_path / "o.npy").read_bytes() == b"as it was"


# --- the rest -----------------------------------------------------------------------------------------------------------


def test_without_the_extra_one_line_says_what_to_install() -> None:
    for missing in ("typer", "rich"):
        code = f"import sys; sys.modules[{missing!r}] = None; from pairx.__main__ import main; sys.exit(main(['doctor']))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"pairx: the command line needs {missing}: pip install 'pairx[cli]'\n"


def test_the_library_is_free_of_the_command_line() -> None:
    code = "import sys, pairx; pairx.cdist([[0.0]], [[1.0]]); assert not {'typer', 'rich', 'click'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pairx {pairx.__version__}\n"
    assert main([]) == 0
    assert "Commands" in capsys.readouterr().out
    for command in ("doctor", "cdist", "backends", "metrics"):
        assert main([command, "--help"]) == 0
        assert "Usage: pairx" in capsys.readouterr().out
    assert "'pairx --help'" in error_of(capsys, "nope")


def test_backends(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pairx.backend.present", lambda name: True if name == "numpy" else None)
    assert main(["backends"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert set(pairx.backends()) <= set(lines)
    assert np.__version__ in lines["numpy"]
    assert "pip install 'pairx[cuda12]' (or [cuda13])" in lines["cupy"]


def test_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    found = capsys.readouterr().out
    lines = {line.split()[0]: line for line in found.splitlines() if line.strip()}
    assert set(METRICS) <= set(lines)
    assert "sum_k w_k |x_k - y_k|" in lines["cityblock"]
    assert "manhattan" in lines["cityblock"]
    assert lines["minkowski"].split("  ")[1:]
    assert found.isascii() or "\u2500" in found


@pytest.mark.parametrize("row", [*METRICS.values(), *KERNELS.values()], ids=lambda row: f"{row.kind}-{row.name}")
def test_formulas_are_plain(row: Any) -> None:
    text = plain(row.formula)
    assert text.isascii()
    assert not set(text) & set("\\{}$"), text
    for pair in ("()", "[]"):
        assert text.count(pair[0]) == text.count(pair[1]), text


def test_formulas_read_well() -> None:
    assert plain(METRICS["minkowski"].formula) == "(sum_k w_k |x_k - y_k|^p)^(1/p)"
    assert plain(METRICS["haversine"].formula) == ("2 arcsin sqrt(sin^2(delta_phi/2) + cos phi_x cos phi_y sin^2(delta_lambda/2))")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_pipe_that_closes_early_is_no_traceback() -> None:
    done = subprocess.run(f"{' '.join(PAIRX)} metrics | head -n 1", shell=True, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "metric" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_progress_is_for_terminals(here: Path) -> None:
    import pty

    terminal, end = pty.openpty()
    done = subprocess.run([*PAIRX, "cdist", "a.npy", "-o", "o.npy"], stdout=subprocess.PIPE, stderr=end, timeout=60)
    os.close(end)
    said = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    assert (done.returncode, done.stdout) == (0, b"")
    assert "50 x 50 float64" in said


# --- warmup -------------------------------------------------------------------------------------------------------------

compiler = pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="Numba is not installed")


@compiler
@pytest.mark.parametrize(("metric", "rows"), [("manhattan", 3), ("cosine", 700)])
def test_warmup_compiles_for_later_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, rows: int):
    monkeypatch.setenv("PAIRX_CACHE_DIR", str(tmp_path))
    arguments = [*PAIRX, "warmup", "--metric", metric, "--dtype", "float32"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    kept = len(list(tmp_path.glob("*.bin")))
    assert kept > 1
    assert f"{kept} functions of 1 metrics" in done.stdout
    engine = "native" if metric == "cosine" else "compiled"
    code = (
        "import logging; logging.basicConfig(level=10)\n"
        f"import numpy, pairx; pairx.cdist(numpy.eye({rows}, dtype='f4'), metric='{metric}', engine='{engine}')"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "compiling" not in again.stderr


@compiler
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--metric", "inner_product"], "inner_product"), (["--metric", "cityblok"], "cityblock"), (["--dtype", "float16"], "float16")],
)
def test_warmup_says_what_is_wrong(capsys: pytest.CaptureFixture[str], arguments: list[str], word: str):
    assert word in error_of(capsys, "warmup", *arguments)


@compiler
@pytest.mark.usefixtures("here")
def test_warmup_without_a_folder(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PAIRX_CACHE_DIR", "")
    assert "PAIRX_CACHE_DIR" in error_of(capsys, "warmup", "--metric", "cityblock", code=1)
