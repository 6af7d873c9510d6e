"""Bundles with recorded plans, and a machine on which the device runner finds a recording GPU."""

from __future__ import annotations

import sys

import handmade
import msgspec
import recording_gpu
from recording_gpu import RecordingGpu, Tensor

from tiedexport import trt
from tiedexport.bundle import MANIFEST, file_sha256, open_bundle
from tiedexport.engine_options import EngineOptions
from tiedexport.manifest import Binding, FileRecord, PlanRecord, encode_manifest
from tiedexport.results import Availability
from tiedexport.runtimes import tensorrt as runner
from tiedexport.spec import Precision

FP16, FP32 = Precision.FP16, Precision.FP32
VERSION, PROFILE = "1.7.1", (1, 8, 16)


class Logger:
    """The part of the module handle's logger that the runner touches."""

    def __init__(self) -> None:
        self.collectors: dict[int, list[str]] = {}

    def log(self, severity: str, message: str) -> None:
        for collector in self.collectors.values():
            collector.append(message)


def plan_of(stage, weights, **changes) -> PlanRecord:
    data = [(spec, "input") for spec in stage.inputs] + [(spec, "output") for spec in stage.outputs]
    bindings = [Binding(s.name, role, s.dtype, (-1, *s.element_shape)) for s, role in data]
    bindings += [Binding(n, "weight", FP16, array.shape) for n, array in weights.items()]
    record = PlanRecord(
        file=f"plans/rtx/{stage.name}.fp16.plan",
        stage=stage.name,
        precision=FP16,
        target="rtx",
        package="tensorrt_rtx",
        package_version=VERSION,
        compute_capabilities=(80, 89),
        weights="shared" if weights else "baked",
        options=EngineOptions(profiles=(PROFILE,)),
        bindings=tuple(bindings),
        graph_sha256="0" * 64,
    )
    return msgspec.structs.replace(record, **changes)


def bundle_with_plans(path, *, weights="shared", **changes):
    """`handmade.bundle` with a plan a stage; a plan's bytes are the name of its stage."""
    bundle = handmade.bundle(path)
    stored = bundle.weights(FP16) if weights == "shared" else {}
    plans = tuple(plan_of(stage, stored, **changes) for stage in bundle.manifest.stages)
    files = dict(bundle.manifest.files)
    for plan in plans:
        file = path / plan.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(plan.stage.encode())
        files[plan.file] = FileRecord(file.stat().st_size, file_sha256(file))
    manifest = msgspec.structs.replace(bundle.manifest, plans=plans, files=files)
    (path / MANIFEST).write_bytes(encode_manifest(manifest))
    return open_bundle(path)


def recorded_machine(monkeypatch, package="tensorrt_rtx") -> RecordingGpu:
    """A machine with an sm89 device, cuda-core and a package, as far as the runner can see."""
    gpu = RecordingGpu(package)
    gpu.logger = Logger()
    handle = trt.Handle(gpu.module, package, VERSION, gpu.logger)
    monkeypatch.setattr(trt, "load", lambda name: handle)
    monkeypatch.setattr(trt, "driver", lambda: Availability(True, "CUDA 13.0"))
    monkeypatch.setattr(trt, "device", lambda: trt.Device("GeForce Test", 89))
    monkeypatch.setattr(runner, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "cuda.core", gpu.core)
    return gpu


def give_plans(gpu, bundle) -> None:
    for plan in bundle.manifest.plans:
        tensors = [Tensor(b.name, b.role, b.dtype, b.shape) for b in plan.bindings]
        gpu.plans[plan.stage.encode()] = recording_gpu.Engine(gpu, tensors, plan.profiles[0])
