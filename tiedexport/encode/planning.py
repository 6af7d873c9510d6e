"""From inputs and options to a job: what is cut where, and what must stay the same."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.encode.job import Input, Job, Part
from tiedexport.encode.rows import BLOCK_BYTES, BLOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.encode.job import Settings
    from tiedexport.encode.rows import Source
    from tiedexport.session import Session
    from tiedexport.spec import StageSpec

PART_BYTES, PART_ROWS = 256 << 20, 1 << 17
"""The most of a part, as the stage takes or makes it: what a kill can cost. A row group or record
batch of a table is never cut, however large."""

BATCHES = (16, 64, 256, 1024)
SURPLUS = 1.03
"""The smallest of these batches is chosen whose rate is within 3 % of the best one's."""

_MEASURED_S = 0.3
"""For all batches together, at least one round each."""


def inputs_of(sources: Sequence[Source]) -> tuple[Input, ...]:
    """What shows later that the inputs are still the same."""
    statuses = [os.stat(source.path) for source in sources]
    return tuple(
        Input(one.path, one.kind, one.rows, status.st_size, status.st_mtime_ns, one.digest)
        for one, status in zip(sources, statuses, strict=True)
    )


def new_job(
    settings: Settings, inputs: tuple[Input, ...], sources: Sequence[Source], stage: StageSpec,
    batch: int,
) -> Job:  # fmt: skip
    """Cut the inputs into parts, each at its own beginning, so that none depends on another."""
    row_bytes = bytes_of_row(stage)
    block = max(1, min(BLOCK_ROWS, BLOCK_BYTES // row_bytes) // batch) * batch
    whole = min(PART_ROWS, PART_BYTES // row_bytes) // block * block
    rows = settings.part_rows or max(block, whole)
    parts: list[Part] = []
    offset = 0
    for number, source in enumerate(sources):
        for start, stop in _cut(source, rows):
            parts.append(Part(number, start, stop, offset + start))
        offset += source.rows
    # Of no rows, one part without any: a reader finds the columns all the same.
    return Job(settings, batch, block, inputs, tuple(parts) or (Part(0, 0, 0, 0),))


def bytes_of_row(stage: StageSpec) -> int:
    """What a row takes of memory, before or after the stage, whichever is more."""
    specs = (stage.inputs[0], stage.outputs[0])
    return max(math.prod(spec.element_shape) * spec.dtype.itemsize for spec in specs)


def _cut(source: Source, rows: int) -> Iterator[tuple[int, int]]:
    if source.cuts is None:
        for start in range(0, source.rows, rows):
            yield start, min(start + rows, source.rows)
        return
    start = 0
    for cut, after in pairwise((*source.cuts, source.rows)):
        if cut > start and (after - start > rows or cut == source.rows):
            yield start, cut
            start = cut


def quickest_batch(session: Session, stage: StageSpec) -> int:
    """The smallest batch that is about as fast as any: less memory, and less to wait for.

    Batches take turns, and the least time of each counts. Of data there are 64 rows of noise,
    repeated: what a dense or convolutional layer takes does not depend on the values.
    """
    most = max(1, BLOCK_BYTES // bytes_of_row(stage))
    batches = [batch for batch in BATCHES if batch <= most] or [most]
    spec = stage.inputs[0]
    noise = np.random.default_rng(0).random((64, *spec.element_shape), np.float32)
    x = np.resize(noise, (batches[-1], *spec.element_shape)).astype(spec.dtype.dtype)
    least = dict.fromkeys(batches, math.inf)
    begun = perf_counter()
    session.run(stage.name, x[: batches[0]])
    while math.inf in least.values() or perf_counter() - begun < _MEASURED_S:
        for batch in batches:
            start = perf_counter()
            session.run(stage.name, x[:batch])
            least[batch] = min(least[batch], (perf_counter() - start) / batch)
    best = min(least.values())
    return next(batch for batch in batches if least[batch] <= best * SURPLUS)
