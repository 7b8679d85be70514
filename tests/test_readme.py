"""README and docs tell the truth: their code runs, their names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pairx
from pairx.metrics import KERNELS, METRICS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_code_runs_in_a_new_process(code: str):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_first_example_is_right():
    space: dict = {}
    exec(BLOCKS[0], space)
    assert space["d"].shape == (1000, 1000)
    assert (space["s"] == space["s"].T).all()
    assert not space["s"].diagonal().any()
    assert space["f"].shape == (50, 50)


def test_what_it_counts():
    assert f"{len(METRICS)} metrics" in README


def test_ci_runs_readmes_second_command():
    second = [line for line in README.splitlines() if line.startswith("python3 -m venv")][1]
    assert second in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_boolean_metrics_are_listed_in_the_conventions():
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    listed = re.search(r"boolean metrics \(([^)]*)\)", text)[1].split(", ")
    assert listed == sorted(n for n, row in METRICS.items() if row.domain == "boolean")


@pytest.mark.parametrize("name", pairx.__all__)
def test_public_names_are_there(name: str):
    assert getattr(pairx, name) is not None


def test_every_row_tells_its_formula_and_source():
    for row in (*METRICS.values(), *KERNELS.values()):
        assert row.formula.strip(), row.name
        assert row.source.strip(), row.name


def test_import_brings_no_array_library():
    libraries = {"numpy", "torch", "tensorflow", "jax", "dask", "cupy", "array_api_compat", "array_api_strict"}
    code = f"import sys, pairx; print(sorted({libraries} & {{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_docstring_examples():
    import doctest
    from importlib import import_module

    for module in ("plan", "backend", "distances", "explaining", "norms", "products"):
        found = doctest.testmod(import_module(f"pairx.{module}"))
        assert found.failed == 0, module
        assert found.attempted > 0, module
