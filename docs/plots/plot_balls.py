"""
What a metric calls near
========================

All points of a plane, coloured by their distance from one point; the white lines join points that are equally far.
"""

import matplotlib.pyplot as plt
import numpy as np

import pairx

centre = np.array([[1.0, 0.6]])
side = np.linspace(0.01, 2, 201)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)

chosen = [
    ("euclidean", {}),
    ("cityblock", {}),
    ("chebyshev", {}),
    ("minkowski", {"p": 3}),
    ("minkowski", {"p": 0.5}),
    ("mahalanobis", {"VI": np.array([[2.0, -1.2], [-1.2, 2.0]])}),
    ("canberra", {}),
    ("braycurtis", {}),
    ("cosine", {}),
]
figure, axes = plt.subplots(3, 3, figsize=(7.2, 7.2), sharex=True, sharey=True)
for ax, (name, given) in zip(axes.flat, chosen, strict=True):
    d = pairx.cdist(plane, centre, name, **given).reshape(len(side), len(side))
    ax.pcolormesh(side, side, d, cmap="YlGnBu_r", shading="nearest", rasterized=True)
    ax.contour(side, side, d, levels=6, colors="white", linewidths=1)
    ax.plot(*centre[0], "o", color="#d9730d", markersize=5)
    ax.set(title=" ".join([name, *(f"{k}={v}" for k, v in given.items() if k == "p")]), aspect="equal", xticks=[0, 1, 2], yticks=[0, 1, 2])
plt.show()

# %%
# Cosine looks at directions only, canberra and braycurtis at differences in proportion to the values, and p below 1 is no metric: its
# balls are not convex.
