"""The commands of ``pairx``. Results go to standard output; everything else, progress among it, to standard error."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from . import __version__, bridge

FAILED, USAGE, INTERRUPTED = 1, 2, 130
SMALL = (30, 10)
"""Rows and columns of a result that is shown rather than written."""

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # the one mode in which paragraphs are filled
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Usage(Exception):
    """Wrong usage, in one line."""


def _stdout() -> Console:
    # What is piped into another program must not be folded.
    return Console(width=None if sys.stdout.isatty() else 1000, highlight=False)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)


def _table(*columns: str, **options: Any) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, **options)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


# --- doctor -------------------------------------------------------------------------------------------------------------

Names = Annotated[list[str] | None, typer.Option("--backend", "-b", metavar="NAME", help="Only this one; may be repeated.")]


@app.command()
def doctor(
    backend: Names = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")] = False,
) -> None:
    """Check every installed backend against reference values.

    Each metric and kernel is computed by each engine on flowers of Fisher's iris and compared with float64 values that are
    shipped with pairx; one common call is timed and its peak memory measured, its result included.

    Exit code: 0 all agree; 1 something disagrees, is broken or missing though asked for; 2 wrong usage.
    """
    bridge.quiet()
    from . import doctor as checks

    try:
        checks.names(backend or ())
    except ValueError as error:
        raise Usage(str(error)) from error
    with _watched(SpinnerColumn(), TextColumn("{task.description}")) as progress:
        if progress is None:
            report = checks.report(backend or ())
        else:
            task = progress.add_task("")

            def watch(name: str) -> Callable[[str], None]:
                return lambda step: progress.update(task, description=f"{name}: {step}")

            report = checks.report(backend or (), watch)
    if as_json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        _show(report)
    if not report["ok"]:
        raise typer.Exit(FAILED)


_STYLES = {"ok": "green", "disagrees": "bold red", "broken": "bold red", "missing": "dim"}


def _show(report: dict[str, Any]) -> None:
    from .plan import human

    console = _stdout()
    table = _table("backend", "version", "devices", "status")
    table.columns[1].no_wrap = True
    engines = list(dict.fromkeys(engine for row in report["backends"] for engine in row["engines"]))
    for name in (*engines, "time", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    notes = []
    for row in report["backends"]:
        if row["status"] == "missing":
            notes.append((row["name"], f"not installed: {row['install']}"))
        elif row["status"] == "broken":
            notes.append((row["name"], f"broken: {row['error']}"))
        elif row["peak_note"]:
            notes.append((row["name"], f"no peak memory: {row['peak_note']}"))
        notes += [(row["name"], text) for text in _failures(row["failing"])]
        table.add_row(
            row["name"],
            row["version"] or "",
            " ".join(row["devices"]),
            Text(row["status"], _STYLES[row["status"]]),
            *(f"{n['agree']}/{n['checked']}" if (n := row["engines"].get(engine)) else "" for engine in engines),
            "" if row["seconds"] is None else f"{1000 * row['seconds']:.{1 if row['seconds'] < 0.01 else 0}f} ms",
            "" if row["peak_bytes"] is None else human(row["peak_bytes"]),
        )
    console.print(table)
    if notes:
        below = Table(box=None, pad_edge=False, show_header=False)
        for name, text in notes:
            below.add_row(name, Text(text))
        console.print()
        console.print(below)
    dtypes = " and ".join(sorted({r["dtype"] for r in report["backends"] if r["dtype"]})) or "nothing was run"
    console.print()
    console.print(f"{' and '.join(engines) or 'engines'}: metrics and kernels that agree on {report['data']} ({dtypes}).")
    console.print(f"time and peak memory: {report['call']}.")
    if report["compiler"]:
        console.print(Text(f"compiled: {report['compiler']}."))
    verdict = "All agree." if report["ok"] else "Not all is well: see above."
    console.print(Text(verdict, "green" if report["ok"] else "bold red"))


def _failures(failing: list[dict[str, str]]) -> Iterator[str]:
    """One line for each reason, since what breaks one metric often breaks them all."""
    by_reason: dict[str, list[str]] = {}
    for f in failing:
        what = f"{f['metric']}{' kernel' * (f['kind'] == 'kernel')} ({f['engine']})"
        by_reason.setdefault(f["reason"], []).append(what)
    for reason, names in by_reason.items():
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        yield f"{', '.join(names[:6])}{more}: {reason}"


# --- cdist --------------------------------------------------------------------------------------------------------------


@app.command()
def cdist(
    a: Annotated[Path, typer.Argument(metavar="A", help="Rows of features: a .npy (read in pieces), .csv or .parquet file.")],
    b: Annotated[Path | None, typer.Argument(metavar="B", help="The other rows; default: A again, symmetric.")] = None,
    metric: Annotated[str, typer.Option("--metric", "-m", help="See `pairx metrics`.")] = "euclidean",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The .npy file to write; one that exists is replaced.")] = None,
    backend: Annotated[str, typer.Option("--backend", "-b", help="The library that computes.")] = "numpy",
    max_bytes: Annotated[str | None, typer.Option(help="Memory above inputs and result: 64MB, 64MiB (default: 256MiB).")] = None,
    out_dtype: Annotated[str | None, typer.Option(help="Such as float32 (default: as the inputs).")] = None,
    engine: Annotated[str | None, typer.Option(help="array, native or compiled (default: the best).")] = None,
    zero: Annotated[str | None, typer.Option(help="At 0/0: finite or scipy (default: finite).")] = None,
    nan_policy: Annotated[str | None, typer.Option(help="propagate, omit or raise (default: propagate).")] = None,
    p: Annotated[float | None, typer.Option("-p", "--p", help="Exponent of minkowski; inf is allowed.")] = None,
    base: Annotated[float | None, typer.Option(help="Logarithms of jensenshannon (default: e).")] = None,
    normalize: Annotated[bool | None, typer.Option(help="hamming: a fraction, no count; kl_divergence: rows of sum 1.")] = None,
    w: Annotated[Path | None, typer.Option("--w", help="File with a weight for each feature.")] = None,
    v: Annotated[Path | None, typer.Option("--V", help="File with variances for seuclidean (default: of all rows).")] = None,
    vi: Annotated[Path | None, typer.Option("--VI", help="File with the inverse covariance for mahalanobis.")] = None,
    cov: Annotated[Path | None, typer.Option("--cov", help="File with the covariance for it (default: of all rows).")] = None,
    header: Annotated[bool | None, typer.Option(help="Whether .csv files begin with names (default: look).")] = None,
) -> None:
    """Distances between each row of A and each row of B.

    The result is written block by block, so it may be larger than memory. It gets its name when it is complete: Ctrl-C, an
    error or a full disk leave nothing behind, and whatever had that name before. Without -o a small result is shown.

    Exit code: 0 done; 1 failed (disk full, out of memory); 2 wrong usage; 130 interrupted.
    """
    bridge.quiet()
    import numpy as np

    from . import blockwise, files

    try:
        x, y = files.rows(a, header=header), None if b is None else files.rows(b, header=header)
        place = None if out is None else files.target(out, a, b)
        arrays = {"w": w, "V": v, "VI": vi, "cov": cov}
        job = blockwise.prepare(
            x, y, metric, backend=backend, max_bytes=max_bytes, out_dtype=out_dtype, engine=engine, zero=zero,
            nan_policy=nan_policy, p=p, base=base, normalize=normalize,
            **{name: _auxiliary(files.read(path), name) for name, path in arrays.items() if path is not None},
        )  # fmt: skip
    except MemoryError:
        raise
    except Exception as error:  # a backend that is broken may raise anything when it is imported
        raise Usage(_named(str(error) or type(error).__name__, a, b)) from error
    m, n = job.shape
    if place is None:
        if m > SMALL[0] or n > SMALL[1]:
            raise Usage(f"the result has {m} x {n} distances, too many to show: write them to a file with -o out.npy.")
        shown = np.empty(job.shape, job.dtype)
        blockwise.fill(job, shown)
        _matrix(shown)
        return
    start = time.perf_counter()
    with _bar(f"{metric} {m} x {n}", job.pairs) as advance, files.writing(place, job.shape, job.dtype) as hidden:
        _fill(job, hidden, advance)
    if sys.stderr.isatty():
        from .plan import human

        size = human(m * n * job.dtype.itemsize)
        _stderr().print(f"{out}: {m} x {n} {job.dtype}, {size}, {time.perf_counter() - start:.1f} s", soft_wrap=True)


def _fill(job: Any, path: Path, advance: Callable[[int], None]) -> None:
    # A function of its own: the map is closed when it returns, and Windows renames no file that is mapped.
    import numpy as np

    from . import blockwise

    out = np.load(path, mmap_mode="r+")
    with _patient() as check:

        def done(pairs: int) -> None:
            advance(pairs)
            check()

        blockwise.fill(job, out, done)
    out.flush()


def _auxiliary(array: Any, name: str) -> Any:
    """Weights and variances may stand in a column or in a row."""
    return array.reshape(-1) if name in ("w", "V") and 1 in array.shape else array


def _named(message: str, a: Path, b: Path | None) -> str:
    """The library's x and y are the user's files; its keywords are the user's options."""
    other = str(b or a)
    message = re.sub(r"^x(?=:| has\b| is\b)", lambda _: str(a), message)
    message = re.sub(r"^y(?=:| has\b| is\b)", lambda _: other, message)
    message = re.sub(r"(?<= and )y(?= \(| has\b)", lambda _: other, message)
    message = re.sub(r" Try [xy] != 0\.$", "", message)
    return re.sub(r"^(max_bytes|out_dtype|nan_policy)\b", lambda m: m[1].replace("_", "-"), message)


def _matrix(values: Any) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for row in values:
        table.add_row(*(f"{value:.6g}" for value in row))
    _stdout().print(table)


@contextmanager
def _bar(text: str, total: int) -> Iterator[Callable[[int], None]]:
    with _watched(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()) as progress:
        if progress is None:
            yield lambda pairs: None
        else:
            task = progress.add_task(text, total=total)
            yield lambda pairs: progress.advance(task, pairs)


@contextmanager
def _watched(*columns: ProgressColumn) -> Iterator[Progress | None]:
    """A display of progress, or None where standard error is no terminal."""
    if not sys.stderr.isatty():  # one that is disabled ends with an empty line in older releases of rich
        yield None
        return
    with Progress(*columns, console=_stderr(), transient=True) as progress:
        yield progress


# --- lists --------------------------------------------------------------------------------------------------------------


@app.command()
def warmup(
    metric: Annotated[list[str] | None, typer.Option("--metric", "-m", help="Only this one; may be repeated.")] = None,
    dtype: Annotated[list[str] | None, typer.Option("--dtype", help="float32 or float64 (default: both).")] = None,
    gradients: Annotated[bool, typer.Option(help="Gradients, too.")] = True,
) -> None:
    """Compile ahead of the first call.

    The machine code is kept for later processes, in PAIRX_CACHE_DIR or the user's cache folder. Metrics are compiled with
    their default parameters; another exponent of minkowski is another kernel.

    Exit code: 0 done; 1 the code could not be kept; 2 wrong usage, or Numba is missing.
    """
    from .metrics import KERNELS, METRICS, lookup

    dtypes = dtype or ["float32", "float64"]
    try:
        wrong = next((d for d in dtypes if d not in ("float32", "float64")), None)
        if wrong is not None:
            raise ValueError(f"dtype={wrong!r}: expected float32 or float64; half precision is computed in float32.")
        chosen = [lookup(m) for m in metric] if metric else [*METRICS.values(), *KERNELS.values()]
        from pairx_backends import compiled

        rows = [r for r in chosen if metric or compiled.possible(r)]

        done = 0
        with _bar("compiling", len(rows) * len(dtypes)) as advance:
            for row in rows:
                for each in dtypes:
                    done += sum(1 for _ in compiled.warm([row], [each], gradients))
                    advance(1)
        if not metric:
            done += sum(1 for _ in compiled.warm_losses(dtypes))
    except (ImportError, ValueError) as error:
        raise Usage(str(error)) from error
    from pairx_backends.compiled import jit

    if jit.folder() is None:
        _stderr().print("pairx: there is no folder to keep compiled code in; set PAIRX_CACHE_DIR to one of your own.", soft_wrap=True)
        raise typer.Exit(FAILED)
    of = f"{len(rows)} metrics" + ("" if metric else " and of losses")
    _stdout().print(f"{done} functions of {of} are compiled and kept in {jit.folder()}.", soft_wrap=True)


@app.command()
def backends() -> None:
    """List the array libraries that pairx knows, and the command that installs each."""
    from .backend import backends as known

    table = _table("backend", "version", "install")
    for name, facts in known().items():
        there = facts["installed"]
        version, install = (facts["version"] or "?", "") if there else ("-", facts["install"])
        table.add_row(name, version, Text(install), style="" if there else "dim")
    _stdout().print(table)


@app.command()
def metrics() -> None:
    """List the metrics: names, aliases, formulas and parameters."""
    from .formulas import plain
    from .metrics import METRICS

    table = _table("metric", "formula", "parameters", "aliases")
    console = _stdout()
    if console.width < 100:  # leave the room to the formulas
        table.columns[3].max_width = 16
    for row in sorted(METRICS.values(), key=lambda r: r.name):
        takes = [name for name in row.defaults if name != "zero"] + ["w"] * row.weights
        table.add_row(row.name, Text(plain(row.formula)), " ".join(takes), " ".join(row.aliases))
    console.print(table)


# --- the whole ----------------------------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def whole(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Pairwise distances on any array library."""
    if version:
        print(f"pairx {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@contextmanager
def _signals(names: Sequence[str], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle these signals, except those that the process was told to ignore (by nohup, say)."""
    before = {}
    for name in names:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
            try:
                before[number] = signal.signal(number, handler)
            except ValueError:  # not in the main thread, which alone may
                break
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _patient() -> Iterator[Callable[[], None]]:
    """Hear the first Ctrl-C only where the given function is called.

    An exception that comes in the middle of a lock of Python's own may leave it locked, and then a thread pool waits for ever.
    """
    heard: list[int] = []

    def note(number: int, frame: object) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    def check() -> None:
        if heard:
            raise KeyboardInterrupt

    with _signals(("SIGINT", "SIGTERM", "SIGHUP"), note):
        yield check
    check()


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: that of the process) and return its exit code; an error is one line."""

    def fail(text: str, code: int) -> int:
        print(f"pairx: {' '.join(text.split())}", file=sys.stderr)
        return code

    interrupted = "interrupted; nothing was written."
    with _signals(("SIGTERM", "SIGHUP"), _interrupt):  # as Ctrl-C
        try:
            code = int(app(args=argv, prog_name="pairx", standalone_mode=False) or 0)
            # Releases of typer differ in what they make of Ctrl-C.
            return code if code != INTERRUPTED else fail(interrupted, code)
        except (KeyboardInterrupt, typer.Abort):
            return fail(interrupted, INTERRUPTED)
        except Usage as error:
            return fail(str(error), USAGE)
        except BrokenPipeError:  # `pairx metrics | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except MemoryError as error:
            return fail(str(error) or "out of memory.", FAILED)
        except Exception as error:
            if hasattr(error, "format_message"):  # the parser's own errors, wherever a release of typer keeps them
                path = getattr(getattr(error, "ctx", None), "command_path", "pairx")
                return fail(f"{error.format_message()} Try '{path} --help'.", USAGE)
            if isinstance(error, OSError):
                return fail(error.strerror or str(error), FAILED)
            return fail(f"{type(error).__name__}: {error}", FAILED)
