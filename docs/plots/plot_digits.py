"""
Distances between handwritten digits
====================================

Sixty images of each digit, sorted by what they show. Blocks on the diagonal are distances within one digit;
"nearest is right" is how often the nearest other image shows the same one.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import pairx

images, digits = load_digits(return_X_y=True)
rows = np.concatenate([np.flatnonzero(digits == k)[:60] for k in range(10)])
x, labels = images[rows].astype(np.float32), digits[rows]

figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.9))
for ax, name in zip(axes, ("euclidean", "cosine", "jensenshannon"), strict=True):
    d = pairx.cdist(x, metric=name)
    ax.imshow(d, cmap="YlGnBu_r", interpolation="nearest")
    nearest = np.where(np.eye(len(d), dtype=bool), np.inf, d).argmin(axis=1)
    right = np.mean(labels[nearest] == labels)
    ax.set(title=f"{name}\nnearest is right: {right:.1%}", xticks=range(30, 600, 60), yticks=range(30, 600, 60))
    ax.set_xticklabels(range(10))
    ax.set_yticklabels(range(10))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
plt.show()
