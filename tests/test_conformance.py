"""The conformance suite that pairx.testing exports: on every backend of ours, and on a third party's that is really installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from pairx.testing import Case, Library, cases

THIRD_PARTY = Path(__file__).parent / "third_party"


@pytest.mark.parametrize("case", cases(), ids=str)
def test_ours(backend, case):
    case(Library(backend.name, asarray=backend.asarray, to_numpy=backend.to_numpy))


def test_a_third_partys_backend_is_found_and_conforms(tmp_path):
    """Installed for real, by pip, into a folder of its own: only its entry point tells pairx of it."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target", str(site)]
    if importlib.util.find_spec("hatchling"):  # then no build environment has to be made
        pip.append("--no-build-isolation")
    subprocess.run([*pip, str(THIRD_PARTY)], check=True)
    script = """
import pairx, pairx.testing
assert pairx.backends()["boxed"]["installed"]
library = pairx.testing.Library("boxed", asarray=__import__("boxed").Array, to_numpy=lambda a: a.inner)
failed = []
for case in pairx.testing.cases():
    try:
        case(library)
    except Exception as error:
        failed.append(f"{case}: {error!r}")
print(len(pairx.testing.cases()), "cases")
raise SystemExit("\\n".join(failed) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], env={**_environment(), "PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) > 100


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)


def test_a_broken_promise_is_seen():
    """A case fails on a library whose arrays come back wrong."""
    case = next(c for c in cases() if str(c) == "distance-cityblock-array")
    with pytest.raises(AssertionError, match="off by"):
        case(Library("numpy", to_numpy=lambda a: a * 1.001))


def test_every_case_has_a_name_of_its_own():
    names = [str(c) for c in cases()]
    assert len(set(names)) == len(names)
    assert all(isinstance(c, Case) for c in cases())
