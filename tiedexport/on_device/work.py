"""What the clock of a device times: work that a library enqueues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from tiedexport.spec import StageSpec


CALLS_BEFORE_A_GRAPH = 3
"""Of a library that loads kernels and allocates in its first calls, which no graph may capture."""


@dataclass(frozen=True)
class Bound:
    """A stage at one batch size, its input on the device.

    Attributes:
        enqueue: enqueues all its work on the stream that was given, and does not wait.
        output: what the last call computed, once the device is done; None where it only copies.
        free: called once, when the device is done.
    """

    enqueue: Callable[[], None]
    output: Callable[[], np.ndarray | None]
    free: Callable[[], None] = lambda: None


class Subject(Protocol):
    """A library with a model loaded."""

    def bind(self, stage: StageSpec, x: np.ndarray, graph: bool) -> Bound:
        """Get ready to run a stage on these rows, as one CUDA graph if asked for.

        Raises:
            MissingRuntimeError: it takes no such batch.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...
