"""A recording double of the TensorRT calls that the device runner makes.

It refuses what TensorRT refuses, in its way (False, None and a logged error): unknown tensors,
addresses that are unset, null or not aligned, profiles that there are not, shapes outside the
chosen one. What TensorRT would answer with a crash or with wrong numbers is an error here: an
object used after the one it came from, tensors in one place, work captured straight after its
shapes changed. An output is rows of: the sum of its input's row times the sum of all weights.
"""

from __future__ import annotations

import types
import weakref
from dataclasses import dataclass, field, replace

import numpy as np
from recording_gpu import ALIGNMENT, CrashError, FakeCudaError, RecordingGpu

from tiedexport.spec import Precision


@dataclass
class Tensor:
    name: str
    role: str
    dtype: Precision
    shape: tuple[int, ...]

    def bytes(self, rows: int) -> int:
        return self.dtype.itemsize * int(np.prod(self.at(rows)))

    def at(self, rows: int) -> tuple[int, ...]:
        return tuple(rows if n == -1 else n for n in self.shape)


@dataclass(eq=False)
class Engine:
    """What a plan's bytes stand for: `RecordingTensorRT.plans`; several inputs are halves.

    Each input feeds the output at its place among the outputs.
    """

    gpu: RecordingTensorRT
    tensors: list[Tensor]
    profiles: tuple[tuple[int, int, int], ...]
    device_memory_size_v2: int = 4096
    weights_bytes: int = 0
    runtime: weakref.ref | None = None
    contexts: int = 0

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return self.tensors[index].name

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        (tensor,) = [t for t in self.of("input") if t.name == name]
        return [tensor.at(rows) for rows in self.profiles[index]]

    def of(self, role: str) -> list[Tensor]:
        return [tensor for tensor in self.tensors if tensor.role == role]

    def compute(self, array, rows: dict[str, int]) -> None:
        """Fill the outputs; `array` gives the memory of a tensor."""
        weights, inputs, outputs = (self.of(r) for r in ("weight", "input", "output"))
        scale = sum(float(array(w).astype(np.float64).sum()) for w in weights) or 1.0
        for source, target in zip(inputs, outputs, strict=True):
            if count := rows[source.name]:
                total = array(source).reshape(count, -1).astype(np.float64).sum(axis=1)
                out = array(target)
                out[...] = (scale * total).reshape(count, *[1] * (out.ndim - 1))

    def create_runtime_config(self):
        return types.SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="LAZY")

    def create_execution_context(self, config=None) -> Context | None:
        self.gpu.called("create_execution_context")
        if self.runtime is None or self.runtime() is None:
            raise CrashError("the runtime died before its engine")
        if self.device_memory_size_v2 > self.gpu.free():
            self.gpu.logger.log("ERROR", "OutOfMemory: no activation memory")
            return None
        strategy = config and config.dynamic_shapes_kernel_specialization_strategy
        kind = RtxContext if self.gpu.package == "tensorrt_rtx" else Context
        # Which profile later contexts begin with is said nowhere: the first has 0.
        context = kind(self.gpu, weakref.ref(self), strategy, None if self.contexts else 0)
        self.contexts += 1
        self.gpu.contexts.append(weakref.ref(context))
        self.gpu.strategies.append(strategy)
        activations = self.gpu.memory.allocate(self.device_memory_size_v2, "device")
        weakref.finalize(context, self.gpu.memory.free, activations).atexit = False
        return context


@dataclass(eq=False)
class Context:
    gpu: RecordingTensorRT
    made_by: weakref.ref
    strategy: str | None
    profile: int | None
    addresses: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    settled: bool = False
    switching: int | None = None

    @property
    def engine(self) -> Engine:
        engine = self.made_by()
        if engine is None:
            raise CrashError("the engine died before its context")
        return engine

    def set_optimization_profile_async(self, index: int, handle: int) -> bool:
        self.gpu.called("set_optimization_profile_async")
        if not 0 <= index < len(self.engine.profiles):
            return False
        self.profile, self.rows, self.settled, self.switching = index, {}, False, handle

        def switched() -> None:
            self.switching = None

        self.gpu.stream_of(handle).enqueue("profile", switched)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.gpu.called("set_tensor_address")
        if name not in {tensor.name for tensor in self.engine.tensors} or address % ALIGNMENT:
            return False
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.gpu.called("set_input_shape")
        tensor = {t.name: t for t in self.engine.of("input")}.get(name)
        if tensor is None or self.profile is None or shape[1:] != tensor.shape[1:]:
            return False
        smallest, _, largest = self.engine.profiles[self.profile]
        if not smallest <= shape[0] <= largest:
            return False
        self.settled = self.settled and self.rows.get(name) == shape[0]
        self.rows[name] = shape[0]
        return True

    def infer_shapes(self) -> list[str]:
        return [t.name for t in self.engine.of("input") if t.name not in self.rows]

    def execute_async_v3(self, handle: int) -> bool:
        self.gpu.called("execute_async_v3")
        stream = self.gpu.stream_of(handle)
        if not self.gpu.is_current():
            raise FakeCudaError("CUDA_ERROR_INVALID_CONTEXT")
        unset = [t.name for t in self.engine.tensors if not self.addresses.get(t.name)]
        if self.gpu.fail_next or unset or self.infer_shapes():
            self.gpu.logger.log("ERROR", f"enqueueV3: refused; without an address: {unset}")
            return False
        if self.switching not in (None, handle):
            raise CrashError("the profile is still being switched on another stream")
        if stream.capturing is not None and not self.settled:
            raise FakeCudaError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: shapes have just changed")
        self.settled = True
        self.refuse_overlaps()
        stream.enqueue("execute", self.work())
        return True

    def rows_of(self, tensor: Tensor) -> int:
        if tensor.role == "output":
            place = self.engine.of("output").index(tensor)
            return self.rows[self.engine.of("input")[place].name]
        return self.rows.get(tensor.name, 0)

    def refuse_overlaps(self) -> None:
        spans = []
        for tensor in self.engine.tensors:
            start, size = self.addresses[tensor.name], tensor.bytes(self.rows_of(tensor))
            self.gpu.memory.check(start, size, "device")
            if any(start < end and begin < start + size for begin, end in spans):
                raise CrashError(f"{tensor.name} lies where another tensor does")
            if size:
                spans.append((start, start + size))

    def work(self):
        """What the device will do: with the addresses and shapes of now, whatever comes later."""
        addresses, memory = dict(self.addresses), self.gpu.memory
        rows = {tensor.name: self.rows_of(tensor) for tensor in self.engine.tensors}

        def array(tensor: Tensor) -> np.ndarray:
            raw = memory.bytes(addresses[tensor.name], tensor.bytes(rows[tensor.name]))
            return raw.view(tensor.dtype.dtype).reshape(tensor.at(rows[tensor.name]))

        made_by = self.made_by

        def compute() -> None:
            engine = made_by()
            if engine is None:
                raise CrashError("the engine died before its work was done")
            engine.compute(array, rows)

        return compute


class RtxContext(Context):
    """TensorRT-RTX's: the other package has no such question."""

    def is_stream_capturable(self, stream: int) -> bool:
        return self.gpu.capturable


class Runtime:
    def __init__(self, gpu: RecordingTensorRT) -> None:
        self.gpu, self.engine_host_code_allowed = gpu, False

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        self.gpu.called("deserialize_cuda_engine")
        if plan not in self.gpu.plans:
            self.gpu.logger.log("ERROR", "Serialization assertion failed")
            return None
        if plan in self.gpu.version_compatible and not self.engine_host_code_allowed:
            self.gpu.logger.log("ERROR", "host code is not allowed")
            return None
        engine = replace(self.gpu.plans[plan], runtime=weakref.ref(self))
        if engine.weights_bytes > self.gpu.free():
            self.gpu.logger.log("ERROR", "OutOfMemory: no memory for weights")
            return None
        weights = self.gpu.memory.allocate(engine.weights_bytes, "device")
        weakref.finalize(engine, self.gpu.memory.free, weights).atexit = False
        return engine


class RecordingTensorRT(RecordingGpu):
    """A recording GPU with a TensorRT package; `module` stands for it behind a handle."""

    def __init__(self, package: str = "tensorrt_rtx") -> None:
        super().__init__()
        self.package, self.logger = package, None
        self.plans: dict[bytes, Engine] = {}
        self.version_compatible: set[bytes] = set()
        self.contexts: list[weakref.ref] = []
        self.strategies: list[str | None] = []
        self.capturable, self.fail_next = True, False
        self.module = types.SimpleNamespace(
            Runtime=self._runtime,
            DynamicShapesKernelSpecializationStrategy=types.SimpleNamespace(EAGER="EAGER"),
        )

    def living(self) -> list[Context]:
        """The contexts that somebody still holds."""
        return [context for ref in self.contexts if (context := ref()) is not None]

    def _runtime(self, logger) -> Runtime:
        if not self.is_current():
            raise CrashError("createInferRuntime gives an invalid pointer without a device")
        self.called("Runtime")
        return Runtime(self)
