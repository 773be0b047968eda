"""What training the small transformers has in common: seeds, threads, and the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

SEED = 20240229


class TrainingFailedError(RuntimeError):
    """A demo model was trained and still gets an example of its own wrong."""


@contextmanager
def reproducible() -> Iterator[torch.Generator]:
    """Seed torch and give it one thread, and leave both as they were.

    The models are too small to gain much from a second thread, and where other processes want the
    cores too it makes training several times slower (25 s became 126). The order in which sums
    are made, and so the weights, don't depend on the machine's cores either.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            yield torch.Generator().manual_seed(SEED)
    finally:
        torch.set_num_threads(threads)


def train(
    model: torch.nn.Module,
    batches: Callable[[int], dict[str, Any]],
    *,
    steps: int,
    peak_rate: float,
) -> None:
    """Run `steps` optimizer steps and leave the model in eval mode.

    `batches(step)` gives the arguments of the model's forward, whose result has a `loss`.
    The learning rate rises for a twentieth of the steps and falls to zero along a cosine.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, weight_decay=0.01)
    warmup = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    for step in range(steps):
        loss = model(**batches(step)).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
