"""An embedding of handwritten digits trained with a supervised contrastive loss in JAX."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from digits import batches, data, recall_at_1, weights

import pairx

criterion = partial(pairx.losses.supcon, temperature=0.1)


def embed(params: list[jax.Array], x: jax.Array) -> jax.Array:
    return jnp.maximum(x @ params[0], 0) @ params[1]


@jax.jit
def step(params: list[jax.Array], moments: list[list[jax.Array]], t: jax.Array, x: jax.Array, labels: jax.Array):
    """One step of Adam, written out: no other package is needed."""
    loss, grads = jax.value_and_grad(lambda p: criterion(embed(p, x), labels))(params)
    first = [0.9 * m + 0.1 * g for m, g in zip(moments[0], grads, strict=True)]
    second = [0.999 * v + 0.001 * g * g for v, g in zip(moments[1], grads, strict=True)]
    moved = [p - 1e-2 * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8) for p, m, v in zip(params, first, second, strict=True)]
    return moved, [first, second], loss


def main(epochs: int = 30) -> tuple[float, float]:
    x, labels, x_test, labels_test = data()
    params = [jnp.asarray(w) for w in weights()]
    moments = [[jnp.zeros_like(p) for p in params] for _ in range(2)]
    before = recall_at_1(embed(params, jnp.asarray(x_test)), labels_test)
    for t, rows in enumerate(batches(len(x), epochs), 1):
        params, moments, loss = step(params, moments, jnp.float32(t), jnp.asarray(x[rows]), jnp.asarray(labels[rows]))
    after = recall_at_1(embed(params, jnp.asarray(x_test)), labels_test)
    print(f"JAX: recall@1 {before:.3f} before, {after:.3f} after; last loss {float(loss):.3f}")
    return before, after


if __name__ == "__main__":
    main()
