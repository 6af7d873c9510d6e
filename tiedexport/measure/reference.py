"""A loop that is no part of what is measured: what it takes is the machine's doing."""

from __future__ import annotations

import numpy as np

from tiedexport.contender import timed, warm_up
from tiedexport.measure.turns import Row
from tiedexport.results.bench import WarmUp
from tiedexport.spec import Precision

NAME = "reference loop"

SIDE = 1024
"""Of a matrix of 4 MiB: as large as a small model, so that its time follows the clock of the core,
and what neighbours leave of the caches."""


class ReferenceLoop:
    """Multiplies one matrix by a vector, by NumPy's own loop: one thread, no BLAS, no bundle."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._matrix = rng.random((SIDE, SIDE), np.float32)
        self._vector = rng.random(SIDE, np.float32)
        self._product = np.empty(SIDE, np.float32)

    def prepare(self, stage: str, batch: int, warmup_s: float) -> WarmUp:
        """Warm up; it is the same for every stage and batch size."""
        return warm_up(self.take_turn, warmup_s)

    def take_turn(self, calls: int) -> np.ndarray:
        """Nanoseconds of each product, int64 [calls]."""
        return timed(self._multiply, calls)

    def close(self) -> None:
        """Hold no matrix any more."""
        del self._matrix

    def _multiply(self) -> None:
        np.einsum("ij,j->i", self._matrix, self._vector, out=self._product)


def reference_row() -> Row:
    """The loop as a row that takes a turn in every round."""
    return Row(NAME, Precision.FP32, contender=ReferenceLoop())
