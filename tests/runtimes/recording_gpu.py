"""A recording double of the cuda.core calls that the device runner makes.

Nothing here runs on a GPU. Work is queued on streams and done only when a stream is synchronised,
so that a missing wait shows; every call that the real library would refuse is refused: sizes that
differ, memory that was freed or is not there, streams that are closed, threads without a current
device. `recording_tensorrt` has the engines.
"""

from __future__ import annotations

import ctypes
import threading
import types
from dataclasses import dataclass

import numpy as np

ALIGNMENT = 256


class FakeCudaError(Exception):
    """Like cuda.core's CUDAError: no RuntimeError."""


class CrashError(BaseException):
    """What would end the process of a user: no handler of the runner may catch it."""


@dataclass
class Block:
    kind: str
    size: int
    mapped: np.ndarray


class Memory:
    """Everything allocated, by address; freed memory stays mapped so that a misuse is an error."""

    def __init__(self) -> None:
        self.blocks: dict[int, Block] = {}
        self.freed: dict[int, Block] = {}

    def allocate(self, size: int, kind: str) -> int:
        mapped = np.full(size + ALIGNMENT, 0xAB, np.uint8)
        address = mapped.ctypes.data + -mapped.ctypes.data % ALIGNMENT
        self.blocks[address] = Block(kind, size, mapped)
        return address

    def free(self, address: int) -> None:
        if address not in self.blocks:
            raise FakeCudaError("CUDA_ERROR_INVALID_VALUE: freed twice")
        self.freed[address] = self.blocks.pop(address)

    def used(self) -> int:
        return sum(block.size for block in self.blocks.values() if block.kind == "device")

    def check(self, address: int, size: int, kind: str | None = None) -> None:
        """Refuse what was freed, reaches beyond its allocation, or is of another kind."""
        for start, block in self.blocks.items():
            if start <= address < start + block.size:
                if address + size > start + block.size:
                    raise FakeCudaError("CUDA_ERROR_ILLEGAL_ADDRESS: beyond the allocation")
                if kind not in (None, block.kind):
                    raise FakeCudaError(f"CUDA_ERROR_ILLEGAL_ADDRESS: no {kind} memory")
                return
        if any(start <= address < start + b.size for start, b in self.freed.items()):
            raise FakeCudaError("CUDA_ERROR_ILLEGAL_ADDRESS: used after it was freed")
        if kind is not None:
            raise FakeCudaError("CUDA_ERROR_ILLEGAL_ADDRESS: not on the device")

    def bytes(self, address: int, size: int) -> np.ndarray:
        self.check(address, size)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


class Buffer:
    def __init__(self, gpu: RecordingGpu, address: int, size: int, owner=None, owned=False):
        self.gpu, self._address, self.size = gpu, address, size
        self.owner, self.owned, self.closed = owner, owned, False

    @property
    def handle(self) -> int:
        return 0 if self.closed else self._address

    def copy_from(self, source: Buffer, *, stream: Stream) -> None:
        self.gpu.called("copy_from")
        if self.closed or source.closed:
            raise RuntimeError("buffer is closed")
        if self.size != source.size:
            raise ValueError(f"buffer sizes mismatch ({self.size}, {source.size})")
        size, memory = self.size, self.gpu.memory
        target, origin = self._address, source._address

        def copy() -> None:
            memory.bytes(target, size)[:] = memory.bytes(origin, size)

        stream.enqueue("copy", copy)

    def close(self, stream: Stream | None = None) -> None:
        if stream is not None and stream.closed:
            raise RuntimeError("stream is closed")
        if self.owned and not self.closed:
            self.gpu.memory.free(self._address)
        self.closed = True

    def __del__(self) -> None:
        self.close()


class Stream:
    def __init__(self, gpu: RecordingGpu) -> None:
        self.gpu, self.pending, self.capturing, self.closed = gpu, [], None, False
        self.handle = 1000 + len(gpu.streams)
        gpu.streams.append(self)

    def enqueue(self, name: str, work) -> None:
        if self.closed:
            raise RuntimeError("stream is closed")
        self.gpu.log.append(name)
        (self.pending if self.capturing is None else self.capturing).append(work)

    def sync(self) -> None:
        self.gpu.called("sync")
        if self.closed or self.capturing is not None:
            raise FakeCudaError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        work, self.pending = self.pending, []
        for step in work:
            step()

    def close(self) -> None:
        self.closed = True

    def create_graph_builder(self) -> GraphBuilder:
        self.gpu.called("create_graph_builder")
        return GraphBuilder(self)


class GraphBuilder:
    def __init__(self, stream: Stream) -> None:
        self.stream, self.work = stream, None

    def begin_building(self, mode: str = "relaxed") -> GraphBuilder:
        if mode not in ("relaxed", "thread_local", "global"):
            raise ValueError(f"Unsupported build mode: {mode}")
        self.stream.gpu.called("begin_building")
        self.stream.capturing = []
        return self

    def end_building(self) -> GraphBuilder:
        if self.stream.capturing is None:
            raise RuntimeError("Graph builder is not building.")
        self.work, self.stream.capturing = self.stream.capturing, None
        return self

    def complete(self) -> Graph:
        if self.work is None:
            raise RuntimeError("Graph has not finished building.")
        self.stream.gpu.called("complete")
        return Graph(self.stream.gpu, self.work)

    def close(self) -> None:
        self.stream.capturing = None


@dataclass
class Graph:
    gpu: RecordingGpu
    work: list
    closed: bool = False

    def launch(self, stream: Stream) -> None:
        if self.closed:
            raise RuntimeError("graph is closed")
        self.gpu.called("launch")
        stream.enqueue("graph", lambda: [step() for step in self.work])

    def close(self) -> None:
        self.closed = True


class RecordingGpu:
    """Stands for `cuda.core` (`core`) and `cuda.bindings.driver` (`driver`), with one device.

    Attributes:
        total: bytes of device memory; what does not fit is refused.
        fail_at: the call of the library, by number, that fails for no reason; None for none.
    """

    def __init__(self) -> None:
        self.memory, self.log, self.streams = Memory(), [], []
        self.total, self.fail_at, self.calls = 1 << 30, None, 0
        self._thread = threading.local()
        self.core = types.SimpleNamespace(
            Device=self._device,
            StreamOptions=lambda nonblocking: nonblocking,
            LegacyPinnedMemoryResource=lambda: types.SimpleNamespace(allocate=self._pinned),
            Buffer=types.SimpleNamespace(from_handle=self._view),
        )
        self.driver = types.SimpleNamespace(cuMemGetInfo=lambda: (0, self.free(), self.total))

    def called(self, name: str) -> None:
        """Count a call that may fail, and let it."""
        self.calls += 1
        if self.calls == self.fail_at:
            raise FakeCudaError(f"CUDA_ERROR_UNKNOWN: {name} failed")

    def free(self) -> int:
        return self.total - self.memory.used()

    def is_current(self) -> bool:
        return getattr(self._thread, "current", False)

    def stream_of(self, handle: int) -> Stream:
        found = [s for s in self.streams if s.handle == handle and not s.closed]
        if not found:
            raise CrashError("a stream that is closed, or none")
        return found[0]

    def set_current(self) -> None:
        self.called("set_current")
        self._thread.current = True

    def create_stream(self, *, options: bool) -> Stream:
        assert options, "a stream that waits for the default stream"
        self.called("create_stream")
        return Stream(self)

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        self.called("allocate")
        if stream.closed or not self.is_current():
            raise RuntimeError("no current device")
        if size > self.free():
            raise FakeCudaError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed")
        self.log.append(f"allocate {size}")
        return Buffer(self, self.memory.allocate(size, "device"), size, owned=True)

    def _device(self, index: int) -> RecordingGpu:
        assert index == 0
        return self

    def _pinned(self, size: int) -> Buffer:
        self.called("allocate pinned")
        return Buffer(self, self.memory.allocate(size, "pinned"), size, owned=True)

    def _view(self, address: int, size: int, owner=None) -> Buffer:
        return Buffer(self, address, size, owner=owner)
