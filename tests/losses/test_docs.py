"""The tables of the docs are those of the code, and what is worked by hand there is what the functions answer."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from adapters import Adapter

import pairx

DOCS = Path(__file__).parents[2] / "docs"


def test_tables_are_up_to_date():
    sys.path.insert(0, str(DOCS))
    try:
        import tables
    finally:
        sys.path.remove(str(DOCS))
    for page in tables.PAGES:
        text = (DOCS / page).read_text(encoding="utf-8")
        assert tables.filled(page, text) == text, f"docs/{page} is out of date: run python docs/tables.py"
    for name in pairx.losses.LOSSES:
        assert f"`{name}`" in (DOCS / "losses.md").read_text(encoding="utf-8")


def test_the_page_of_agreement_is_that_of_a_report():
    """docs/agreement.md says what a file in the repository says."""
    bench = DOCS.parent / "asv_bench"
    spec = importlib.util.spec_from_file_location("agreement_table", bench / "agreement" / "table.py")
    assert spec
    assert spec.loader
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    pages = [table.page(json.loads(path.read_text(encoding="utf-8"))) for path in bench.glob("results/*/agreement.json")]
    assert (DOCS / "agreement.md").read_text(encoding="utf-8") in pages, "run nox -s agreement"


@pytest.mark.backends("numpy", "torch", "tensorflow", "jax", "strict", "cupy")
def test_by_hand(backend: Adapter):
    q, p = backend.asarray(np.array([[0.25, 0.75], [0.5, 0.5]])), backend.asarray(np.array([[0.5, 0.5], [1.0, 0.0]]))
    scores, truth = backend.asarray(np.array([0.25, 0.75, 0.5])), backend.asarray(np.array([0.0, 1.0, 1.0]))
    losses = pairx.losses
    for function, arrays, want in (
        (losses.cross_entropy, (q, p), 0.765068),
        (losses.kl_divergence, (q, p), 0.418494),
        (losses.jensen_shannon, (q, p), 0.124792),
        (losses.binary_cross_entropy, (scores, truth), 0.422837),
    ):
        assert abs(float(backend.to_numpy(function(*arrays))) - want) < 1e-6
        assert f"{want:.6f}" in (DOCS / "losses.md").read_text(encoding="utf-8")
