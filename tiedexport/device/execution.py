"""Running a stage on an engine: contexts, their stream, and memory to copy from and to."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tiedexport.device.engine import Engine
    from tiedexport.device.gpu import Gpu
    from tiedexport.manifest import Binding
    from tiedexport.spec import StageSpec

_log = logging.getLogger(__name__)
_EMPTY_BYTES = 256
"""An empty tensor still needs an address, aligned like any other."""


@dataclass
class _Port:
    """The input or output: device memory, and pinned host memory that copies run from and to."""

    binding: Binding
    device: Any
    pinned: Any
    host: np.ndarray

    @classmethod
    def allocate(cls, gpu: Gpu, binding: Binding, capacity: int, stream: Any, where: str) -> _Port:
        shape = (capacity, *binding.shape[1:])
        dtype = binding.dtype.dtype
        size_bytes = _row_bytes(binding) * capacity
        what = f"{binding.name} of {where}, {capacity} rows"
        pinned = gpu.allocate_pinned(size_bytes, what)
        # Through its address: what numpy takes by DLPack is read-only before numpy 2.1.
        memory = (ctypes.c_uint8 * size_bytes).from_address(int(pinned.handle))
        host = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        host[...] = 0
        return cls(binding, gpu.allocate(size_bytes, stream, what), pinned, host)

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
    """One stage on one engine, with a stream, contexts and staging: one call at a time.

    Each step of the stage has a context of its own in each profile: its shapes then change only
    with the batch, and a CUDA graph may hold all steps. A batch smaller than the profile's smallest
    is filled up with whatever the staging holds: rows do not depend on each other, and those
    outputs are not copied out.

    Args:
        engine: what runs.
        stage: what is run on it.
        rows: the one batch that will be run, whose work may be captured; any up to the engine's
            largest without it.
    """

    def __init__(self, engine: Engine, stage: StageSpec, rows: int | None = None) -> None:
        self._gpu, self._where = engine.gpu, engine.plan.file
        self._route = engine.route(stage)
        self._lock = threading.Lock()
        # Engine and weights must outlive what was bound to them.
        self._engine: Engine | None = engine
        self._stream: Any = engine.gpu.stream()
        self._graph: Any = None
        self._contexts: dict[int, tuple[Any, ...]] = {}
        self._ports: tuple[_Port, ...] = ()
        self._between: Any = None
        self._ready: tuple[int, int] | None = None
        self._views: tuple[tuple[Any, Any], ...] = ()
        try:
            self._allocate(engine, engine.largest if rows is None else engine.profile_for(rows)[1])
            chosen = range(len(engine.profiles)) if rows is None else [engine.profile_for(rows)[0]]
            for profile in chosen:
                self._contexts[profile] = tuple(
                    self._bound(engine.context(profile, self._stream, specialise=rows is not None))
                    for _ in self._route.steps
                )
        except BaseException:
            self.close()
            raise

    def __call__(self, x: np.ndarray, out: np.ndarray) -> None:
        """Run on as many rows as the engine takes at once, and wait for the result."""
        with self._lock, self._gpu.translated(self._where):
            self._gpu.make_current()
            self._set_rows(len(x))
            source, target = self._ports
            source.host[: len(x)] = x
            if self._graph is not None:
                self._graph.launch(self._stream)
            else:
                self._enqueue()
            self._stream.sync()
            out[...] = target.host[: len(x)]

    def compute(self, stream: int) -> None:
        """Enqueue the kernels of the last call once more, without copies: for measuring.

        Args:
            stream: the handle of the caller's; nobody may call this execution meanwhile.
        """
        assert self._ready is not None, "a call comes first"
        for context in self._contexts[self._ready[0]]:
            if not context.execute_async_v3(stream):
                raise RuntimeError("the execution could not be enqueued")

    def fetch(self, out: np.ndarray) -> None:
        """Copy what `compute` left on the device, once that is done."""
        with self._lock, self._gpu.translated(self._where):
            self._gpu.make_current()
            device, pinned = self._views[1]
            pinned.copy_from(device, stream=self._stream)
            self._stream.sync()
            out[...] = self._ports[1].host[: len(out)]

    def capture(self, rows: int) -> None:
        """Record copies and kernels for this many rows as one CUDA graph; say so if that fails."""
        with self._lock, self._gpu.translated(self._where):
            self._gpu.make_current()
            self._set_rows(rows)
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
                # Its words only: who keeps log records must not keep this execution by it.
                _log.warning("%s runs without a CUDA graph: %s", self._where, str(error))
            finally:
                # Ending a capture that went wrong reports that once more.
                with contextlib.suppress(Exception):
                    builder.close()

    def close(self) -> None:
        """Free graph, contexts, buffers and stream; a second time does nothing."""
        with self._lock, self._gpu.translated(self._where):
            if self._engine is None:
                return
            self._gpu.make_current()
            # A call that failed half-way may have left copies behind.
            self._stream.sync()
            if self._graph is not None:
                self._graph.close()
            self._graph = self._engine = None
            self._contexts.clear()
            for port in self._ports:
                port.device.close(self._stream)
                port.pinned.close()
            if self._between is not None:
                self._between.close(self._stream)
            self._stream.close()
            self._ports, self._views, self._between = (), (), None

    def _allocate(self, engine: Engine, capacity: int) -> None:
        gpu, route, stream = self._gpu, self._route, self._stream
        self._ports = tuple(
            _Port.allocate(gpu, binding, capacity, stream, self._where)
            for binding in (route.source, route.target)
        )
        if route.between:
            carried = len(route.steps) > 1
            size_bytes = _row_bytes(route.between[0]) * capacity if carried else _EMPTY_BYTES
            what = f"{' and '.join(b.name for b in route.between)} of {self._where}"
            self._between = gpu.allocate(size_bytes, stream, what)
        self._addresses = engine.addresses | {
            port.binding.name: int(port.device.handle) for port in self._ports
        }
        self._addresses |= {b.name: int(self._between.handle) for b in route.between}

    def _bound(self, context: Any) -> Any:
        for name, address in self._addresses.items():
            if not context.set_tensor_address(name, address):
                raise RuntimeError(f"no address could be set for {name}")
        return context

    def _set_rows(self, rows: int) -> None:
        assert self._engine is not None, "the session lets nobody in once it closes"
        profile, rows = self._engine.profile_for(rows)
        if (profile, rows) == self._ready:
            return
        self._ready = None
        inputs = [b for b in self._engine.plan.bindings if b.role == "input"]
        for context, active in zip(self._contexts[profile], self._route.steps, strict=True):
            for binding in inputs:
                batch = rows if binding.name == active else 0
                if not context.set_input_shape(binding.name, (batch, *binding.shape[1:])):
                    raise RuntimeError(
                        f"{binding.name} refused a batch of {batch}, "
                        f"the profile is {self._engine.profiles[profile]}"
                    )
            if missing := context.infer_shapes():
                raise RuntimeError(f"not all is bound: {', '.join(missing)}")
        self._views = tuple(port.views(self._gpu, rows) for port in self._ports)
        self._ready = profile, rows

    def _enqueue(self) -> None:
        (source, pinned_source), (target, pinned_target) = self._views
        source.copy_from(pinned_source, stream=self._stream)
        self.compute(int(self._stream.handle))
        pinned_target.copy_from(target, stream=self._stream)

    def _require_capturable(self) -> None:
        for contexts in self._contexts.values():
            for context in contexts:
                # Only TensorRT-RTX has this question.
                ask = getattr(context, "is_stream_capturable", None)
                if ask is not None and not ask(int(self._stream.handle)):
                    raise RuntimeError("its context cannot be captured")


def _row_bytes(binding: Binding) -> int:
    return binding.dtype.itemsize * int(np.prod(binding.shape[1:]))
