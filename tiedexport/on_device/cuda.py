"""Time and memory of the first device, as the CUDA driver counts them.

Every contender enqueues its work on the one stream of a `Cuda`, whatever library it comes from, so
that events between the calls time all of them alike. It takes NVIDIA's own bindings of the driver
and no TensorRT: torch alone can be timed with it too.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.errors import MissingRuntimeError, RuntimeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_DRIVER = "cuda.bindings.driver"
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile
_HALF_A_GIBIBYTE = 1 << 29
_IN_FLIGHT = 2
"""Calls that the device has or waits for."""

_SLACK_MS = 20.0
"""A pause of the host before the first event is no work elsewhere."""


class Cuda:
    """The first device's primary context, which all libraries of a process share, and a stream.

    Args:
        driver: the module of bindings; by default that of the package cuda-bindings.

    Attributes:
        stream: the handle that contenders enqueue on; it does not wait for the default stream.

    Raises:
        MissingRuntimeError: the bindings or the driver are not there.
        RuntimeFailedError: the driver refused, in its own words.
    """

    def __init__(self, driver: Any = None) -> None:
        self._driver = driver if driver is not None else _bindings()
        self._events: list[Any] = []
        self.call("cuInit", 0)
        self._device = self.call("cuDeviceGet", 0)
        context = self.call("cuDevicePrimaryCtxRetain", self._device)
        self.call("cuCtxSetCurrent", context)
        self._stream = self.call("cuStreamCreate", _NON_BLOCKING)
        self.stream = int(self._stream)

    def call(self, name: str, *arguments: Any) -> Any:
        """A call of the driver and its one result, or None.

        Raises:
            RuntimeFailedError: it returned an error.
        """
        error, *results = getattr(self._driver, name)(*arguments)
        if int(error) != 0:
            words = getattr(error, "name", error)
            raise RuntimeFailedError("the CUDA driver refused a call", where=name, got=words)
        return results[0] if len(results) == 1 else (tuple(results) or None)

    def memory_bytes(self) -> tuple[int, int]:
        """Free and total device memory, for all processes.

        What cuda.core has freed stays in the device's pool: it goes back first.
        """
        self.call("cuCtxSynchronize")
        self.call("cuMemPoolTrimTo", self.call("cuDeviceGetMemPool", self._device), 0)
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)

    def wait(self) -> None:
        """Until all that was enqueued is done."""
        self.call("cuStreamSynchronize", self._stream)

    def time(self, enqueue: Callable[[], None], calls: int) -> np.ndarray:
        """Nanoseconds on the device of each of `calls` consecutive calls, int64 [calls].

        One event ends a call and begins the next. Where the host enqueues more slowly than the
        device works, the device waits and that is counted: it is what a CUDA graph is for.

        Raises:
            RuntimeFailedError: the device worked for long after the last event: what was enqueued
                is not on this stream, and nobody knows how long it takes.
        """
        events = self._events_of(calls + 1)
        began_s = perf_counter()
        self.call("cuEventRecord", events[0], self._stream)
        for event in events[1:]:
            enqueue()
            self.call("cuEventRecord", event, self._stream)
        self._finish(began_s, events)
        return self._between_ns(events)

    def time_parts(
        self, parts: Sequence[Callable[[], None]], calls: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nanoseconds of each part of each call: on the device, and of the host to enqueue it.

        As in trtexec a call has events of its own, and the host enqueues it while the device does
        the one before: neither waits for the other without need, and no queue is ever full, which
        the host would spend its time on.

        Args:
            parts: each enqueues its work on the stream; a call is all of them in order.
            calls: how many.

        Returns:
            Two arrays, int64 [calls, parts].

        Raises:
            RuntimeFailedError: what was enqueued is not on this stream, as in `time`.
        """
        each = len(parts) + 1
        events = self._events_of(calls * each)
        enqueued_s = np.empty((calls, len(parts)))
        began_s = perf_counter()
        for index in range(calls):
            if index >= _IN_FLIGHT:
                self.call("cuEventSynchronize", events[(index - _IN_FLIGHT + 1) * each - 1])
            self.call("cuEventRecord", events[index * each], self._stream)
            for part, enqueue in enumerate(parts):
                before_s = perf_counter()
                enqueue()
                enqueued_s[index, part] = perf_counter() - before_s
                self.call("cuEventRecord", events[index * each + part + 1], self._stream)
        self._finish(began_s, events)
        device_ns = [self._between_ns(events[i : i + each]) for i in range(0, calls * each, each)]
        return np.stack(device_ns), np.rint(enqueued_s * 1e9).astype(np.int64)

    def _events_of(self, number: int) -> list[Any]:
        while len(self._events) < number:
            self._events.append(self.call("cuEventCreate", 0))
        return self._events[:number]

    def _between_ns(self, events: list[Any]) -> np.ndarray:
        """Nanoseconds from each event to the next, int64 [events - 1]."""
        milliseconds = [self.call("cuEventElapsedTime", *pair) for pair in pairwise(events)]
        return np.rint(np.array(milliseconds, np.float64) * 1e6).astype(np.int64)

    def _finish(self, began_s: float, events: list[Any]) -> None:
        """Wait for the device, and refuse work that was not between the events."""
        self.call("cuCtxSynchronize")
        waited_ms = 1e3 * (perf_counter() - began_s)
        between_ms = self.call("cuEventElapsedTime", events[0], events[-1])
        if waited_ms > 2 * between_ms + _SLACK_MS:
            raise RuntimeFailedError(
                "the work is not on the stream that is timed",
                got=f"{between_ms:.3g} ms between the events",
                expected=f"about the {waited_ms:.3g} ms until the device was done",
            )

    def capture(self, enqueue: Callable[[], None]) -> tuple[Callable[[], None], Callable[[], None]]:
        """What `enqueue` enqueues as one CUDA graph: a call that launches it, one that frees it.

        Raises:
            RuntimeFailedError: something in it cannot be captured.
        """
        self.call("cuStreamBeginCapture", self._stream, _THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            with contextlib.suppress(RuntimeFailedError):  # of the capture that went wrong
                self.call("cuStreamEndCapture", self._stream)
            raise
        graph = self.call("cuStreamEndCapture", self._stream)
        launched = self.call("cuGraphInstantiate", graph, 0)
        self.call("cuGraphDestroy", graph)
        return (
            lambda: self.call("cuGraphLaunch", launched, self._stream),
            lambda: self.call("cuGraphExecDestroy", launched),
        )

    def allocate(self, size_bytes: int) -> int:
        """The address of new device memory, which `free` frees."""
        return int(self.call("cuMemAlloc", size_bytes))

    def free(self, address: int) -> None:
        """Free what `allocate` gave."""
        self.call("cuMemFree", address)

    @contextlib.contextmanager
    def pinned(self, size_bytes: int) -> Iterator[np.ndarray]:
        """Host memory that the device copies from and to by itself, uint8 [size_bytes]."""
        address = int(self.call("cuMemAllocHost", size_bytes))
        try:
            yield np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))
        finally:
            self.call("cuMemFreeHost", address)

    def copy_in(self, address: int, array: np.ndarray) -> None:
        """Enqueue a copy of a C-contiguous array to the device; the array must outlive it."""
        self.call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, self._stream)

    def copy_out(self, array: np.ndarray, address: int) -> None:
        """Enqueue a copy from the device into a C-contiguous array."""
        self.call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, self._stream)

    @contextlib.contextmanager
    def filled(self, leaving_bytes: int) -> Iterator[int]:
        """Hold nearly all free device memory; gives how many bytes are free now.

        Large blocks first: free memory is seldom in one piece.
        """
        held: list[int] = []
        block = _HALF_A_GIBIBYTE
        try:
            while block >= leaving_bytes // 4:
                room = self.memory_bytes()[0] - leaving_bytes
                address = self._if_possible(block) if block <= room else None
                if address is None:
                    block //= 2
                else:
                    held.append(address)
            yield self.memory_bytes()[0]
        finally:
            for address in held:
                self.free(address)

    def _if_possible(self, size_bytes: int) -> int | None:
        try:
            return self.allocate(size_bytes)
        except RuntimeFailedError:
            return None

    def close(self) -> None:
        """Destroy events and stream."""
        events, self._events = self._events, []
        for event in events:
            self.call("cuEventDestroy", event)
        self.call("cuStreamDestroy", self._stream)


def _bindings() -> Any:
    try:
        return importlib.import_module(_DRIVER)
    except ImportError as error:
        raise MissingRuntimeError(
            "NVIDIA's bindings of the CUDA driver are not installed",
            where=_DRIVER,
            got=str(error),
            hint="pip install 'tiedexport[gpu]', or [rtx]",
        ) from error
