"""Bundles with recorded plans, and a machine on which the device runner finds a recording GPU."""

from __future__ import annotations

import sys

import handmade
import msgspec
from recording_tensorrt import Engine, RecordingTensorRT, Tensor

from tiedexport import trt
from tiedexport.bundle import MANIFEST, file_sha256, open_bundle
from tiedexport.engine_options import EngineOptions
from tiedexport.manifest import Binding, FileRecord, PlanRecord, encode_manifest
from tiedexport.results import Availability
from tiedexport.runtimes import tensorrt as runner
from tiedexport.session import open_session
from tiedexport.spec import CODE_IN, Precision

FP16, FP32 = Precision.FP16, Precision.FP32
VERSION, PROFILE = "1.7.1", (1, 8, 16)
CAPABILITY = 89
_WEIGHTS_BYTES = 512


class Logger:
    """The part of the module handle's logger that the runner touches."""

    def __init__(self) -> None:
        self.collectors: dict[int, list[str]] = {}

    def log(self, severity: str, message: str) -> None:
        for collector in self.collectors.values():
            collector.append(message)


def plan_of(stage, stored, **changes) -> PlanRecord:
    data = [(spec, "input") for spec in stage.inputs] + [(spec, "output") for spec in stage.outputs]
    bindings = [Binding(s.name, role, s.dtype, (-1, *s.element_shape)) for s, role in data]
    bindings += [Binding(n, "weight", FP16, array.shape) for n, array in stored.items()]
    record = PlanRecord(
        file=f"plans/rtx/{stage.name}.fp16.plan",
        stage=stage.name,
        precision=FP16,
        target="rtx",
        package="tensorrt_rtx",
        package_version=VERSION,
        compute_capabilities=(80, 89),
        weights="shared" if stored else "baked",
        options=EngineOptions(profiles=(PROFILE,)),
        bindings=tuple(bindings),
        graph_sha256="0" * 64,
    )
    return msgspec.structs.replace(record, **changes)


def plan_of_halves(manifest, **changes) -> PlanRecord:
    """One plan for all stages: the encoder's tensors, and the decoder's beside them."""
    encoder, decoder = manifest.stage("encoder"), manifest.stage("decoder")
    code_in = msgspec.structs.replace(decoder.inputs[0], name=CODE_IN)
    both = msgspec.structs.replace(
        manifest.stage("autoencoder"),
        inputs=(*encoder.inputs, code_in),
        outputs=(*encoder.outputs, *decoder.outputs),
    )
    own = {
        "file": "plans/rtx/halves.fp16.plan",
        "weights": "one-plan",
        "options": EngineOptions(profiles=((0, *PROFILE[1:]),)),
    }
    return plan_of(both, {}, **(own | changes))


def bundle_with_plans(path, *, weights="shared", **changes):
    """`handmade.bundle` with a plan a stage, or one; a plan's bytes are its name."""
    bundle = handmade.bundle(path)
    if weights == "one-plan":
        return with_plans(bundle, (plan_of_halves(bundle.manifest, **changes),))
    stored = bundle.weights(FP16) if weights == "shared" else {}
    return with_plans(
        bundle, tuple(plan_of(stage, stored, **changes) for stage in bundle.manifest.stages)
    )


def with_plans(bundle, plans):
    path, files = bundle.path, dict(bundle.manifest.files)
    for plan in plans:
        file = path / plan.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(plan.file.encode())
        files[plan.file] = FileRecord(file.stat().st_size, file_sha256(file))
    manifest = msgspec.structs.replace(bundle.manifest, plans=plans, files=files)
    (path / MANIFEST).write_bytes(encode_manifest(manifest))
    return open_bundle(path)


def recorded_machine(monkeypatch, package="tensorrt_rtx") -> RecordingTensorRT:
    """A machine with an sm89 device, cuda-core and a package, as far as the runner can see."""
    gpu = RecordingTensorRT(package)
    gpu.logger = Logger()
    handle = trt.Handle(gpu.module, package, VERSION, gpu.logger)
    put_into_machine(monkeypatch, gpu, lambda name: handle)
    return gpu


def put_into_machine(monkeypatch, gpu, load) -> None:
    """Let the runner find this GPU with a driver and cuda-core, and packages as `load` does."""
    there = Availability(True, "CUDA 13.0")
    monkeypatch.setattr(trt, "load", load)
    monkeypatch.setattr(trt, "driver", lambda: there)
    monkeypatch.setattr(trt, "driver_for", lambda name: there)
    monkeypatch.setattr(trt, "device", lambda: trt.Device("GeForce Test", CAPABILITY))
    monkeypatch.setattr(runner, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "cuda.core", gpu.core)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", gpu.driver)


def give_plans(gpu, bundle, **changes) -> None:
    """Let the machine know what the bytes of every plan of a bundle stand for."""
    for plan in bundle.manifest.plans:
        tensors = [Tensor(b.name, b.role, b.dtype, b.shape) for b in plan.bindings]
        inside = 0 if plan.weights == "shared" else _WEIGHTS_BYTES
        fields = {"weights_bytes": inside} | changes
        gpu.plans[plan.file.encode()] = Engine(gpu, tensors, plan.profiles, **fields)
        if plan.options.version_compatible:
            gpu.version_compatible.add(plan.file.encode())


def runnable_bundle(gpu, path, **changes):
    """`bundle_with_plans`, whose plans this machine knows."""
    bundle = bundle_with_plans(path, **changes)
    give_plans(gpu, bundle)
    return bundle


def session_on(bundle):
    return open_session(bundle, runtime="tensorrt_rtx")
