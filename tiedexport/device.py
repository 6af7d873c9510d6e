"""TensorRT plans on the device: weights that all share, and contexts that one thread may use.

All of it goes through cuda.core and a TensorRT module handle. Addresses that a context or a graph
holds stay valid because their owners are kept: a session closes graphs, contexts, engines and
weights, in that order.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet, WeakValueDictionary

import numpy as np

from tiedexport.errors import BundleError, RuntimeFailedError, TiedExportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tiedexport.manifest import Binding, PlanRecord
    from tiedexport.trt import Handle

_log = logging.getLogger(__name__)


class Gpu:
    """The first device, through cuda.core and one of the TensorRT packages."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.core = importlib.import_module("cuda.core")

    def make_current(self) -> Any:
        """The device, current in this thread: CUDA keeps that for each thread."""
        device = self.core.Device(0)
        device.set_current()
        return device

    def stream(self) -> Any:
        """A new stream that does not wait for the default stream."""
        options = self.core.StreamOptions(nonblocking=True)
        return self.make_current().create_stream(options=options)

    @contextlib.contextmanager
    def translated(self, where: object) -> Iterator[None]:
        """Exceptions of cuda.core and TensorRT, and what TensorRT logged, → ours."""
        with self.handle.errors() as logged:
            try:
                yield
            except TiedExportError:
                raise
            except Exception as error:
                raise RuntimeFailedError(
                    f"{self.handle.package} {self.handle.version} failed",
                    where=where,
                    got="; ".join(dict.fromkeys([str(error), *logged])),
                    hint="tiedexport doctor",
                ) from error


class DeviceWeights:
    """Every weight of one weights file on the device, for all sessions of the process.

    Engines refer to it; when the last of them is gone, so is the device memory.
    """

    _resident: ClassVar[WeakValueDictionary[tuple[str, str], DeviceWeights]] = WeakValueDictionary()
    _lock = threading.Lock()

    def __init__(self, gpu: Gpu, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays, self.buffers = arrays, {}
        device, stream = gpu.make_current(), gpu.stream()
        for name, array in arrays.items():
            buffer = self.buffers[name] = device.allocate(array.nbytes, stream=stream)
            source = gpu.core.Buffer.from_handle(array.ctypes.data, array.nbytes, owner=array)
            buffer.copy_from(source, stream=stream)
        stream.sync()

    @classmethod
    def of(
        cls, gpu: Gpu, path: Path, sha256: str, arrays: Mapping[str, np.ndarray]
    ) -> DeviceWeights:
        """Those of a weights file: uploaded for the first session, shared by the others."""
        key = str(path.resolve()), sha256
        with cls._lock:
            weights = cls._resident.get(key)
            if weights is None:
                weights = cls._resident[key] = cls(gpu, arrays)
            return weights

    def address(self, binding: Binding) -> int:
        """Where the weight that a plan asks for lies.

        Raises:
            BundleError: there is no such weight, or it has another type or shape.
        """
        array = self.arrays.get(binding.name)
        found = None if array is None else (array.dtype, array.shape)
        if found != (binding.dtype.dtype, binding.shape):
            raise BundleError(
                "a plan asks for a weight that the bundle does not have",
                where=binding.name,
                got=found,
                expected=f"{binding.dtype}{list(binding.shape)}",
                hint="tiedexport build model.pt",
            )
        return int(self.buffers[binding.name].handle)


class Engine:
    """A deserialised plan and the device address of every weight that it takes.

    Attributes:
        alive: all of this process, for whoever asks where weights lie.
    """

    alive: ClassVar[WeakSet[Engine]] = WeakSet()

    def __init__(
        self, gpu: Gpu, plan: PlanRecord, serialised: bytes, weights: DeviceWeights | None
    ) -> None:
        self.gpu, self.plan, self.weights = gpu, plan, weights
        taken = [binding for binding in plan.bindings if binding.role == "weight"]
        self.addresses = {b.name: weights.address(b) for b in taken} if weights else {}
        # The engine refers to the runtime that made it.
        self._runtime = gpu.handle.module.Runtime(gpu.handle.logger)
        self._engine = self._runtime.deserialize_cuda_engine(serialised)
        if self._engine is None:
            raise RuntimeError("the plan could not be deserialised")
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        if different := names ^ {binding.name for binding in plan.bindings}:
            raise RuntimeError(f"plan and manifest differ in {', '.join(sorted(different))}")
        Engine.alive.add(self)

    def context(self, specialise: bool) -> Any:
        """A new execution context.

        TensorRT-RTX runs general kernels while it compiles those for a new shape; a context whose
        work will be captured waits for the final ones instead (`specialise`).
        """
        if specialise and self.gpu.handle.package == "tensorrt_rtx":
            strategies = self.gpu.handle.module.DynamicShapesKernelSpecializationStrategy
            config = self._engine.create_runtime_config()
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise RuntimeError("no execution context could be made")
        return context


@dataclass
class _Port:
    """An input or output: device memory, and pinned host memory that copies run from and to."""

    binding: Binding
    device: Any
    pinned: Any
    host: np.ndarray

    @classmethod
    def allocate(cls, gpu: Gpu, binding: Binding, capacity: int, stream: Any) -> _Port:
        shape = (capacity, *binding.shape[1:])
        dtype = binding.dtype.dtype
        size_bytes = dtype.itemsize * int(np.prod(shape))
        pinned = gpu.core.LegacyPinnedMemoryResource().allocate(size_bytes)
        # Through its address: what numpy takes by DLPack is read-only before numpy 2.1.
        memory = (ctypes.c_uint8 * size_bytes).from_address(int(pinned.handle))
        host = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        host[...] = 0
        device = gpu.make_current().allocate(size_bytes, stream=stream)
        return cls(binding, device, pinned, host)

    def views(self, gpu: Gpu, rows: int) -> tuple[Any, Any]:
        """The first rows of the device memory and of the pinned memory."""
        size_bytes = self.host[:rows].nbytes
        view = gpu.core.Buffer.from_handle
        device, pinned = self.device, self.pinned
        return (
            view(int(device.handle), size_bytes, owner=device),
            view(int(pinned.handle), size_bytes, owner=pinned),
        )


class Execution:
    """One execution context with its stream and staging: one call at a time.

    A batch smaller than the profile's smallest is filled up with whatever the staging holds: rows
    do not depend on each other, and those outputs are not copied out.
    """

    def __init__(self, engine: Engine, capacity: int, specialise: bool = False) -> None:
        gpu, plan = engine.gpu, engine.plan
        self.capacity = max(capacity, plan.profiles[0][0])
        self._gpu, self._plan = gpu, plan
        self._lock = threading.Lock()
        self._rows = 0
        self._stream: Any = gpu.stream()
        self._graph: Any = None
        self._views: dict[str, tuple[Any, Any]] = {}
        # Engine and weights must outlive what was bound to them.
        self._engine: Engine | None = engine
        self._context: Any = engine.context(specialise)
        self._ports = {
            binding.role: _Port.allocate(gpu, binding, self.capacity, self._stream)
            for binding in plan.bindings
            if binding.role != "weight"
        }
        addresses = {p.binding.name: int(p.device.handle) for p in self._ports.values()}
        for name, address in (engine.addresses | addresses).items():
            if not self._context.set_tensor_address(name, address):
                raise RuntimeError(f"no address could be set for {name}")

    def __call__(self, x: np.ndarray, out: np.ndarray) -> None:
        """Run on at most `capacity` rows and wait for the result."""
        with self._lock, self._gpu.translated(self._plan.file):
            self._gpu.make_current()
            self._set_rows(max(len(x), self._plan.profiles[0][0]))
            self._ports["input"].host[: len(x)] = x
            if self._graph is not None:
                self._graph.launch(self._stream)
            else:
                self._enqueue()
            self._stream.sync()
            out[...] = self._ports["output"].host[: len(x)]

    def capture(self, rows: int) -> None:
        """Record copies and kernels for this many rows as one CUDA graph; say so if that fails."""
        with self._lock, self._gpu.translated(self._plan.file):
            self._gpu.make_current()
            self._set_rows(max(rows, self._plan.profiles[0][0]))
            # Kernels are compiled and loaded by a first call, which no capture could contain.
            self._enqueue()
            self._stream.sync()
            builder = self._stream.create_graph_builder()
            try:
                self._require_capturable()
                builder.begin_building("thread_local")
                self._enqueue()
                self._graph = builder.end_building().complete()
            except Exception as error:
                _log.warning("%s runs without a CUDA graph: %s", self._plan.file, error)
            finally:
                # Ending a capture that went wrong reports that once more.
                with contextlib.suppress(Exception):
                    builder.close()

    def close(self) -> None:
        """Free graph, context, buffers and stream; a second time does nothing."""
        with self._lock, self._gpu.translated(self._plan.file):
            if self._context is None:
                return
            self._gpu.make_current()
            # A call that failed half-way may have left copies behind.
            self._stream.sync()
            if self._graph is not None:
                self._graph.close()
            self._graph = self._context = self._engine = None
            for port in self._ports.values():
                port.device.close(self._stream)
                port.pinned.close()
            self._stream.close()
            self._ports, self._views = {}, {}

    def _set_rows(self, rows: int) -> None:
        if rows == self._rows:
            return
        self._rows = 0
        source = self._ports["input"]
        if not self._context.set_input_shape(source.binding.name, (rows, *source.host.shape[1:])):
            raise RuntimeError(
                f"a batch of {rows} was refused, the profile is {self._plan.profiles}"
            )
        if missing := self._context.infer_shapes():
            raise RuntimeError(f"not all is bound: {', '.join(missing)}")
        self._views = {role: port.views(self._gpu, rows) for role, port in self._ports.items()}
        self._rows = rows

    def _enqueue(self) -> None:
        device, pinned = self._views["input"]
        device.copy_from(pinned, stream=self._stream)
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise RuntimeError("the execution could not be enqueued")
        device, pinned = self._views["output"]
        pinned.copy_from(device, stream=self._stream)

    def _require_capturable(self) -> None:
        # Only TensorRT-RTX has this question.
        ask = getattr(self._context, "is_stream_capturable", None)
        if ask is not None and not ask(int(self._stream.handle)):
            raise RuntimeError("its context cannot be captured")
