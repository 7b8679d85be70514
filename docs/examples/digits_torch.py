"""An embedding of handwritten digits trained with a supervised contrastive loss in PyTorch."""

from __future__ import annotations

import torch
from digits import batches, data, recall_at_1, weights

import pairx


def main(epochs: int = 30) -> tuple[float, float]:
    x, labels, x_test, labels_test = data()
    first, second = (torch.nn.Parameter(torch.tensor(w)) for w in weights())
    criterion = pairx.losses.torch_module(pairx.losses.supcon, temperature=0.1)
    optimizer = torch.optim.Adam([first, second], lr=1e-2)

    def embed(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ first) @ second

    before = recall_at_1(embed(torch.tensor(x_test)).detach(), labels_test)
    for rows in batches(len(x), epochs):
        optimizer.zero_grad()
        loss = criterion(embed(torch.tensor(x[rows])), torch.tensor(labels[rows]))
        loss.backward()
        optimizer.step()
    after = recall_at_1(embed(torch.tensor(x_test)).detach(), labels_test)
    print(f"PyTorch: recall@1 {before:.3f} before, {after:.3f} after; last loss {loss.item():.3f}")
    return before, after


if __name__ == "__main__":
    main()
