"""
An embedding, before and after
==============================

A net with one hidden layer puts images of digits into a plane; a triplet loss over the labels of each batch teaches it. The images shown
were not trained on.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

import pairx

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
x, y = torch.tensor(images[order] / 16, dtype=torch.float32), torch.tensor(labels[order])
x, y, x_test, y_test = x[:1200], y[:1200], x[1200:], y[1200:]

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 2))
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
before = net(x_test).detach()
for _ in range(60):
    for rows in torch.randperm(1200).split(200):
        optimizer.zero_grad()
        loss = pairx.losses.triplet_batch_all(net(x[rows]), y[rows], margin=1.0)
        loss.backward()
        optimizer.step()
after = net(x_test).detach()


def recall(points):
    """How often a row's nearest other row shows the same digit."""
    d = pairx.cdist(points)
    d.fill_diagonal_(torch.inf)
    return float((y_test[d.argmin(dim=1)] == y_test).float().mean())


figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.8))
for ax, points, name in zip(axes, (before, after), ("before", "after"), strict=True):
    ax.scatter(*points.T, c=y_test, cmap="tab10", s=9, linewidths=0)
    for k in range(10):
        centre = points[y_test == k].median(dim=0).values
        behind = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1}
        ax.annotate(str(k), centre.tolist(), ha="center", va="center", weight="bold", bbox=behind)
    ax.set(title=f"{name}: the nearest shows the same digit in {recall(points):.0%}", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
plt.show()
