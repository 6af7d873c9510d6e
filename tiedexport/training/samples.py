"""What an epoch is fed with: whole batches, of which each process of a training has its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from tiedexport.recipe import TrainingSection

ORDER, NOISE, SHIFT = range(3)
"""What an epoch draws, each from a generator of its own."""


@dataclass(frozen=True)
class Part:
    """One process of those that train a model together, and what it does of every batch."""

    rank: int = 0
    processes: int = 1

    def rows(self, size: int) -> slice:
        """This process's rows of `size`: one run of them, at most one longer than another's.

        Where there are fewer rows than processes, some have none.
        """
        first, end = (size * rank // self.processes for rank in (self.rank, self.rank + 1))
        return slice(first, end)


class Batch(NamedTuple):
    """One process's rows of a whole batch.

    Attributes:
        clean: float32 [n, *input_shape], n ≥ 0, on any device.
        rows: where they lie in the whole batch.
        size: of the whole batch, over all processes.
    """

    clean: Tensor
    rows: slice
    size: int


class Samples(Protocol):
    """The samples to train on.

    Which samples make a batch, and in which order, is decided by seed and epoch and never by how
    many processes there are: many train as one does. Each batch of an epoch but the last is of the
    recipe's batch size.
    """

    count: int
    """How many samples an epoch takes, over all processes."""

    def batches(self, epoch: int, first: int = 0) -> Generator[Batch]:
        """This process's rows of each whole batch of an epoch (from 0), from batch `first` on.

        Whoever stops early closes it.
        """
        ...


class SamplesInMemory:
    """Samples that every process holds whole.

    Args:
        samples: float32 [n, *input_shape], on the device that trains.
        settings: batch size and seed.
        part: which rows of each batch are wanted.
    """

    def __init__(self, samples: Tensor, settings: TrainingSection, part: Part | None = None):
        self.count = len(samples)
        self._samples = samples
        self._settings = settings
        self._part = part or Part()

    def batches(self, epoch: int, first: int = 0) -> Generator[Batch]:
        """As `Samples`: every sample once, in an order of the epoch's own."""
        order = torch.randperm(
            self.count, generator=generator(self._settings.seed, epoch, ORDER, "cpu")
        )
        whole = torch.split(order.to(self._samples.device), self._settings.batch_size)
        for indices in whole[first:]:
            rows = self._part.rows(len(indices))
            yield Batch(self._samples[indices[rows]], rows, len(indices))


def generator(seed: int, epoch: int, purpose: int, device: str) -> torch.Generator:
    """What one epoch draws for one purpose, the same in every process."""
    seeds = np.random.SeedSequence((seed, epoch, purpose))
    return torch.Generator(device).manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
