"""
Digits that a matrix product loses
==================================

Euclidean distances of float32 data that lies away from the origin. The error is against float64, relative to the largest distance.
"""

import matplotlib.pyplot as plt
import numpy as np

import pairx

rng = np.random.default_rng(0)
shifts = np.logspace(0, 5, 16)


def by_product(x, y):
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
    return np.sqrt(np.maximum(squares, 0))


errors = {"|x|² + |y|² - 2 x·y": [], "pairx.cdist": []}
for shift in shifts:
    x, y = (rng.normal(size=(2, 200, 32)) + shift).astype(np.float32)
    exact = pairx.cdist(x.astype(np.float64), y.astype(np.float64), engine="array")
    for name, call in zip(errors, (by_product, pairx.cdist), strict=True):
        errors[name].append(abs(call(x, y) - exact).max() / exact.max())

figure, ax = plt.subplots()
for name, found in errors.items():
    ax.plot(shifts, found, "o-", markersize=4, label=name)
ax.axhline(np.finfo(np.float32).eps, color="#9aa5b1", linewidth=1)
ax.text(shifts[0], np.finfo(np.float32).eps * 0.8, "eps of float32", color="#7b8794", va="top")
ax.set(xscale="log", yscale="log", xlabel="how far the data is from the origin", ylabel="largest error", ylim=(1e-8, 10))
ax.legend()
plt.show()

# %%
# pairx takes the matrix product, too, where it is faster; what cancellation spoilt is found and computed again by differences.
