"""An embedding of handwritten digits trained with a supervised contrastive loss in Keras, on any of its backends."""

from __future__ import annotations

import keras
from digits import SIZES, data, recall_at_1, weights

import pairx


def main(epochs: int = 30) -> tuple[float, float]:
    x, labels, x_test, labels_test = data()
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((SIZES[0],)),
            keras.layers.Dense(SIZES[1], activation="relu", use_bias=False),
            keras.layers.Dense(SIZES[2], use_bias=False),
        ]
    )
    model.set_weights(weights())
    model.compile(keras.optimizers.Adam(1e-2), loss=pairx.losses.keras_loss(pairx.losses.supcon, temperature=0.1))

    before = recall_at_1(model.predict(x_test, verbose=0), labels_test)
    history = model.fit(x, labels, batch_size=200, epochs=epochs, verbose=0)
    after = recall_at_1(model.predict(x_test, verbose=0), labels_test)
    loss = history.history["loss"][-1]
    print(f"Keras on {keras.backend.backend()}: recall@1 {before:.3f} before, {after:.3f} after; last loss {loss:.3f}")
    return before, after


if __name__ == "__main__":
    main()
