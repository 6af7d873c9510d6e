"""A machine whose GPU is a recording double that computes what the plans should.

Plans are built by the real TensorRT-RTX; the double takes their bytes for the stage that they were
built from and evaluates it in float64, from the weights that are bound to it or inside it. Its
driver has a clock that only the work on a stream moves. `fault` plants what a GPU may get wrong.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "runtimes"))

from recorded_machine import VERSION, Logger, put_into_machine
from recording_gpu import Stream
from recording_tensorrt import Engine, RecordingTensorRT, Tensor

from tiedexport import rounding, trt
from tiedexport.errors import MissingRuntimeError
from tiedexport.on_device import cuda

STEP_MS = 0.01
"""What each piece of work takes on the device."""


@dataclass(eq=False)
class ModelEngine(Engine):
    layers: list = field(default_factory=list)
    inside: dict = field(default_factory=dict)
    as_built: dict = field(default_factory=dict)

    def compute(self, array, rows: dict[str, int]) -> None:
        fault = self.gpu.fault
        weights = self.inside or {t.name: array(t) for t in self.of("weight")}
        if fault == "stale weights":
            weights = self.as_built
        sides = zip(self.layers, self.of("input"), self.of("output"), strict=True)
        for layers, source, target in sides:
            if rows[source.name]:
                value = rounding.forward(layers, weights, array(source))
                array(target)[...] = value + 0.5 * (fault == "wrong numbers")


class ModelGpu(RecordingTensorRT):
    def __init__(self) -> None:
        super().__init__("tensorrt_rtx")
        self.fault, self.clock_ms, self.total = "", 0.0, 64 << 20
        self.driver = Driver(self)

    def learn(self, bundle) -> None:
        """What the bytes of a bundle's plans stand for."""
        manifest = bundle.manifest
        for plan in manifest.plans:
            stages = ("encoder", "decoder") if plan.weights == "one-plan" else (plan.stage,)
            weights = dict(bundle.weights(plan.precision))
            baked = plan.weights != "shared"
            held = baked or self.fault == "a second copy"
            self.plans[(bundle.path / plan.file).read_bytes()] = ModelEngine(
                self,
                [Tensor(b.name, b.role, b.dtype, b.shape) for b in plan.bindings],
                plan.profiles,
                weights_bytes=sum(w.nbytes for w in weights.values()) if held else 0,
                layers=[manifest.stage(name).layers for name in stages],
                inside=weights if baked else {},
                as_built=weights,
            )


class Code(IntEnum):
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_READY = 600


class Driver:
    """`cuda.bindings.driver`: each call returns an error code, then its results.

    Attributes:
        idle_ms: what passes before an event, whatever was enqueued.
    """

    def __init__(self, gpu: ModelGpu) -> None:
        self.gpu, self.events, self.graphs = gpu, {}, {}
        self.handles, self.idle_ms = [], 0.0

    def cuInit(self, flags):
        return (0,)

    def cuDeviceGet(self, index):
        return 0, index

    def cuDevicePrimaryCtxRetain(self, device):
        return 0, "primary"

    def cuCtxSetCurrent(self, context):
        self.gpu.set_current()
        return (0,)

    def cuCtxSynchronize(self):
        # Of its own streams: memory is freed in the order of others that somebody has dropped.
        for handle in self.handles:
            self.gpu.stream_of(handle).sync()
        return (0,)

    def cuDeviceGetMemPool(self, device):
        return 0, "pool"

    def cuMemPoolTrimTo(self, pool, size):
        return (0,)

    def cuMemGetInfo(self):
        return 0, self.gpu.free(), self.gpu.total

    def cuStreamCreate(self, flags):
        assert flags == 1, "a stream that waits for the default stream"
        self.handles.append(Stream(self.gpu).handle)
        return 0, self.handles[-1]

    def cuStreamSynchronize(self, handle):
        self.gpu.stream_of(handle).sync()
        return (0,)

    def cuStreamDestroy(self, handle):
        self.gpu.stream_of(handle).close()
        self.handles.remove(handle)
        return (0,)

    def cuEventCreate(self, flags):
        assert flags == 0, "an event without timing"
        event = object()
        self.events[event] = None
        return 0, event

    def cuEventRecord(self, event, handle):
        stream = self.gpu.stream_of(handle)

        def stamp() -> None:
            self.gpu.clock_ms += self.idle_ms
            self.events[event] = self.gpu.clock_ms

        stream.enqueue("event", stamp)
        return (0,)

    def cuEventSynchronize(self, event):
        self.cuCtxSynchronize()
        return (0 if self.events[event] is not None else Code.CUDA_ERROR_NOT_READY,)

    def cuEventElapsedTime(self, begin, end):
        times = self.events[begin], self.events[end]
        if None in times:
            return Code.CUDA_ERROR_NOT_READY, None
        return 0, times[1] - times[0]

    def cuEventDestroy(self, event):
        del self.events[event]
        return (0,)

    def cuMemAlloc(self, size):
        if size > self.gpu.free():
            return Code.CUDA_ERROR_OUT_OF_MEMORY, None
        return 0, self.gpu.memory.allocate(size, "device")

    def cuMemFree(self, address):
        self.gpu.memory.free(address)
        return (0,)

    def cuMemAllocHost(self, size):
        return 0, self.gpu.memory.allocate(size, "pinned")

    def cuMemFreeHost(self, address):
        self.gpu.memory.free(address)
        return (0,)

    def cuMemcpyHtoDAsync(self, target, source, size, handle):
        return self._copy(target, source, size, handle, target)

    def cuMemcpyDtoHAsync(self, target, source, size, handle):
        return self._copy(target, source, size, handle, source)

    def cuStreamBeginCapture(self, handle, mode):
        assert mode == 1, "a capture that other threads' allocations would break"
        self.gpu.stream_of(handle).capturing = []
        return (0,)

    def cuStreamEndCapture(self, handle):
        stream = self.gpu.stream_of(handle)
        graph, stream.capturing = stream.capturing, None
        return 0, graph

    def cuGraphInstantiate(self, graph, flags):
        self.graphs[id(graph)] = graph
        return 0, id(graph)

    def cuGraphLaunch(self, launched, handle):
        work = self.graphs[launched]
        self.gpu.stream_of(handle).enqueue("graph", lambda: [step() for step in work])
        return (0,)

    def cuGraphDestroy(self, graph):
        return (0,)

    def cuGraphExecDestroy(self, launched):
        del self.graphs[launched]
        return (0,)

    def _copy(self, target, source, size, handle, on_device):
        self.gpu.memory.check(on_device, size, "device")
        memory = self.gpu.memory

        def copy() -> None:
            memory.bytes(target, size)[:] = memory.bytes(source, size)

        self.gpu.stream_of(handle).enqueue("copy", copy)
        return (0,)


class _Module:
    """The real package, but for its runtime."""

    def __init__(self, gpu: ModelGpu) -> None:
        self.Runtime = gpu.module.Runtime

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module("tensorrt_rtx"))

    def __getattr__(self, name: str):
        return getattr(importlib.import_module("tensorrt_rtx"), name)


def model_machine(monkeypatch) -> ModelGpu:
    """A machine with an sm89 device, cuda-core and TensorRT-RTX."""
    gpu, real = ModelGpu(), trt.load("tensorrt_rtx")
    handle = trt.Handle(_Module(gpu), real.package, real.version, real.logger)

    def load(name: str) -> trt.Handle:
        if name != handle.package:
            raise MissingRuntimeError(f"{name} is missing", got="no such Python package")
        return handle

    gpu.logger = Logger()
    gpu.logger.collectors = real.logger.collectors
    give_a_clock(monkeypatch, gpu)
    put_into_machine(monkeypatch, gpu, load)
    return gpu


def machine_of_plans(monkeypatch) -> ModelGpu:
    """The same without the package: `recorded_machine.give_plans` says what its plans are."""
    gpu = ModelGpu()
    gpu.logger = Logger()
    handle = trt.Handle(gpu.module, "tensorrt_rtx", VERSION, gpu.logger)
    give_a_clock(monkeypatch, gpu)
    put_into_machine(monkeypatch, gpu, lambda name: handle)
    return gpu


def give_a_clock(monkeypatch, gpu: ModelGpu) -> None:
    """Whatever copies or computes takes a step; the host has no time of its own."""
    real_enqueue = Stream.enqueue

    def enqueue(stream: Stream, name: str, work) -> None:
        def timed() -> None:
            work()
            gpu.clock_ms += STEP_MS * (name in ("execute", "copy"))

        real_enqueue(stream, name, timed)

    monkeypatch.setattr(Stream, "enqueue", enqueue)
    monkeypatch.setattr(cuda, "perf_counter", lambda: gpu.clock_ms / 1e3)
