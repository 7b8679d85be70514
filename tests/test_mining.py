"""Every miner on every library against plain loops. Walks the table; references stand in mining_cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adapters import Adapter
from mining_cases import REFERENCES, VARIANTS, shares

import pairx
from pairx.mining import MINERS

EACH = [pytest.param(n, v, id=f"{n}-{i}") for n in sorted(MINERS) for i, v in enumerate(VARIANTS.get(n, [{}]))]
EMBEDDED = [n for n in sorted(MINERS) if MINERS[n].embeddings]
LISTS = [n for n in sorted(MINERS) if MINERS[n].answers != "mask"]
pytestmark = [
    pytest.mark.backends("numpy", "torch", "tensorflow", "jax", "array_api_strict", "cupy"),
    pytest.mark.brief_cases(),  # where each call is compiled anew: in `nox -s losses`
]


def _arrays(kind: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    given = {"x": rng.normal(size=(13, 4)), "labels": np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 4, 3, 3, 2])}
    if kind == "several labels":
        given["labels"] = (rng.uniform(size=(13, 4)) < 0.3).astype(int)
    if kind == "other candidates":
        given |= {"y": rng.normal(size=(9, 4)), "y_labels": np.array([0, 1, 2, 2, 1, 0, 5, 3, 3])}
    return given


KINDS = ("labels", "several labels", "other candidates")


def mine(backend: Adapter, name: str, given: dict[str, np.ndarray], **more: Any) -> Any:
    own = {k: backend.asarray(v, "float64" if k in "xy" else None) for k, v in given.items() if MINERS[name].embeddings or "labels" in k}
    return MINERS[name].function(**own, **more)


def expected(name: str, given: dict[str, np.ndarray], variant: dict[str, Any]) -> Any:
    rest = {k: v for k, v in given.items() if MINERS[name].embeddings or "labels" in k}
    return REFERENCES[name](**rest, **{k: v for k, v in variant.items() if k != "rng"})


def rows(backend: Adapter, lists: Any) -> list[tuple[int, ...]]:
    """The entries that are some."""
    columns = [backend.to_numpy(v) for v in lists]
    assert all(c.dtype.kind == "i" and c.ndim == 1 for c in columns)
    return [tuple(int(v) for v in row) for row in zip(*columns, strict=True) if -1 not in row]


def test_the_table_is_whole():
    assert set(MINERS) == set(REFERENCES)
    for row in MINERS.values():
        assert "Examples" in str(row.function.__doc__), row.name
        assert row.source, row.name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name, variant", EACH)
def test_values(backend: Adapter, name: str, variant: dict[str, Any], kind: str):
    given = _arrays(kind)
    got, want = mine(backend, name, given, **variant), expected(name, given, variant)
    if MINERS[name].answers == "mask":
        mask = backend.to_numpy(got)
        assert mask.dtype == bool
        assert {(int(i), int(j)) for i, j in zip(*np.nonzero(mask), strict=True)} == want
    elif MINERS[name].answers == "two pairs":
        for one, other in zip(got, want, strict=True):
            assert sorted(rows(backend, one)) == sorted(other)
    elif MINERS[name].random:
        found = rows(backend, got)
        assert sorted(r[:2] for r in found) == sorted(want)
        assert all(want[a, p].get(n, 0) > 0 for a, p, n in found)
    else:
        assert sorted(rows(backend, got)) == sorted(want)


@pytest.mark.parametrize("name", sorted(MINERS))
def test_any_budget(backend: Adapter, name: str):
    """Blocks of a few anchors find the same, in the same order."""
    given, variant = _arrays("labels"), VARIANTS.get(name, [{}])[0]
    whole, small = mine(backend, name, given, **variant), mine(backend, name, given, **variant, max_bytes=8192)
    for one, other in _flat(whole, small):
        np.testing.assert_array_equal(backend.to_numpy(one), backend.to_numpy(other))


def _flat(*answers: Any) -> list[tuple[Any, ...]]:
    if isinstance(answers[0], tuple):
        return [pair for parts in zip(*answers, strict=True) for pair in _flat(*parts)]
    return [answers]


@pytest.mark.parametrize("name", [n for n in LISTS if n != "batch_hard"])
def test_size_pads_and_cuts(backend: Adapter, name: str):
    """Lists of a fixed length hold each anchor's first entries, and -1."""
    given, variant = _arrays("labels"), VARIANTS.get(name, [{}])[0]
    whole, sized = mine(backend, name, given, **variant), mine(backend, name, given, **variant, size=2)
    if MINERS[name].answers != "two pairs":
        whole, sized = (whole,), (sized,)
    for one, other in zip(whole, sized, strict=True):
        assert all(backend.to_numpy(v).shape == (26,) for v in other)
        all_of = rows(backend, one)
        assert rows(backend, other) == [r for k, r in enumerate(all_of) if sum(q[0] == r[0] for q in all_of[:k]) < 2]


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.jit
def test_compiled(backend: Adapter, name: str):
    if MINERS[name].random and backend.name == "torch":
        pytest.skip("torch.compile makes no NumPy generator")
    given = _arrays("labels")
    if not MINERS[name].embeddings:
        given = {"labels": given["labels"]}
    more = dict(VARIANTS.get(name, [{}])[0]) | ({} if name == "batch_hard" else {"size": 3})
    own = {k: backend.asarray(v, "float64" if k == "x" else None) for k, v in given.items()}
    function = backend.jit(lambda *a: MINERS[name].function(**dict(zip(own, a, strict=True)), **more))
    assert function is not None
    for one, other in _flat(function(*own.values()), mine(backend, name, given, **more)):
        kept = [v for v in backend.to_numpy(one) if v >= 0] if name == "batch_hard" else backend.to_numpy(one)
        np.testing.assert_array_equal(kept, backend.to_numpy(other))


@pytest.mark.parametrize("name", [n for n in LISTS if n != "batch_hard"])
@pytest.mark.jit
def test_compiled_needs_a_size(backend: Adapter, name: str):
    if backend.name == "torch":
        pytest.skip("a graph break hides the message")
    labels = backend.asarray(np.array([0, 0, 1]))
    rest = {"x": backend.asarray(np.eye(3), "float64")} if MINERS[name].embeddings else {}
    more = VARIANTS.get(name, [{}])[0]
    with pytest.raises(TypeError, match="size"):
        backend.jit(lambda labels: MINERS[name].function(labels=labels, **rest, **more))(labels)


EDGES = {
    "no positives": np.arange(5),
    "one class": np.zeros(5, int),
    "one row": np.zeros(1, int),
    "no rows": np.zeros(0, int),
    "uint8": np.array([0, 0, 1, 1], np.uint8),
    "bool": np.array([True, True, False]),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", sorted(MINERS))
def test_edges(backend: Adapter, name: str, edge: str):
    labels = EDGES[edge]
    given = {"x": np.random.default_rng(3).normal(size=(len(labels), 4)), "labels": labels}
    variant = VARIANTS.get(name, [{}])[0]
    got, want = mine(backend, name, given, **variant), expected(name, given, variant)
    if MINERS[name].answers == "mask":
        assert backend.to_numpy(got).shape == (len(labels), len(labels))
        assert int(backend.to_numpy(got).sum()) == len(want)
    elif MINERS[name].answers == "two pairs":
        assert [len(rows(backend, v)) for v in got] == [len(w) for w in want]
    else:
        assert len(rows(backend, got)) == len(want)


# --- mined lists in losses -----------------------------------------------------------------------------------------------


def test_losses_take_what_miners_answer(backend: Adapter):
    given = _arrays("labels")
    x, labels = backend.asarray(given["x"], "float64"), backend.asarray(given["labels"])
    losses, mining = pairx.losses, pairx.mining
    same = [
        (losses.triplet(x, triplets=mining.batch_hard(x, labels)), losses.triplet_batch_hard(x, labels, margin=1.0)),
        (losses.triplet(x, triplets=mining.semi_hard(x, labels)), losses.triplet_semi_hard(x, labels)),
        (losses.triplet(x, triplets=mining.semi_hard(x, labels, size=5)), losses.triplet_semi_hard(x, labels)),
        (
            losses.triplet(x, triplets=mining.triplets(x, labels, margin=0.7), margin=0.7, mean_over="active"),
            losses.triplet_batch_all(x, labels, margin=0.7),
        ),
        (
            losses.triplet_batch_all(x, positives=mining.positive_mask(labels), negatives=mining.negative_pairs(labels)),
            losses.triplet_batch_all(x, labels),
        ),
        (
            losses.supcon(x, positives=mining.positive_pairs(labels, size=6), negatives=mining.negative_pairs(labels, size=13)),
            losses.supcon(x, labels),
        ),
    ]
    for got, want in same:
        np.testing.assert_allclose(float(backend.to_numpy(got)), float(backend.to_numpy(want)), rtol=1e-13)


def test_triplets_of_other_candidates(backend: Adapter):
    given = {k: backend.asarray(v, "float64" if k in "xy" else None) for k, v in _arrays("other candidates").items()}
    found = pairx.mining.batch_hard(**given)
    got = pairx.losses.triplet(given["x"], given["y"], triplets=found)
    want = pairx.losses.triplet_batch_hard(**given, margin=1.0)
    np.testing.assert_allclose(float(backend.to_numpy(got)), float(backend.to_numpy(want)), rtol=1e-13)


@pytest.mark.autodiff
def test_gradients_pass_through_the_loss_alone(backend: Adapter):
    """As of lists that were mined before: also where mining happens under the gradient."""
    given = _arrays("labels")
    labels = backend.asarray(given["labels"])
    told = pairx.mining.semi_hard(backend.asarray(given["x"], "float64"), labels)
    one = backend.grad(lambda x: pairx.losses.triplet(x, triplets=pairx.mining.semi_hard(x, labels)), given["x"])
    other = backend.grad(lambda x: pairx.losses.triplet(x, triplets=told), given["x"])
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one[0], other[0])
    assert np.abs(one[0]).max() > 0


# --- random --------------------------------------------------------------------------------------------------------------


def test_draws_follow_the_weights():
    """Chi-squared of 40 000 draws for each pair; a wrong exponent or cutoff fails by far."""
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(9, 5)) + 0.6, np.array([0, 0, 1, 1, 2, 2, 3, 3, 4])
    want = shares(x, labels)
    counts: dict[tuple[int, int], dict[int, int]] = {pair: dict.fromkeys(w, 0) for pair, w in want.items()}
    stacked = np.tile(x, (1, 1))
    draws = 4000
    for _ in range(draws):
        for a, p, n in zip(*pairx.mining.distance_weighted(stacked, labels, rng=rng), strict=True):
            counts[int(a), int(p)][int(n)] += 1
    for pair, share in want.items():
        assert sum(counts[pair].values()) == draws
        chi = sum((counts[pair][n] - draws * w) ** 2 / (draws * w) for n, w in share.items())
        k = max(1, len(share) - 1)
        assert chi < k + 6 * np.sqrt(2 * k) + 12, (pair, chi)


def test_a_seed_is_the_same_everywhere(backend: Adapter):
    given = _arrays("labels")
    want = pairx.mining.distance_weighted(given["x"], given["labels"], rng=7)
    got = mine(backend, "distance_weighted", given, rng=7)
    again = mine(backend, "distance_weighted", given, rng=np.random.default_rng(7))
    assert rows(backend, got) == rows(backend, again) == [tuple(int(v) for v in r) for r in zip(*want, strict=True)]


def _generator(name: str, seed: int) -> Any:
    if name == "torch":
        import torch

        return torch.Generator().manual_seed(seed)
    if name == "tensorflow":
        import tensorflow as tf

        return tf.random.Generator.from_seed(seed)
    import jax

    return jax.random.key(seed)


@pytest.mark.autodiff
def test_generators_of_the_library(backend: Adapter):
    """The same state, the same triplets; another state, others."""
    given = _arrays("labels")
    found = [rows(backend, mine(backend, "distance_weighted", given, rng=_generator(backend.name, s))) for s in (1, 1, 2, 3)]
    assert found[0] == found[1]
    assert found[0] != found[2] or found[0] != found[3]
    assert {r[:2] for r in found[0]} == set(shares(**given))


def test_what_is_no_generator(backend: Adapter):
    given = _arrays("labels")
    for rng in (None, "seed", True):
        with pytest.raises(TypeError, match="rng is a"):
            mine(backend, "distance_weighted", given, rng=rng)
    with pytest.raises(TypeError, match="rng"):
        pairx.mining.distance_weighted(given["x"], given["labels"])


def test_errors():
    x, labels = np.eye(3), [0, 0, 1]
    with pytest.raises(ValueError, match="size=0"):
        pairx.mining.semi_hard(x, labels, size=0)
    with pytest.raises(ValueError, match="kind="):
        pairx.mining.triplets(x, labels, kind="hardest")
    with pytest.raises(ValueError, match="angle=90"):
        pairx.mining.angular(x, labels, angle=90)
    with pytest.raises(TypeError, match="labels"):
        pairx.mining.batch_hard(x)
    with pytest.raises(TypeError, match="triplets: expected three"):
        pairx.losses.triplet(x, triplets=([0], [1]))
    with pytest.raises(IndexError, match="negatives reach"):
        pairx.losses.triplet(x, triplets=([0], [1], [3]))
    with pytest.raises(TypeError, match="expected integers"):
        pairx.losses.triplet(x, triplets=([0.5], [1], [2]))
    with pytest.raises(TypeError, match="pass both"):
        pairx.losses.triplet(x, x)
    with pytest.raises(ValueError, match="must be the same"):
        pairx.losses.triplet(x, x, x[:1])
    with pytest.raises(ValueError, match="squared=True"):
        pairx.losses.triplet_batch_all(x, labels, squared=True, similarity="cosine")
    with pytest.raises(ValueError, match="max_positives=1"):
        pairx.losses.triplet_batch_all(x, [0, 0, 0], max_positives=1)
