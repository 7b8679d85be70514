"""Each backend's memory probe sees a known allocation: a real one on the CPU; for a GPU that of an allocator that stands in for it."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from adapters import Adapter, installed

from pairx import bridge
from pairx.backend import by_name

SIDE, WIDTH = 480, 64
KNOWN = 4 * SIDE * SIDE * WIDTH
"""59 MB: one broadcast."""
HELD = 10_000_000


def probe(name: str) -> Any:
    return import_module(f"pairx_backends.{ {'array_api_strict': 'strict'}.get(name, name)}.measure")


def test_a_broadcast(backend: Adapter):
    """Within 2 %."""
    pytest.importorskip("memray", reason="memray measures the peak on the CPU")
    library = by_name(backend.name)  # not the adapter's arrays: those of Dask have small chunks
    x, y = (bridge.bring(library, np.ones(shape, np.float32)) for shape in ((SIDE, 1, WIDTH), (1, SIDE, WIDTH)))
    call = lambda: bridge.wait((x - y).sum() if backend.name == "dask" else x - y)  # noqa: E731  (Dask copies a result of one chunk)
    found = probe(backend.name).peak_bytes(call)
    assert found == pytest.approx(KNOWN, rel=0.02)


class Allocator:
    """A device's: what is held, and the most so far."""

    def __init__(self, rounded: int = 1) -> None:
        self.held = self.peak = HELD
        self.rounded = rounded

    def take(self, count: int) -> int:
        count = -(-count // self.rounded) * self.rounded
        self.held += count
        self.peak = max(self.peak, self.held)
        return count

    def give(self, count: int) -> None:
        self.held -= count

    def reset(self, *_: Any) -> None:
        self.peak = self.held

    def call(self) -> None:
        """A result of 1 MB and scratch of 59, both given back."""
        result, scratch = self.take(1_000_000), self.take(KNOWN)
        self.give(scratch)
        self.give(result)


@pytest.fixture(params=["fresh", "after a larger call"])
def allocator(request: pytest.FixtureRequest) -> Allocator:
    """Also one whose peak is far above what the call takes: it must not be told again."""
    found = Allocator(256)
    if request.param != "fresh":
        found.give(found.take(10 * KNOWN))
    return found


def expect(found: Any) -> None:
    assert found == pytest.approx(KNOWN + 1_000_000, abs=1024)


def test_torch_gpu(allocator: Allocator, monkeypatch: pytest.MonkeyPatch):
    torch = pytest.importorskip("torch")
    for name, function in {
        "device_count": lambda: 1, "synchronize": lambda i: None, "reset_peak_memory_stats": allocator.reset,
        "memory_allocated": lambda i: allocator.held, "max_memory_allocated": lambda i: allocator.peak,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, function)
    expect(probe("torch").peak_bytes(allocator.call))
    idle = probe("torch").peak_bytes(lambda: np.ones(KNOWN, np.uint8))
    assert idle is None or idle == pytest.approx(KNOWN, rel=0.02)  # nothing on the GPU: the CPU's


def test_tensorflow_gpu(allocator: Allocator, monkeypatch: pytest.MonkeyPatch):
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(tf.config.experimental, "reset_memory_stats", allocator.reset)
    told = lambda name: {"current": allocator.held, "peak": allocator.peak}  # noqa: E731
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", told)
    expect(probe("tensorflow").peak_bytes(allocator.call))


def test_jax_gpu(allocator: Allocator, monkeypatch: pytest.MonkeyPatch):
    """Its peak cannot be reset."""
    jax = pytest.importorskip("jax")
    module = probe("jax")

    class Held:
        def __init__(self, count: int) -> None:
            self.count = allocator.take(count)

        def block_until_ready(self) -> Held:
            return self

        def __del__(self) -> None:
            allocator.give(self.count)

    stats = lambda: {"bytes_in_use": allocator.held, "peak_bytes_in_use": allocator.peak}  # noqa: E731
    device = SimpleNamespace(platform="gpu", memory_stats=stats)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    monkeypatch.setattr(jax, "default_device", lambda d: nullcontext())
    monkeypatch.setattr(module, "jnp", SimpleNamespace(zeros=lambda n, dtype: Held(n), uint8=None))
    expect(module.peak_bytes(allocator.call))
    assert allocator.held == HELD, "what was held to reach the peak is given back"


def test_cupy_gpu(allocator: Allocator, monkeypatch: pytest.MonkeyPatch):
    """Its memory pool tells a hook of each block that it hands out and takes back."""
    if installed("cupy"):
        pytest.skip("CuPy is here: its own hook is tested where there is a GPU")
    hooks: list[Any] = []

    class MemoryHook:
        def __enter__(self) -> Any:
            hooks.append(self)
            return self

        def __exit__(self, *_: Any) -> None:
            hooks.remove(self)

    library = ModuleType("cupy")
    library.cuda = SimpleNamespace(MemoryHook=MemoryHook)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", library)
    # The folder's own record needs a real CuPy: only its probe is loaded here.
    monkeypatch.setitem(sys.modules, "pairx_backends.cupy", package := ModuleType("pairx_backends.cupy"))
    package.__path__ = [str(next(p for p in map(str, import_module("pairx_backends").__path__))) + "/cupy"]
    monkeypatch.delitem(sys.modules, "pairx_backends.cupy.measure", raising=False)
    module = import_module("pairx_backends.cupy.measure")

    def told(hook_name: str, count: int) -> None:
        for hook in hooks:
            getattr(hook, hook_name)(device_id=0, size=count - 100, mem_size=count, mem_ptr=1, pmem_id=1)

    take, give = allocator.take, allocator.give
    monkeypatch.setattr(allocator, "take", lambda n: (told("malloc_postprocess", take(n)), -(-n // 256) * 256)[1])
    monkeypatch.setattr(allocator, "give", lambda n: (give(n), told("free_postprocess", n)))
    expect(module.peak_bytes(allocator.call))
    assert not hooks
    monkeypatch.delitem(sys.modules, "pairx_backends.cupy.measure", raising=False)
