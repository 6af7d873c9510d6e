"""What takes its turn in `bench` on a device: a call with its copies, each part timed by events."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.contender import golden_inputs, warm_up
from tiedexport.errors import MissingRuntimeError
from tiedexport.on_device.contender import translated
from tiedexport.on_device.copies import Copies
from tiedexport.on_device.cuda import Cuda
from tiedexport.on_device.libraries import all_subjects

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle
    from tiedexport.results.bench import WarmUp
    from tiedexport.runtimes import Memory
    from tiedexport.spec import Precision


class PartsContender:
    """A runtime on its first device, with a stream of its own.

    Inputs are copied from pinned memory and outputs to it, beside the buffers that the library
    computes on: their bytes count, and each batch computes on golden inputs.

    Args:
        bundle: what is run.
        runtime, precision, memory: in which way.
        graph: whether what computes is launched as one CUDA graph; copies never are, as in trtexec.

    Attributes:
        turns_ns: turn by turn since the last `prepare`, nanoseconds of each call, int64 [calls, 5]:
            a column for each of `tiedexport.results.device.PARTS`.

    Raises:
        MissingRuntimeError: the work of this runtime cannot be timed here.
        RuntimeFailedError: its library or the driver refused, in its own words.
    """

    def __init__(
        self, bundle: Bundle, runtime: str, precision: Precision, memory: Memory, graph: bool
    ) -> None:
        if (opener := all_subjects().get(runtime)) is None:
            raise MissingRuntimeError(
                "nothing enqueues its work on a stream of ours",
                got=runtime,
                expected=", ".join(all_subjects()),
            )
        self._bundle, self._graph = bundle, graph
        self.turns_ns: list[np.ndarray] = []
        self._batch = ExitStack()
        self._work: list[Callable[[], None]] = []
        with ExitStack() as opening, translated("loading"):
            self._cuda = Cuda()
            opening.callback(self._cuda.close)
            self._subject = opener(self._cuda, bundle, precision, memory)
            opening.pop_all()

    def prepare(self, stage: str, batch: int, warmup_s: float) -> WarmUp:
        """Bind golden inputs, repeated to the batch size, and warm up."""
        spec = self._bundle.manifest.stage(stage)
        with translated(stage):
            self._free()
            self.turns_ns = []
            x = golden_inputs(self._bundle, spec, batch)
            inwards, outwards = (Copies(self._cuda, way) for way in (True, False))
            for subject in (inwards, self._subject, outwards):
                bound = subject.bind(spec, x, self._graph)
                self._batch.callback(bound.free)
                self._work.append(bound.enqueue)
            return warm_up(lambda calls: self._time(calls)[:, 0], warmup_s)

    def take_turn(self, calls: int) -> np.ndarray:
        """Nanoseconds on the device of each of `calls` consecutive calls, int64 [calls]."""
        with translated("a timed call"):
            self.turns_ns.append(self._time(calls))
        return self.turns_ns[-1][:, 0]

    def close(self) -> None:
        """Free everything."""
        with translated("closing"), ExitStack() as closing:  # the last first
            for close in (self._cuda.close, self._subject.close, self._free):
                closing.callback(close)

    def _time(self, calls: int) -> np.ndarray:
        device_ns, enqueued_ns = self._cuda.time_parts(self._work, calls)
        return np.column_stack([device_ns.sum(axis=1), device_ns, enqueued_ns[:, 1]])

    def _free(self) -> None:
        self._cuda.wait()
        self._work = []
        self._batch.close()
