"""What takes its turn in a measurement on the device: work that any library enqueues."""

from __future__ import annotations

from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.contender import golden_inputs, warm_up
from tiedexport.errors import RuntimeFailedError, TiedExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tiedexport.bundle import Bundle
    from tiedexport.on_device.cuda import Cuda
    from tiedexport.on_device.work import Bound, Subject
    from tiedexport.results.bench import WarmUp

_ENQUEUES = 16


class DeviceContender:
    """A subject whose calls are timed by events.

    Args:
        cuda: the clock.
        bundle: whose golden inputs are run.
        load: makes what runs them; it is closed with the contender.
        graph: whether its work is launched as one CUDA graph.

    Attributes:
        enqueue_s: median seconds in which the host enqueues a call of what was bound last.

    Raises:
        TiedExportError: the subject could not be loaded.
    """

    def __init__(
        self, cuda: Cuda, bundle: Bundle, load: Callable[[], Subject], graph: bool
    ) -> None:
        self._cuda, self._bundle, self._graph = cuda, bundle, graph
        with translated("loading"):
            self._subject = load()
        self._bound: Bound | None = None
        self.enqueue_s = 0.0

    def prepare(self, stage: str, batch: int, warmup_s: float) -> WarmUp:
        """Bind golden inputs, repeated to the batch size, and warm up."""
        spec = self._bundle.manifest.stage(stage)
        with translated(stage):
            self._free()
            x = golden_inputs(self._bundle, spec, batch)
            self._bound = self._subject.bind(spec, x, self._graph)
            warm = warm_up(self._time, warmup_s)
            self.enqueue_s = median(self._enqueued_s() for _ in range(_ENQUEUES))
            return warm

    def take_turn(self, calls: int) -> np.ndarray:
        """Nanoseconds of each of `calls` consecutive calls, int64 [calls]."""
        with translated("a timed call"):
            return self._time(calls)

    def output(self) -> np.ndarray | None:
        """What the last call computed; None where it only copies.

        Raises:
            RuntimeFailedError: it could not be had.
        """
        with translated("the output"):
            self._cuda.wait()
            return None if self._bound is None else self._bound.output()

    def close(self) -> None:
        """Free everything."""
        with translated("closing"):
            self._free()
            self._subject.close()

    def _time(self, calls: int) -> np.ndarray:
        assert self._bound is not None, "prepare comes first"
        return self._cuda.time(self._bound.enqueue, calls)

    def _enqueued_s(self) -> float:
        """On an idle device: behind a full queue the host would wait, and that be counted."""
        assert self._bound is not None, "prepare comes first"
        self._cuda.wait()
        began_s = perf_counter()
        self._bound.enqueue()
        return perf_counter() - began_s

    def _free(self) -> None:
        bound, self._bound = self._bound, None
        if bound is not None:
            self._cuda.wait()
            bound.free()


@contextmanager
def translated(where: object) -> Iterator[None]:
    """Whatever a library raises → our error."""
    try:
        yield
    except TiedExportError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise RuntimeFailedError("a contender failed", where=where, got=got) from error
