"""Sessions of pairx. ``nox`` alone runs the defaults: lint, types, and the tests of every CPU backend (about 35 minutes on two
cores the first time, less when environments are reused). ``nox --list`` shows the rest.

``nox --no-venv --no-install -s "tests(cupy)"`` runs in the current environment: the way on a prebuilt GPU image.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"  # pip installs: it alone finds wheels in a find-links folder
nox.options.reuse_venv = "yes"

PROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = "tests/constraints/latest.txt"
CPU = ("numpy", "torch", "tensorflow", "jax", "dask", "strict")
EXTRAS = {"numpy": "jit,cli", "torch": "jit,torch,cli", "tensorflow": "jit,cli", "strict": "cli,test", "cupy": "cuda12,cli"}
# The full wheel of Linux carries half a gigabyte of GPU code that a CPU test never runs.
TENSORFLOW = "tensorflow-cpu" if sys.platform == "linux" and platform.machine() == "x86_64" else "tensorflow"
SUITE = "PAIRX_ARRAY_API_TESTS"
SUITE_COMMIT = "55fcc60179efa2680ddd6cd926ddf17b83530e2b"

nox.options.sessions = ["lint", "types", *(f"tests({b})" for b in CPU), "equivalence"]


def install(session: nox.Session, extras: str, *groups: str, also: Sequence[str] = (), constraints: str = CONSTRAINTS) -> None:
    """pairx, editable, with extras and dependency groups, in one step so that pip settles all versions together."""
    wanted = [r for g in groups for r in nox.project.dependency_groups(PROJECT, g)]
    session.install("-c", constraints, *wanted, *also, "-e", f".[{extras}]" if extras else ".")


def test(session: nox.Session, backends: str, *paths: str) -> None:
    """pytest, one process for each core, each with one thread of its own."""
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    session.run("pytest", "--numprocesses", "auto", "-q", "--backend", backends, *paths, *session.posargs, env=environment)


@nox.session
@nox.parametrize("backend", [nox.param(b, id=b, tags=[b]) for b in (*CPU, "cupy")])
def tests(session: nox.Session, backend: str) -> None:
    """The whole test suite on one backend, which must be there (2 to 6 minutes each)."""
    install(session, EXTRAS.get(backend, f"{backend},cli"), "test", also=[TENSORFLOW] if backend == "tensorflow" else [])
    test(session, backend)


@nox.session
def equivalence(session: nox.Session) -> None:
    """All CPU backends in one environment and one process: they agree with each other and do not disturb each other (3 minutes)."""
    install(session, "jit,torch,jax,dask,cli,test", "test", also=[TENSORFLOW])
    test(session, ",".join(CPU), "tests/test_conformance.py", "tests/test_equivalence.py")


@nox.session
def losses(session: nox.Session) -> None:
    """Every variant and edge of every loss on every library, and against pytorch-metric-learning and optax (40 minutes)."""
    install(session, "jit,torch,jax,cli,test", "test", also=[TENSORFLOW, "optax>=0.2.4", "pytorch-metric-learning==2.9.0"])
    test(session, "numpy,torch,tensorflow,jax,strict", "tests/losses", "tests/test_mining.py", "--wide")


@nox.session
def strict(session: nox.Session) -> None:
    """The core on array_api_strict alone, with a second device (2 minutes)."""
    install(session, "test", "test")
    test(session, "strict")


@nox.session
def lowest(session: nox.Session) -> None:
    """The oldest versions that the metadata allows (8 minutes)."""
    install(session, "jit,dask,cli,test", "test", constraints="tests/constraints/lowest.txt")
    test(session, "numpy,dask,strict")


@nox.session
def array_api_suite(session: nox.Session) -> None:
    """The public array-api-tests over our TensorFlow namespace; PAIRX_ARRAY_API_TESTS names its checkout (10 minutes)."""
    folder = os.environ.get(SUITE)
    if not folder or not (Path(folder) / "array_api_tests").is_dir():
        session.error(f"Set {SUITE} to a checkout of data-apis/array-api-tests at {SUITE_COMMIT}, with its submodule.")
    install(session, "", also=[TENSORFLOW, "pytest", "pytest-json-report", "hypothesis>=6.151", "ndindex>=1.8"])
    here = Path(__file__).parent / "tests" / "array_api_suite"
    session.chdir(folder)
    session.run(
        # Without its own configuration named, pytest would adopt pairx's from the lists' folder.
        "pytest", "-c", "pytest.ini", "--rootdir", ".", "array_api_tests", "-q", "-p", "no:cacheprovider",
        "--max-examples", "50", "--disable-deadline", "--derandomize", "--disable-extension", "fft",
        "--xfails-file", str(here / "xfails.txt"), "--skips-file", str(here / "skips.txt"), *session.posargs,
        env={"ARRAY_API_TESTS_MODULE": "tf_wrapper", "ARRAY_API_TESTS_VERSION": "2024.12", "PYTHONPATH": str(here),
             "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: lint and format."""
    session.install("-c", CONSTRAINTS, *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", *session.posargs, ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy in strict mode."""
    install(session, "cli", "types")
    session.run("mypy", *session.posargs)


def machine() -> str:
    """A name for the folder of this machine's results: its processor and how many of them, no host name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return re.sub(r"[^a-z0-9]+", "-", f"{model} x{os.cpu_count()}".lower()).strip("-")


# The same call takes 3 ms or 20 by whether malloc hands its pages back to the system after each: while timing, it keeps them.
KEEP_PAGES = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "2147483648", "MALLOC_TOP_PAD_": "268435456"}


ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
COMMON = (
    r"TimeCdist\.time_call\('\w+', 'cpu', '(cityblock|euclidean|cosine|jensenshannon)', 'float32', '1000x1000x64'",
    r"TimeCdistGradient\.time_call\('\w+', 'cpu', '(cityblock|euclidean)', 'float32'",
    r"TimePairwiseMatrixNorm\.time_call\('\w+', 'cpu', '(fro|nuc)'",
    r"TimeLossGradient\.time_call\('\w+', 'cpu', '(info_nce|supcon|contrastive|triplet_batch_all)'",
    r"TimeSmallCall\.time_call\('\w+', 'cpu', 'cdist'",
    r"TimeImport",
)
"""What the bounded sessions of asv take, by regular expressions of its benchmarks and parameters."""
MEMORY = r"PeakCPU\w+\.track_peak\('(numpy|torch)'"


@nox.session
def peers(session: nox.Session) -> None:
    """Speed against SciPy, scikit-learn, torch, JAX, faiss, numkong and others, on one thread and two (an hour; with -- --full two).

    Writes asv_bench/results/<machine>/peers-<threads>.json and docs/peers.md.
    """
    install(session, "jit,torch,jax", "peers")
    here = Path("asv_bench") / "results" / machine()
    here.mkdir(parents=True, exist_ok=True)
    written = []
    for threads in (1, 2):
        written.append(str(here / f"peers-{threads}.json"))
        options = ["-q", "-p", "no:cacheprovider", "--timeout", "1200", f"--benchmark-json={written[-1]}"]
        session.run("pytest", "asv_bench/peers", *options, *session.posargs, env={"PEERS_THREADS": str(threads), **KEEP_PAGES})
    page = session.run("python", "asv_bench/peers/table.py", *written, silent=True)
    Path("docs/peers.md").write_text(str(page), encoding="utf-8")


@nox.session
def agreement(session: nox.Session) -> None:
    """How far every metric and loss is from its reference on every library, and what losses answer at their edges (15 minutes).

    PAIRX_AGREEMENT_WITHOUT=jax leaves a library out (5 minutes). Writes asv_bench/results/<machine>/agreement.json and docs/agreement.md.
    """
    install(session, "jit,torch,jax,dask,test", "test", also=[TENSORFLOW])
    out = Path("asv_bench") / "results" / machine() / "agreement.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    session.run("python", "asv_bench/agreement/measure.py", str(out), machine(), env={"TF_CPP_MIN_LOG_LEVEL": "3", **ONE_THREAD})
    page = session.run("python", "asv_bench/agreement/table.py", str(out), silent=True)
    Path("docs/agreement.md").write_text(str(page), encoding="utf-8")


def asv(session: nox.Session, *arguments: str, **how: object) -> None:
    """asv in its folder, for this machine under a name that is not the host's."""
    session.chdir(Path(__file__).parent / "asv_bench")
    session.run("asv", *arguments, "--machine", machine(), env={**KEEP_PAGES, **ONE_THREAD}, **how)  # type: ignore[arg-type]


def asv_ready(session: nox.Session) -> None:
    """asv installed, and this machine described to it."""
    session.install("-c", CONSTRAINTS, *nox.project.dependency_groups(PROJECT, "bench"))
    cpu, ram = machine(), f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GB" if hasattr(os, "sysconf") else "?"
    about = ["--os", platform.system(), "--arch", platform.machine(), "--cpu", cpu, "--num_cpu", str(os.cpu_count()), "--ram", ram]
    session.chdir(Path(__file__).parent / "asv_bench")
    session.run("asv", "machine", "--machine", machine(), *about, silent=True)


@nox.session
def bench(session: nox.Session) -> None:
    """asv on the current commit: common cases on every library (15 minutes); -- --full for all of them (a day), -- -b REGEX for some."""
    asv_ready(session)
    chosen = [a for a in session.posargs if a != "--full"]
    if not session.posargs:
        chosen = [part for regex in COMMON for part in ("--bench", regex)]
    asv(session, "run", "HEAD^!", "--show-stderr", *chosen)


@nox.session
def bench_history(session: nox.Session) -> None:
    """asv on the last commits: -- 10 for ten of them (5 without), or a range as git has it; common cases (15 minutes a commit)."""
    asv_ready(session)
    wanted = session.posargs[0] if session.posargs else "5"
    span = ["HEAD", "--steps", wanted] if wanted.isdigit() else [wanted]
    asv(session, "run", *span, "--skip-existing-successful", *(part for regex in COMMON for part in ("--bench", regex)))


def base(session: nox.Session) -> str:
    """What the current commit is compared with: where it left main, or the commit before on main itself."""
    if str(session.run("git", "rev-parse", "--is-shallow-repository", external=True, silent=True)).strip() == "true":
        session.run("git", "fetch", "--unshallow", external=True, success_codes=[0, 1, 128])
    for ref in ("origin/main", "main"):
        found = str(session.run("git", "merge-base", ref, "HEAD", external=True, silent=True, success_codes=[0, 1, 128])).strip()
        head = str(session.run("git", "rev-parse", "HEAD", external=True, silent=True)).strip()
        if re.fullmatch("[0-9a-f]{40}", found) and found != head:
            return found
    before = str(session.run("git", "rev-parse", "--verify", "HEAD~1", external=True, silent=True, success_codes=[0, 128])).strip()
    if not re.fullmatch("[0-9a-f]{40}", before):
        session.error("There is no commit to compare with: the history is cut off, and could not be fetched.")
    return before


@nox.session
def bench_memory(session: nox.Session) -> None:
    """Peak bytes against where this branch left main, or the commit before: more than 2 % above fails (10 minutes)."""
    asv_ready(session)
    chosen = session.posargs[0] if session.posargs else MEMORY
    asv(session, "continuous", "--factor", "1.02", "--no-stats", "--bench", chosen, base(session), "HEAD")


@nox.session
def bench_time(session: nox.Session) -> None:
    """Times against where this branch left main, or the commit before; reports, and never fails (15 minutes)."""
    asv_ready(session)
    cases = [part for regex in session.posargs or COMMON for part in ("--bench", regex)]
    asv(session, "continuous", "--factor", "1.5", *cases, base(session), "HEAD", success_codes=[0, 1])


@nox.session
def gpu(session: nox.Session) -> None:
    """On a GPU machine, in the environment that is there: nox --no-venv --no-install -s gpu."""
    found = [b for b in ("cupy", "torch", "jax", "tensorflow") if importlib.util.find_spec(b)]
    session.run("python", "-m", "pytest", "-q", "--backend", ",".join(found), *session.posargs)
