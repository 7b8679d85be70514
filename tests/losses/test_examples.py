"""The examples of the docs learn something in a few epochs; and a loss wears a framework's clothes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import Adapter

import pairx

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def example(name: str) -> Any:
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.mark.backends("torch", "tensorflow", "jax")
def test_digits(backend: Adapter, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("sklearn")
    name = {"torch": "digits_torch", "tensorflow": "digits_keras", "jax": "digits_jax"}[backend.name]
    before, after = example(name).main(epochs=6)
    assert before < 0.5
    assert after > before + 0.3
    assert "recall@1" in capsys.readouterr().out


@pytest.mark.backends("torch")
def test_torch_module(backend: Adapter):
    torch = backend.lib
    x, labels = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    temperature = torch.nn.Parameter(torch.tensor(0.5))
    criterion = pairx.losses.torch_module(pairx.losses.supcon, temperature=temperature, similarity="cosine")
    assert [*criterion.parameters()] == [temperature]
    assert repr(criterion) == "Loss(supcon, similarity='cosine')"
    loss = criterion(x, labels)
    assert torch.equal(loss, pairx.losses.supcon(x, labels, temperature=0.5))
    loss.backward()
    h = 1e-3
    sides = [pairx.losses.supcon(x.double(), labels, temperature=0.5 + s * h) for s in (1, -1)]
    assert abs(float(temperature.grad) - float(sides[0] - sides[1]) / (2 * h)) < 1e-4


@pytest.mark.backends("tensorflow")
def test_keras_loss(backend: Adapter):
    tf = backend.lib
    x, labels = tf.constant(np.random.default_rng(0).normal(size=(8, 3)), tf.float32), np.arange(8) % 3
    criterion = pairx.losses.keras_loss(pairx.losses.supcon, temperature=0.5)
    assert criterion.name == "supcon"
    assert float(criterion(labels[:, None], x)) == float(pairx.losses.supcon(x, labels, temperature=0.5))
    w = np.arange(8.0, dtype="float32")
    want = float(pairx.losses.supcon(x, labels, temperature=0.5, weights=w))
    assert abs(float(criterion(labels, x, sample_weight=w)) - want) < 1e-6
