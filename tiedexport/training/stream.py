"""Samples that are read while the training goes on."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import torch

from tiedexport.data.read_ahead import read_ahead
from tiedexport.training.samples import Batch, Part

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tiedexport.data.stream import Stream
    from tiedexport.recipe import TrainingSection

READ_AHEAD = 4
"""How many batches a thread reads before they are wanted."""


class StreamedSamples:
    """`Samples` of which each process reads its own rows, in a thread beside the training.

    Args:
        stream: the samples.
        settings: batch size and seed.
        input_shape: of one sample as the model takes it.
        part: which process this is, of how many.
    """

    def __init__(
        self,
        stream: Stream,
        settings: TrainingSection,
        input_shape: Sequence[int],
        part: Part | None = None,
    ) -> None:
        self.count = stream.count
        self._stream = stream
        self._settings = settings
        self._input_shape = tuple(input_shape)
        self._part = part or Part()

    def batches(self, epoch: int, first: int = 0) -> Generator[Batch]:
        """As `Samples`.

        Raises:
            DataError: the data cannot be read.
            UsageError: more processes than the data has lanes.
        """
        parts = self._stream.epoch(
            epoch,
            self._settings.batch_size,
            seed=self._settings.seed,
            first_batch=first,
            rank=self._part.rank,
            processes=self._part.processes,
        )
        with closing(read_ahead(parts, READ_AHEAD)) as ahead:
            for rows in ahead:
                values = torch.from_numpy(rows.values).reshape(-1, *self._input_shape)
                place = slice(rows.first, rows.first + len(values))
                yield Batch(values, place, rows.total)
