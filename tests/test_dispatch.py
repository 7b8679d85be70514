"""Who answers a call, what is refused and with which words, options, plans, threads, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from adapters import Adapter, installed

import pairx
from pairx import backend as found
from pairx.plan import parse_bytes

X = np.arange(12.0).reshape(4, 3)


# --- dispatch -----------------------------------------------------------------------------------------------------------


def test_lists_and_tuples_are_numpy():
    got = pairx.cdist([[0, 0], [3, 4]], ((0.0, 0.0),))
    assert isinstance(got, np.ndarray)
    assert got.tolist() == [[0.0], [5.0]]


@pytest.mark.skipif(not installed("torch"), reason="no torch")
def test_the_first_call_of_a_process_may_be_compiled():
    code = (
        "import pairx, torch\n"
        "f = torch.compile(lambda x: pairx.cdist(x, x[:2], 'cityblock'), backend='eager', fullgraph=True)\n"
        "print(f(torch.tensor([[0.0, 0.0], [1.0, 2.0], [4.0, 4.0]])).tolist())\n"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "[[0.0, 3.0], [3.0, 0.0], [8.0, 5.0]]"


def test_an_ndarray_subclass_without_a_meaning_of_its_own_is_an_ndarray():
    class Named(np.ndarray):
        pass

    got = pairx.cdist(X.view(Named))
    assert type(got) is np.ndarray
    assert (got == pairx.cdist(X)).all()


def refused() -> list:
    cases = [
        ("masked", lambda: np.ma.masked_array(X, X > 3), ("MaskedArray", "nan_policy")),
        ("matrix", lambda: np.matrix(X), ("matrix", "asarray")),
        ("text", lambda: np.array([["a"]]), ("dtype",)),
        ("objects", lambda: np.array([[1, None]], dtype=object), ("dtype",)),
        ("dates", lambda: X.astype("datetime64[s]"), ("dtype",)),
        ("ragged", lambda: [[1, 2], [3]], ("ragged",)),
        ("a string", lambda: "abc", ("str",)),
        ("a number", lambda: 3.0, ("axes",)),
        ("a dict", lambda: {"a": 1}, ("dict", "takes arrays")),
    ]
    if installed("numpy") and __import__("importlib").util.find_spec("pandas"):
        cases.append(("pandas", lambda: __import__("pandas").DataFrame(X), ("DataFrame", "to_numpy")))
    if __import__("importlib").util.find_spec("polars"):
        cases.append(("polars", lambda: __import__("polars").DataFrame(X), ("DataFrame", "to_numpy")))
    if __import__("importlib").util.find_spec("scipy"):
        cases.append(("sparse", lambda: __import__("scipy.sparse").sparse.csr_array(X), ("csr_array", "toarray")))
    return [pytest.param(make, words, id=name) for name, make, words in cases]


@pytest.mark.parametrize(("make", "words"), refused())
def test_what_is_no_array_is_refused_with_advice(make, words):
    with pytest.raises((TypeError, ValueError)) as caught:
        pairx.cdist(make())
    for word in words:
        assert word in str(caught.value)


@pytest.mark.backends("torch")
def test_what_is_no_dense_tensor_is_refused(backend: Adapter):
    torch = backend.lib
    for tensor, word in (
        (torch.eye(3).to_sparse(), "to_dense"),
        (torch.nested.nested_tensor([torch.ones(2, 3)]), "to_padded_tensor"),
        (torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8), "dequantize"),
    ):
        with pytest.raises(TypeError, match=word):
            pairx.cdist(tensor)


@pytest.mark.backends("array_api_strict")
def test_two_devices_are_named(backend: Adapter):
    other = backend.lib.asarray(X, device=backend.lib.Device("device2"))
    with pytest.raises(ValueError, match=r"device1.*device2"):
        pairx.cdist(backend.asarray(X), other)
    with pytest.raises(ValueError, match="device2"):
        pairx.cdist(backend.asarray(X), w=backend.lib.ones(3, device=backend.lib.Device("device2")))


def test_two_libraries_are_named(backend: Adapter):
    if backend.name == "numpy":
        pytest.skip("the other library here is NumPy")
    with pytest.raises(TypeError, match=f"{backend.name}.*numpy"):
        pairx.cdist(backend.asarray(X), X)
    with pytest.raises(TypeError, match=f"numpy.*{backend.name}"):
        pairx.cdist(X, backend.asarray(X))


def test_a_known_library_that_is_missing_names_its_extra(monkeypatch):
    class Missing:
        @staticmethod
        def load():
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(found, "entry_points", lambda: {"torch": Missing})
    found.load.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"pip install 'pairx\[torch\]'"):
            found.load("torch")
    finally:
        found.load.cache_clear()


def test_backends_lists_what_is_there_and_what_brings_the_rest():
    listed = pairx.backends()
    assert listed["numpy"]["installed"]
    assert listed["numpy"]["version"] == np.__version__
    assert listed["cupy"]["install"] == "pip install 'pairx[cuda12]' (or [cuda13])"
    assert "jaxlib" not in listed


# --- arguments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: pairx.cdist(X[0]), ValueError, ("x has shape (3,)", "paired")),
        (lambda: pairx.cdist(X, X[:, :2]), ValueError, ("(4, 3)", "(4, 2)", "features")),
        (lambda: pairx.cdist(X, metric="euclidian"), ValueError, ("euclidian", "euclidean")),
        (lambda: pairx.cdist(X, p=3), TypeError, ("p", "euclidean", "w")),
        (lambda: pairx.cdist(X, w=[1, 2]), ValueError, ("w has shape (2,)", "(3,)")),
        (lambda: pairx.cdist(X, w=[1, 2, -1]), ValueError, ("w", "0 or more")),
        (lambda: pairx.cdist(X, metric="minkowski", p=-1), ValueError, ("p=-1",)),
        (lambda: pairx.cdist(X, metric="minkowski", p="two"), ValueError, ("p='two'",)),
        (lambda: pairx.cdist(X, metric="jensenshannon", base=1), ValueError, ("base=1",)),
        (lambda: pairx.cdist(X, metric="hamming", normalize="yes"), TypeError, ("normalize='yes'",)),
        (lambda: pairx.cdist(X, zero="none"), ValueError, ("zero='none'", "finite")),
        (lambda: pairx.cdist(X, out_dtype="int32"), TypeError, ("out_dtype='int32'", "floating")),
        (lambda: pairx.cdist(X, out_dtype="float7"), TypeError, ("float7",)),
        (lambda: pairx.cdist(X, max_bytes="lots"), ValueError, ("max_bytes='lots'", "64MB")),
        (lambda: pairx.cdist(X, max_bytes=10), ValueError, ("max_bytes=10", "needs")),
        (lambda: pairx.cdist(X, metric="mahalanobis", VI=np.eye(2)), ValueError, ("VI has shape (2, 2)", "(3, 3)")),
        (lambda: pairx.cdist(X, metric="mahalanobis", VI=np.eye(3), cov=np.eye(3)), TypeError, ("VI and cov",)),
        (lambda: pairx.cdist(X, metric="mahalanobis", cov=-np.eye(3)), ValueError, ("cov", "positive definite")),
        (lambda: pairx.cdist(X, metric="seuclidean", V=[1.0]), ValueError, ("V has shape (1,)", "(3,)")),
        (lambda: pairx.cdist(X, metric="haversine"), ValueError, ("3 features", "latitude")),
        (lambda: pairx.paired(X), TypeError, ("y", "pairs")),
        (lambda: pairx.paired(X, pairs=([0], [9])), IndexError, ("j", "9", "0 to 3")),
        (lambda: pairx.paired(X, pairs=([[0], [1]], [[1], [2]])), ValueError, ("(2, 1)", "flatten")),
        (lambda: pairx.paired(X, pairs=([0, 1], [1])), ValueError, ("lengths", "2 and 1")),
        (lambda: pairx.paired(X, pairs=([0.5], [1.0])), ValueError, ("float64", "integers")),
        (lambda: pairx.squareform(np.ones(4)), ValueError, ("4 entries",)),
        (lambda: pairx.squareform(X[:3]), ValueError, ("symmetric",)),
        (lambda: pairx.cdist(X, out=np.empty((4, 3))), ValueError, ("out has shape (4, 3)", "(4, 4)")),
        (lambda: pairx.cdist(X, out=np.empty((4, 4), "f4")), ValueError, ("out has dtype float32", "float64")),
        (lambda: pairx.options(speed=3).__enter__(), TypeError, ("speed", "max_bytes")),
        (lambda: pairx.options(threads=0).__enter__(), ValueError, ("threads=0",)),
    ],
)
def test_bad_input_gets_one_clear_error(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_out_that_shares_memory_with_an_input_is_refused():
    square = np.ones((3, 3))
    with pytest.raises(ValueError, match="shares memory with x"):
        pairx.cdist(square, out=square)


@pytest.mark.parametrize(("text", "count"), [("64MB", 64 * 10**6), ("64MiB", 2**26), ("1.5kb", 1500), (7, 7), ("12", 12), ("1 GiB", 2**30)])
def test_bytes_as_people_write_them(text, count):
    assert parse_bytes(text) == count


# --- plans --------------------------------------------------------------------------------------------------------------


def test_explain_tells_the_plan_and_computes_nothing():
    huge = np.broadcast_to(np.float32(1), (3_000_000, 64))  # 768 MB if anything were done with it
    plan = pairx.explain(pairx.cdist, huge, huge[:4], metric="cityblock", max_bytes="8MB")
    assert plan.engine in ("array", "compiled")
    assert plan.scratch_bytes <= 8_000_000
    assert plan.result_bytes == 3_000_000 * 4 * 4
    for word in ("cityblock", "numpy", "tiles", "MiB"):
        assert word in str(plan)


def test_a_result_that_cannot_fit_is_refused_before_work():
    huge = np.broadcast_to(np.float64(1), (10_000_000, 3))
    start = time.monotonic()
    with pytest.raises(MemoryError, match=r"800000000000000 bytes"):
        pairx.cdist(huge)
    assert time.monotonic() - start < 30


def test_options_hold_inside_their_block_and_the_call_wins():
    with pairx.options(max_bytes="1MiB", engine="array"):
        inside = pairx.explain(pairx.cdist, X)
        assert inside.max_bytes == 2**20
        assert inside.engine == "array"
        assert pairx.explain(pairx.cdist, X, engine="native", max_bytes=9999).max_bytes == 9999
        with pairx.options(max_bytes="2MiB"):
            assert pairx.explain(pairx.cdist, X).max_bytes == 2**21
        assert pairx.explain(pairx.cdist, X).max_bytes == 2**20
    assert pairx.explain(pairx.cdist, X).max_bytes == 2**28


def test_threads_follow_the_option_then_the_environment(monkeypatch):
    many = np.zeros((3000, 64))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert pairx.explain(pairx.cdist, many, metric="cityblock").threads == 3
    with pairx.options(threads=2):
        assert pairx.explain(pairx.cdist, many, metric="cityblock").threads == 2


# --- threads, signals ---------------------------------------------------------------------------------------------------


def test_calls_from_many_threads():
    x = np.random.default_rng(0).random((120, 16))
    want = pairx.cdist(x, metric="canberra")
    wrong = []

    def work():
        for _ in range(5):
            if not np.array_equal(pairx.cdist(x, metric="canberra", max_bytes=100_000), want):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT between processes")
def test_ctrl_c_comes_back_soon():
    code = (
        "import numpy as np, pairx, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background inherits that it is ignored
        "x = np.random.default_rng(0).random((20000, 64))\n"
        "print('ready', flush=True)\n"
        "try:\n    pairx.cdist(x, metric='canberra')\n"
        "except KeyboardInterrupt:\n    print('interrupted', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert process.stdout.readline().strip() == "ready"
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out.strip() == "interrupted"
    assert process.returncode == 0
