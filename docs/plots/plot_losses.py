"""
Shapes of losses
================

What one pair, one triplet and one anchor cost. Each curve is a call of the loss itself.
"""

import matplotlib.pyplot as plt
import numpy as np

import pairx

losses = pairx.losses
d = np.linspace(0, 2, 201)
zero, apart = np.zeros((201, 1)), d[:, None]  # row i of the one is d[i] away from row i of the other

figure, axes = plt.subplots(1, 3, figsize=(7.2, 3.0))

for name, given in (("margin 1", {}), ('hinge_on="squared"', {"hinge_on": "squared"}), ("squared=False", {"squared": False})):
    far = losses.contrastive(zero, y=apart, same=np.zeros(201, bool), reduction="none", **given)
    axes[0].plot(d, far, label=name)
near = losses.contrastive(zero, y=apart, same=np.ones(201, bool), reduction="none")
axes[0].plot(d, near, "--", color="#9aa5b1", label="same label")
axes[0].set(title="contrastive", xlabel="distance of the pair", ylim=(0, 2.2))

for name, given in (("hinge", {}), ("squared", {"squared": True}), ("soft", {"soft": True})):
    cost = losses.triplet(zero, np.full((201, 1), 0.8), apart, margin=0.4, reduction="none", **given)
    axes[1].plot(d, cost, label=name)
axes[1].axvline(0.8, color="#9aa5b1", linewidth=1)
axes[1].set(title="triplet, margin 0.4", xlabel="distance of the negative\n(the positive is at 0.8)", ylim=(0, 1.5))

# An anchor with its positive at some angle, and 31 negatives at right angles.
angles = np.linspace(0, np.pi, 61)
negatives = np.eye(33)[2:]
for t in (0.05, 0.2, 1.0):
    cost = [
        float(losses.info_nce(np.eye(33)[:1], np.cos(a) * np.eye(33)[:1] + np.sin(a) * np.eye(33)[1:2], negatives=negatives, temperature=t))
        for a in angles
    ]
    axes[2].plot(np.degrees(angles), cost, label=f"t = {t}")
axes[2].set(title="info_nce", xlabel="angle of the positive", ylim=(0, 10), xticks=[0, 90, 180])
for ax in axes:
    ax.legend(fontsize=8)
plt.show()

# %%
# A low temperature is all or nothing: as long as the positive is nearer than the negatives it costs nothing, and then it costs in
# proportion to 1/t. A high one keeps pulling at pairs that are already right.
