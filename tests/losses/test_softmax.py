"""What the walk over the table does not try: other forms of a call, learnt hyper-parameters, the memory, errors, scratch."""

from __future__ import annotations

from collections import deque
from importlib import import_module
from typing import Any

import loss_cases  # noqa: F401  (first: it brings the references in)
import numpy as np
import pytest
import reference_softmax as ref
from adapters import Adapter

from pairx import losses

LIBRARIES = ("numpy", "torch", "tensorflow", "jax", "strict", "cupy")
pytestmark = pytest.mark.backends(*LIBRARIES)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 4, 3, 3])


def rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def near(backend: Adapter, got: Any, want: Any) -> None:
    np.testing.assert_allclose(backend.to_numpy(got), want, rtol=1e-12, atol=1e-13)


def slopes(function: Any, arrays: tuple[np.ndarray, ...], h: float = 1e-5) -> list[np.ndarray]:
    found = []
    for k, a in enumerate(arrays):
        g = np.zeros_like(a)
        for at in np.ndindex(a.shape):
            sides = []
            for sign in (1, -1):
                moved = [v.copy() for v in arrays]
                moved[k][at] += sign * h
                sides.append(function(*moved))
            g[at] = (sides[0] - sides[1]) / (2 * h)
        found.append(g)
    return found


X, Y, QUEUE, OWN = rows(1, 9, 4), rows(2, 9, 4), rows(3, 5, 4), rows(4, 9, 3, 4)
FORMS = {
    "NT-Xent of two views": (lambda x, y, **k: losses.nt_xent(x, y=y, **k), ref.nt_xent_views, (X, Y), {}),
    "InfoNCE and a queue": (
        lambda x, y, q, **k: losses.info_nce(x, y, negatives=q, **k),
        lambda x, y, q: ref.info_nce(x, y, negatives=q),
        (X, Y, QUEUE),
        {},
    ),
    "InfoNCE, own negatives alone": (
        lambda x, y, q, **k: losses.info_nce(x, y, negatives=q, in_batch=False, **k),
        lambda x, y, q, negatives_mask: ref.info_nce(x, y, negatives=q, negatives_mask=negatives_mask, in_batch=False),
        (X, Y, OWN),
        {"negatives_mask": rows(5, 9, 3) > -0.5},
    ),
    "InfoNCE by a distance, half a queue": (
        lambda x, y, q, **k: losses.info_nce(x, y, negatives=q, metric="euclidean", symmetric=True, **k),
        lambda x, y, q, negatives_mask: ref.info_nce(x, y, negatives=q, negatives_mask=negatives_mask, metric="euclidean", symmetric=True),
        (X, Y, QUEUE),
        {"negatives_mask": np.array([True, False, True, False, False])},
    ),
    "debiased, more positives": (
        lambda x, y, p, **k: losses.debiased_info_nce(x, y, positives=p, hardness=1.0, **k),
        lambda x, y, p: ref.debiased_info_nce(x, y, positives=p, hardness=1.0),
        (X, Y, OWN),
        {},
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(backend: Adapter, name: str):
    call, reference, arrays, given = FORMS[name]
    values, active = reference(*arrays, **given)
    own = [backend.asarray(v, "float64") for v in arrays]
    rest = {k: backend.asarray(v) for k, v in given.items()}
    for more in ({}, {"max_bytes": 4096}):
        near(backend, call(*own, reduction="none", **rest, **more), values)
        near(backend, call(*own, **rest, **more), values[active].mean())


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.autodiff
def test_gradients_of_forms(backend: Adapter, name: str):
    call, reference, arrays, given = FORMS[name]
    want = slopes(lambda *a: reference(*a, **given)[0].mean(), arrays)
    rest = {k: backend.asarray(v) for k, v in given.items()}
    for more in ({}, {"max_bytes": 4096}):
        got = backend.grad(lambda *a, more=more: call(*a, **rest, **more), *arrays)
        assert got is not None
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=1e-8 * max(1, np.abs(w).max()))


def test_labels_of_n_pair(backend: Adapter):
    x = rows(6, 12, 4)
    values, active, terms = ref.nt_xent(x, LABELS, 1.0, similarity="dot")
    own, labels = backend.asarray(x, "float64"), backend.asarray(LABELS)
    near(backend, losses.n_pair(own, labels=labels), values.sum() / terms.sum())
    near(backend, losses.n_pair(own, labels=labels, reduction="none"), np.where(active, values, 0))


@pytest.mark.parametrize("name", ["supcon", "nt_xent"])
def test_several_labels(backend: Adapter, name: str):
    """0 and 1 in (m, classes): who shares one is a positive. One label each gives what (m,) gives."""
    own = backend.asarray(rows(7, 12, 4), "float64")
    each = np.eye(5)[LABELS]
    function = getattr(losses, name)
    near(backend, function(own, backend.asarray(each)), backend.to_numpy(function(own, backend.asarray(LABELS))))
    mask = each @ each.T > 0
    near(backend, function(own, positives=backend.asarray(mask)), backend.to_numpy(function(own, backend.asarray(LABELS))))
    first, second = np.nonzero(mask)
    listed = (backend.asarray(first), backend.asarray(second))
    near(backend, function(own, positives=listed), backend.to_numpy(function(own, backend.asarray(LABELS))))


# --- learnt numbers -----------------------------------------------------------------------------------------------------


LEARNT = {
    "supcon": (lambda x, y, t, **k: losses.supcon(x, list(range(4)) * 3, y=y, y_labels=[0, 1, 2] * 3, temperature=t, **k), (0.3,)),
    "clip": (lambda x, y, s, **k: losses.clip(x[:9, :], y, logit_scale=s, **k), (3.0,)),
    "siglip": (lambda x, y, t, b, **k: losses.siglip(x[:9, :], y, scale=t, bias=b, **k), (2.0, -0.5)),
    "nt_xent": (lambda x, y, t, **k: losses.nt_xent(x[:9, :], y=y, temperature=t, **k), (0.4,)),
    "info_nce": (lambda x, y, t, **k: losses.info_nce(x[:9, :], y, negatives=x[:4, :], temperature=t, **k), (0.4,)),
    "debiased_info_nce": (lambda x, y, t, **k: losses.debiased_info_nce(x[:9, :], y, temperature=t, **k), (0.4,)),
    "soft_nearest_neighbors": (lambda x, y, t, **k: losses.soft_nearest_neighbors(x, LABELS.tolist(), temperature=t, **k), (2.0,)),
    "linear_cross_entropy": (lambda x, y, t, **k: losses.linear_cross_entropy(x, y, [0, 5, 8] * 4, scale=t, **k), (1.5,)),
}


@pytest.mark.parametrize("name", LEARNT)
@pytest.mark.autodiff
def test_learnt_numbers(backend: Adapter, name: str):
    """A scalar array is as good as a number, and has a gradient: central differences of our own values, which are tested by themselves."""
    call, numbers = LEARNT[name]
    x, y = rows(8, 12, 4), Y
    scalars = tuple(np.asarray(v) for v in numbers)
    want = slopes(lambda *t: float(call(x, y, *(float(v) for v in t))), scalars)
    for more in ({}, {"max_bytes": 4096}):
        got = backend.grad(lambda *a, more=more: call(*a, **more), x, y, *scalars)
        assert got is not None
        for g, w in zip(got[2:], want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-7, atol=1e-9)


# --- memory -------------------------------------------------------------------------------------------------------------


def test_memory_is_a_ring(backend: Adapter):
    """Against a deque. Batches that go round, that fill it, that are larger, and empty ones."""
    size, d = 7, 3
    memory = losses.memory_init(size, d, like=backend.asarray(np.zeros(1), "float32"))
    kept: deque[tuple[int, list[float]]] = deque(maxlen=size)
    for step, b in enumerate((3, 3, 2, 7, 16, 1, 0, 5)):
        x, labels = rows(step, b, d).astype("float32"), np.arange(b) + 100 * step
        memory = losses.memory_push(memory, backend.asarray(x, "float32"), backend.asarray(labels))
        kept.extend(zip(labels.tolist(), x.tolist(), strict=True))
        valid = backend.to_numpy(memory.valid)
        got = sorted(zip(backend.to_numpy(memory.labels)[valid].tolist(), backend.to_numpy(memory.features)[valid].tolist(), strict=True))
        assert got == sorted(kept)
        if valid.all():  # the oldest is overwritten next
            at = int(backend.to_numpy(memory.position))
            assert int(backend.to_numpy(memory.labels)[at]) == kept[0][0]
    assert backend.dtype_of(memory.features) == "float32"


@pytest.mark.jit
def test_memory_compiled(backend: Adapter):
    def step(x: Any, labels: Any) -> Any:
        memory = losses.memory_init(4, 2, like=x)
        for _ in range(3):
            memory = losses.memory_push(memory, x, labels)
        return memory.labels

    own = backend.asarray(rows(1, 3, 2), "float64"), backend.asarray(np.array([5, 6, 7]))
    function = backend.jit(step)
    assert function is not None
    assert backend.to_numpy(function(*own)).tolist() == [7, 6, 7, 5] or sorted(backend.to_numpy(function(*own)).tolist()) == [5, 6, 7, 7]
    np.testing.assert_array_equal(backend.to_numpy(function(*own)), backend.to_numpy(step(*own)))


@pytest.mark.autodiff
def test_no_gradient_enters_the_memory(backend: Adapter):
    def call(x: Any) -> Any:
        memory = losses.memory_push(losses.memory_init(5, 4, like=x), x, list(range(5)))
        return backend.sum(memory.features) + backend.sum(x)

    got = backend.grad(call, rows(1, 5, 4))
    assert got is not None
    np.testing.assert_array_equal(got[0], np.ones((5, 4)))


@pytest.mark.parametrize("name", ["supcon", "nt_xent"])
def test_places_not_filled_yet_do_not_count(backend: Adapter, name: str):
    x, y, y_labels = rows(1, 12, 4), rows(2, 10, 4), np.array([0, 1, 2, 3, 4] * 2)
    valid = np.array([True, True, False, True, False, True, False, False, True, True])
    function = getattr(losses, name)
    own, labels = backend.asarray(x, "float64"), backend.asarray(LABELS)
    given = {"y": backend.asarray(y, "float64"), "y_labels": backend.asarray(y_labels), "y_mask": backend.asarray(valid)}
    want = function(own, labels, y=backend.asarray(y[valid], "float64"), y_labels=backend.asarray(y_labels[valid]))
    near(backend, function(own, labels, **given), backend.to_numpy(want))
    empty = losses.memory_init(4, 4, like=own)
    assert float(backend.to_numpy(function(own, labels, y=empty.features, y_labels=empty.labels, y_mask=empty.valid))) == 0


# --- small temperatures, duplicates, ties ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["info_nce", "clip", "decoupled", "debiased_info_nce"])
@pytest.mark.parametrize("t", [1e-3, 100.0])
@pytest.mark.dtypes("float32", "float64")
def test_extreme_temperatures(backend: Adapter, dtype: str, name: str, t: float):
    given = ref.views(np.random.default_rng(1)).arrays
    rounded = {k: v.astype(dtype).astype(float) for k, v in given.items()}
    if name == "debiased_info_nce" and t < 0.01:  # the reference's exponentials overflow; its logarithm is the largest difference here
        s, partner, rest = ref._two_views(rounded["x"], rounded["y"])
        want = []
        for i in range(len(s)):
            top = max(s[i, k] for k in rest[i]) / t
            want.append(np.logaddexp(s[i, partner[i]] / t, top - np.log(0.9)) - s[i, partner[i]] / t)
        if min(np.abs(np.diff(sorted(s[i, k] for k in [*rest[i], partner[i]])[-3:])).min() for i in range(len(s))) < 20 * t:
            pytest.skip("the sums have more than one term")
        wanted = np.mean(want)
    else:
        wanted = getattr(ref, name)(**rounded, temperature=t)[0].mean()
    arrays = [backend.asarray(v, dtype) for v in given.values()]
    got = float(backend.to_numpy(getattr(losses, name)(*arrays, temperature=t)))
    # The similarity's rounding error is divided by t.
    assert abs(got - wanted) <= 64 * np.finfo(dtype).eps * max(1.0, abs(wanted), 1 / t)
    if backend.autodiff:
        for g in backend.grad(lambda x, y: getattr(losses, name)(x, y, temperature=t), *given.values(), dtype=dtype) or []:
            assert np.isfinite(g).all()


# --- errors -------------------------------------------------------------------------------------------------------------


BAD = {
    "a temperature of 0": (lambda x, y: losses.info_nce(x, y, temperature=0.0), ValueError, "temperature=0.0"),
    "two kinds of score": (lambda x, y: losses.info_nce(x, y, metric="euclidean", similarity="dot"), TypeError, "pass one of them"),
    "views of other sizes": (lambda x, y: losses.info_nce(x, y[:3, :]), ValueError, r"x has shape \(9, 4\) and y \(3, 4\)"),
    "no positives": (lambda x, y: losses.supcon(x), TypeError, "pass labels"),
    "labels of two kinds": (lambda x, y: losses.supcon(x, [0] * 9, y=y, y_labels=[0.0] * 9), TypeError, "both must be integers, or both"),
    "labels of another size": (lambda x, y: losses.supcon(x, [0, 1]), ValueError, r"labels has shape \(2,\): expected \(9,\)"),
    "a mask of memory without memory": (lambda x, y: losses.supcon(x, [0] * 9, y_mask=[1] * 9), TypeError, "there is no y"),
    "a mask of memory of another size": (
        lambda x, y: losses.supcon(x, [0] * 9, y=y, y_labels=[0] * 9, y_mask=[1] * 3),
        ValueError,
        r"y_mask has shape \(3,\): expected \(9,\)",
    ),
    "negatives of another width": (lambda x, y: losses.info_nce(x, y, negatives=y[:, :3]), ValueError, r"negatives has shape \(9, 3\)"),
    "a mask of nothing": (lambda x, y: losses.info_nce(x, y, negatives_mask=[True]), TypeError, "there are no negatives"),
    "both scales": (lambda x, y: losses.clip(x, y, temperature=1.0, logit_scale=1.0), TypeError, "pass one of them"),
    "a share above 1": (lambda x, y: losses.debiased_info_nce(x, y, positive_prior=1.0), ValueError, "positive_prior=1.0"),
    "no class": (lambda x, y: losses.linear_cross_entropy(x, y, [0] * 8 + [9]), ValueError, "labels: 9 is no class; expected 0 to 8"),
    "labels that are no integers": (lambda x, y: losses.linear_cross_entropy(x, y, [0.5] * 9), TypeError, "expected integers"),
    "bias of another size": (lambda x, y: losses.linear_cross_entropy(x, y, [0] * 9, x[:3, 0]), ValueError, r"bias has shape \(3,\)"),
    "a memory of nothing": (lambda x, y: losses.memory_init(0, 4, like=x), ValueError, "size=0"),
    "nobody": (lambda x, y: losses.n_pair(x), TypeError, "pass the positives, or labels"),
    "a budget below a row": (lambda x, y: losses.info_nce(x, y, max_bytes=8), ValueError, "max_bytes=8 is below one row"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors(backend: Adapter, name: str):
    call, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        call(backend.asarray(X, "float64"), backend.asarray(Y, "float64"))


# --- scratch ------------------------------------------------------------------------------------------------------------


B, D, MIB = 3072, 64, 1 << 20
HELD = {
    "info_nce": (lambda x, y: losses.info_nce(x, y), 2 * B * D),
    "supcon": (lambda x, y: losses.supcon(x, np.arange(B) // 4), B * D),
    "siglip": (lambda x, y: losses.siglip(x, y), 2 * B * D),
    "nt_xent": (lambda x, y: losses.nt_xent(x, y=y), 2 * B * D),
    "soft_nearest_neighbors": (lambda x, y: losses.soft_nearest_neighbors(x, np.arange(B) // 4), B * D),
    "linear_cross_entropy": (lambda x, y: losses.linear_cross_entropy(x, y, np.arange(B)), 2 * B * D),
}


@pytest.mark.parametrize("name", HELD)
@pytest.mark.backends("torch")
def test_scratch(backend: Adapter, name: str):
    """A matrix of B x B is 36 MiB. Above inputs and gradients a call takes its blocks of 16 MiB, and a few arrays of the inputs' size."""
    pytest.importorskip("memray", reason="memray measures the peak")
    call, numbers = HELD[name]
    x, y = rows(1, B, D).astype("float32"), rows(2, B, D).astype("float32")
    backend.grad(call, x[:64], y[:64], dtype="float32") if name in ("info_nce", "siglip", "nt_xent") else None
    peak = import_module("pairx_backends.torch.measure").peak_bytes(lambda: backend.grad(call, x, y, dtype="float32"))
    assert peak - 4 * (2 * B * D + numbers) <= 16 * MIB + 8 * 4 * B * D + MIB


@pytest.mark.backends("torch")
def test_second_derivatives(backend: Adapter):
    """Through blocks, too: the backward of a backward."""
    torch = backend.lib

    def leaf(seed: int, *shape: int) -> Any:
        return backend.asarray(rows(seed, *shape), "float64").requires_grad_()

    x, y, t = leaf(1, 5, 3), leaf(2, 5, 3), backend.asarray(np.asarray(0.5), "float64").requires_grad_()
    labels = [0, 0, 1, 1, 0]
    for function in (
        lambda x, y, t: losses.info_nce(x, y, temperature=t, max_bytes=1400),
        lambda x, y, t: losses.nt_xent(x, labels, temperature=t, max_bytes=1400),
        lambda x, y, t: losses.supcon(x, labels, y=y, y_labels=labels, temperature=t, weights=[1, 2, 3, 1, 1], max_bytes=1400),
        lambda x, y, t: losses.siglip(x, y, scale=t, max_bytes=1400, reduction="sum"),
        lambda x, y, t: losses.soft_nearest_neighbors(x, labels, temperature=t, max_bytes=1400, reduction="none"),
        lambda x, y, t: losses.linear_cross_entropy(x, y, labels, scale=t, max_bytes=1400),
    ):
        assert torch.autograd.gradcheck(function, (x, y, t))
        assert torch.autograd.gradgradcheck(function, (x, y, t))


@pytest.mark.backends("torch")
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradient_that_comes_along(backend: Adapter, reduction: str):
    """A mean's gradient is taken with its values; it is what the second run of the blocks gives, for any cotangent, twice."""
    torch = backend.lib
    x = backend.asarray(rows(1, 12, 4), "float64").requires_grad_()
    w = backend.asarray(np.linspace(0, 2, 12), "float64").requires_grad_()
    given = {"labels": backend.asarray(LABELS), "weights": w}
    values = losses.nt_xent(x, **given, reduction="none")
    whole = losses.nt_xent(x, **given, reduction=reduction)
    parts = losses.nt_xent(x, **given, reduction=reduction, max_bytes=4096)
    near(backend, parts, backend.to_numpy(whole))
    for factor in (1.0, -2.5):
        want = torch.autograd.grad(factor * whole, (x, w), retain_graph=True)
        got = torch.autograd.grad(factor * parts, (x, w), retain_graph=True)
        for g, v in zip(got, want, strict=True):
            torch.testing.assert_close(g, v, rtol=1e-11, atol=1e-12)
    fixed = losses.nt_xent(x, labels=given["labels"], weights=w.detach(), reduction=reduction, max_bytes=4096)
    torch.testing.assert_close(torch.autograd.grad(fixed, x)[0], torch.autograd.grad(whole, x)[0], rtol=1e-11, atol=1e-12)
    assert values.shape == (12,)
