"""A recording double of the cuda.core and TensorRT calls that the device runner makes.

Nothing here runs on a GPU. Work is queued on streams and done only when a stream is synchronised,
so that a missing wait shows; every call that the real libraries would refuse is refused: unknown
tensors, unset addresses, shapes outside the profile, sizes that differ, memory that was freed.
An engine computes out = rows @ product of its weights' sums, from the addresses bound to it.
"""

from __future__ import annotations

import ctypes
import types
from dataclasses import dataclass, field

import numpy as np

from tiedexport.spec import Precision


class FakeCudaError(Exception):
    """Like cuda.core's CUDAError: no RuntimeError."""


class Memory:
    """Everything allocated, by address; freed memory stays mapped so that a misuse is an error."""

    def __init__(self) -> None:
        self.blocks: dict[int, np.ndarray] = {}
        self.freed: dict[int, np.ndarray] = {}

    def allocate(self, size: int) -> int:
        block = np.full(size, 0xAB, np.uint8)
        self.blocks[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, address: int) -> None:
        if address not in self.blocks:
            raise FakeCudaError("CUDA_ERROR_INVALID_VALUE: freed twice")
        self.freed[address] = self.blocks.pop(address)

    def check(self, address: int, size: int) -> None:
        for start, block in self.freed.items():
            if start <= address < start + block.size:
                raise FakeCudaError("CUDA_ERROR_ILLEGAL_ADDRESS: used after it was freed")
        for start, block in self.blocks.items():
            if start <= address < start + block.size and address + size > start + block.size:
                raise FakeCudaError("CUDA_ERROR_ILLEGAL_ADDRESS: beyond the allocation")

    def is_device(self, address: int) -> bool:
        return any(start <= address < start + b.size for start, b in self.blocks.items())

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
        if self.closed or self.capturing is not None:
            raise FakeCudaError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        work, self.pending = self.pending, []
        for step in work:
            step()

    def close(self) -> None:
        self.closed = True

    def create_graph_builder(self) -> GraphBuilder:
        return GraphBuilder(self)


class GraphBuilder:
    def __init__(self, stream: Stream) -> None:
        self.stream, self.work = stream, None

    def begin_building(self, mode: str = "relaxed") -> GraphBuilder:
        if mode not in ("relaxed", "thread_local", "global"):
            raise ValueError(f"Unsupported build mode: {mode}")
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
        stream.enqueue("graph", lambda: [step() for step in self.work])

    def close(self) -> None:
        self.closed = True


@dataclass
class Tensor:
    name: str
    role: str
    dtype: Precision
    shape: tuple[int, ...]


@dataclass
class Engine:
    """Made from a plan whose bytes are its key in `RecordingGpu.plans`."""

    gpu: RecordingGpu
    tensors: list[Tensor]
    profile: tuple[int, int, int]

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return self.tensors[index].name

    def create_runtime_config(self):
        return types.SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="LAZY")

    def create_execution_context(self, config=None) -> Context | None:
        if self.gpu.no_contexts:
            return None
        strategy = config and config.dynamic_shapes_kernel_specialization_strategy
        kind = RtxContext if self.gpu.package == "tensorrt_rtx" else Context
        self.gpu.contexts.append(kind(self.gpu, self, strategy))
        return self.gpu.contexts[-1]


@dataclass
class Context:
    gpu: RecordingGpu
    engine: Engine
    strategy: str | None
    addresses: dict[str, int] = field(default_factory=dict)
    batch: int = 0

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in {tensor.name for tensor in self.engine.tensors} or not address:
            return False
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        tensor = {t.name: t for t in self.engine.tensors if t.role == "input"}.get(name)
        smallest, _, largest = self.engine.profile
        if tensor is None or shape[1:] != tensor.shape[1:] or not smallest <= shape[0] <= largest:
            return False
        self.batch = shape[0]
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self.batch else [t.name for t in self.engine.tensors if t.role == "input"]

    def execute_async_v3(self, handle: int) -> bool:
        (stream,) = [s for s in self.gpu.streams if s.handle == handle]
        if self.gpu.current is None:
            raise FakeCudaError("CUDA_ERROR_INVALID_CONTEXT")
        if not self.batch or len(self.addresses) != len(self.engine.tensors) or self.gpu.fail_next:
            self.gpu.logger.log("ERROR", "enqueueV3: the recorded device refuses")
            return False
        addresses, batch = dict(self.addresses), self.batch
        for tensor in self.engine.tensors:
            size = self.array_bytes(tensor, batch)
            if not self.gpu.memory.is_device(addresses[tensor.name]):
                raise FakeCudaError("CUDA_ERROR_ILLEGAL_ADDRESS: not on the device")
            self.gpu.memory.check(addresses[tensor.name], size)
        stream.enqueue("execute", lambda: self.compute(addresses, batch))
        return True

    def array_bytes(self, tensor: Tensor, batch: int) -> int:
        shape = tuple(batch if n == -1 else n for n in tensor.shape)
        return tensor.dtype.itemsize * int(np.prod(shape))

    def compute(self, addresses: dict[str, int], batch: int) -> None:
        arrays = {}
        for tensor in self.engine.tensors:
            shape = tuple(batch if n == -1 else n for n in tensor.shape)
            raw = self.gpu.memory.bytes(addresses[tensor.name], self.array_bytes(tensor, batch))
            arrays[tensor.role, tensor.name] = raw.view(tensor.dtype.dtype).reshape(shape)
        weights = [a for (role, _), a in arrays.items() if role == "weight"]
        scale = sum(float(w.astype(np.float64).sum()) for w in weights) if weights else 1.0
        source = next(a for (role, _), a in arrays.items() if role == "input")
        target = next(a for (role, _), a in arrays.items() if role == "output")
        total = source.reshape(batch, -1).astype(np.float64).sum(axis=1)
        target[...] = (scale * total).reshape(batch, *[1] * (target.ndim - 1))


class RtxContext(Context):
    """TensorRT-RTX's: the other package has no such question."""

    def is_stream_capturable(self, stream: int) -> bool:
        return self.gpu.capturable


class RecordingGpu:
    """Stands for `cuda.core` (`core`) and for the TensorRT module behind a handle (`module`)."""

    def __init__(self, package: str = "tensorrt_rtx") -> None:
        self.package = package
        self.memory, self.log, self.streams, self.contexts = Memory(), [], [], []
        self.plans: dict[bytes, Engine] = {}
        self.current = self.logger = None
        self.capturable, self.no_contexts = True, False
        self.fail_next, self.out_of_memory = False, False
        self.core = types.SimpleNamespace(
            Device=lambda index: self,
            StreamOptions=lambda nonblocking: nonblocking,
            LegacyPinnedMemoryResource=lambda: types.SimpleNamespace(allocate=self._pinned),
            Buffer=types.SimpleNamespace(from_handle=self._view),
        )
        self.module = types.SimpleNamespace(
            Runtime=lambda logger: self,
            DynamicShapesKernelSpecializationStrategy=types.SimpleNamespace(EAGER="EAGER"),
        )

    def set_current(self) -> None:
        self.current = self

    def create_stream(self, *, options: bool) -> Stream:
        assert options, "a stream that waits for the default stream"
        return Stream(self)

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        if self.out_of_memory:
            raise FakeCudaError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed")
        if stream.closed or self.current is None:
            raise RuntimeError("no current device")
        self.log.append(f"allocate {size}")
        return Buffer(self, self.memory.allocate(size), size, owned=True)

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        if plan not in self.plans:
            self.logger.log("ERROR", "Serialization assertion failed")
        return self.plans.get(plan)

    def _pinned(self, size: int) -> Buffer:
        return Buffer(self, self.memory.allocate(size), size, owned=True)

    def _view(self, address: int, size: int, owner=None) -> Buffer:
        return Buffer(self, address, size, owner=owner)
