"""``--backend NAME``, and the fixtures that run one test on every backend and dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import adapters
import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        default=[],
        help="array libraries to test: repeat, or separate by commas; default: every one installed. One asked for by name must be there.",
    )
    parser.addoption(
        "--wide",
        action="store_true",
        help="where each call is compiled anew, too: every variant and every edge of each loss (half an hour more)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "backends(*names): run on these backends only")
    config.addinivalue_line("markers", "autodiff: needs a library with gradients")
    config.addinivalue_line("markers", "jit: needs a library that compiles functions")
    config.addinivalue_line("markers", "layouts: needs a library whose arrays differ in form")
    config.addinivalue_line("markers", "dtypes(*names): run in these dtypes only")
    config.addinivalue_line("markers", "brief(dtype): where each call is compiled anew, run in that dtype only")
    config.addinivalue_line("markers", "brief_cases(*ends): where each call is compiled anew, only ids that end so, unless --wide")
    config.addinivalue_line("markers", "brief_rows(*names): where each call is compiled anew, run for these rows only")
    asked = [adapters.ALIASES.get(n.strip(), n.strip()) for text in config.getoption("--backend") for n in text.split(",") if n.strip()]
    for name in asked:
        if name not in adapters.BACKENDS:
            raise pytest.UsageError(f"--backend {name}: unknown; known: {', '.join(adapters.BACKENDS)}")
        if not adapters.installed(name):
            raise pytest.UsageError(f"--backend {name}: {adapters.BACKENDS[name][0]} is not installed")
    config.stash[ASKED] = asked


ASKED = pytest.StashKey[list[str]]()


def selected(config: pytest.Config) -> list[str]:
    """The backends of this run, with those that are missing when none was asked for by name."""
    return config.stash[ASKED] or list(adapters.BACKENDS)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A folder of tests that is named after a backend belongs to that backend."""
    if collection_path.is_dir() and collection_path.name in adapters.BACKENDS and collection_path.parent.name == "backends":
        name = collection_path.name
        return True if name not in selected(config) or not adapters.installed(name) else None
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise ``backend``, and ``dtype`` with it (the dtypes are those of the backend)."""
    if "backend" not in metafunc.fixturenames:
        return
    names = selected(metafunc.config)
    if mark := metafunc.definition.get_closest_marker("backends"):
        names = [n for n in names if n in mark.args]
    if metafunc.definition.get_closest_marker("autodiff"):
        names = [n for n in names if n in adapters.AUTODIFF]
    if metafunc.definition.get_closest_marker("jit"):
        names = [n for n in names if n in adapters.JIT]
    if metafunc.definition.get_closest_marker("layouts"):
        names = [n for n in names if n in adapters.LAYOUTS]
    with_dtype = "dtype" in metafunc.fixturenames
    only = metafunc.definition.get_closest_marker("dtypes")
    brief = metafunc.definition.get_closest_marker("brief")
    values: list[Any] = []
    for name in names:
        dtypes: tuple[str, ...] = adapters.BACKENDS[name][1] if with_dtype else ("",)
        if only and with_dtype:
            dtypes = tuple(d for d in dtypes if d in only.args)
        if brief and with_dtype and name in adapters.COMPILES:
            dtypes = tuple(d for d in dtypes if d in brief.args)
        marks = []
        if not adapters.installed(name):
            marks, dtypes = [pytest.mark.skip(reason=f"{adapters.BACKENDS[name][0]} is not installed")], dtypes[:1]
        for dtype in dtypes:
            value = (name, dtype) if with_dtype else name
            values.append(pytest.param(*(value if with_dtype else (value,)), marks=marks, id="-".join(filter(None, (name, dtype)))))
    if not values:  # nothing to run: dropped below, instead of hundreds of reports that a test was skipped
        values = [pytest.param(*(("", "") if with_dtype else ("",)), id="none")]
    metafunc.parametrize(("backend", "dtype") if with_dtype else ("backend",), values, indirect=["backend"], scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the tests that are not for the backends of this run."""
    seen: set[Any] = set()
    foreign = [item for item in items if not _wanted(item, seen) or not (config.getoption("--wide") or _brief(item))]
    if foreign:
        config.hook.pytest_deselected(items=foreign)
        dropped = set(foreign)
        items[:] = [item for item in items if item not in dropped]


def _brief(item: pytest.Item) -> bool:
    cases = item.get_closest_marker("brief_cases")
    name = item.callspec.params.get("backend") if hasattr(item, "callspec") else None
    if not cases or name not in ("jax", "tensorflow"):
        return True
    return item.callspec.id.endswith(cases.args) and item.callspec.params.get("dtype", "float32") == "float32"


def _wanted(item: pytest.Item, seen: set[Any]) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    name = params.get("backend")
    if name in adapters.BACKENDS and not adapters.installed(name):  # one report for each test says it
        key = (name, item.path, getattr(item, "originalname", item.name))
        if key in seen:
            return False
        seen.add(key)
    rows = item.get_closest_marker("brief_rows")
    if rows and name in adapters.COMPILES and params["row"].name not in rows.args:
        return False
    return name != ""


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> adapters.Adapter:
    """The adapter of one array library."""
    if why := adapters.no_gpu(request.param):
        pytest.skip(why)
    return adapters.adapter(request.param)
