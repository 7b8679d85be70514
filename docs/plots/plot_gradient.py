"""
The gradient near distance 0
============================

Two rows come nearer and nearer. The gradient of their Euclidean distance has length 1, however near they are; at 0 it is any
vector up to length 1, and 0 is the useful one. Here are the formula as people write it, the formula with an epsilon under the root, and
pairx, all in PyTorch and float32.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pairx

apart = np.concatenate([[0.0], np.logspace(-30, 0, 121)])
direction = torch.tensor([0.6, 0.8, 0.0])


def formula(x, y):
    return ((x - y) ** 2).sum().sqrt()


def with_epsilon(x, y):
    return (((x - y) ** 2).sum() + 1e-12).sqrt()


def slope(distance, h):
    x = (direction * h).requires_grad_()
    distance(x, torch.zeros(3)).backward()
    return float(x.grad.norm()) if bool(x.grad.isfinite().all()) else np.nan


figure, ax = plt.subplots()
for name, distance, style in (
    ("the formula", formula, "-"),
    ("with 1e-12 under the root", with_epsilon, "-"),
    ("pairx.paired", pairx.paired, "--"),
):
    found = np.array([slope(distance, float(h)) for h in apart])
    (line,) = ax.plot(apart[1:], found[1:], style, label=name)
    bad = apart[1:][~np.isfinite(found[1:])]
    if bad.size:
        ax.plot(bad[::4], np.full(bad[::4].size, -0.12), "x", color=line.get_color(), markersize=5, label=f"{name}: NaN or inf")
    print(f"{name}: {found[0]} at distance 0")
ax.set(xscale="log", xlabel="distance of the two rows", ylabel="length of the gradient", ylim=(-0.25, 1.25))
ax.legend(loc="center left", bbox_to_anchor=(0.0, 0.4))
plt.show()

# %%
# The squares of differences below 1e-23 are 0 in float32, so the formula divides by 0 long before the rows are equal. With an epsilon the
# gradient is finite, and fades where it should not. Where squares underflow, pairx computes them again, divided by the largest
# difference.
