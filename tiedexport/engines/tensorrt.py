"""Engines for NVIDIA GPUs: one builder over a module handle serves TensorRT and TensorRT-RTX.

TensorRT-RTX builds for compute capabilities that are asked for and needs no GPU; TensorRT times
its kernels on the GPU present. Networks are strongly typed: the graph alone decides what is
computed in which type, and `network.products` holds the parsed network to what was asked for.
"""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, Any

from tiedexport import network, trt
from tiedexport.engine_options import contradiction, effective
from tiedexport.engines import Engine
from tiedexport.errors import MissingRuntimeError, UsageError
from tiedexport.network import failures, plans, products
from tiedexport.network.bindings import bindings_of
from tiedexport.network.config import configure, timing_cache
from tiedexport.results import Availability
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tiedexport.engines import EngineBuilder, EngineRequest, Progress

_RTX_TARGET = re.compile(r"rtx(:sm\d{2,3}(\+sm\d{2,3})*)?")
_AMPERE, _TURING = 80, 75
_ELSEWHERE = "without a GPU, build TensorRT-RTX engines: tiedexport build model.pt --target rtx"


class _Builder:
    """What both packages have in common."""

    name: str
    forms: str

    def compute_capabilities(self, target: str) -> tuple[int, ...]:
        """The devices that a target stands for."""
        raise NotImplementedError

    def prepare(self, handle: trt.Handle, config: Any, request: EngineRequest) -> None:
        """Tell the builder's configuration what only this package knows."""

    def unsupported(self, request: EngineRequest) -> str | None:
        """Which option this package cannot follow here, and what to do; or None."""
        return None

    def notes(self, request: EngineRequest, parsed: network.Parsed) -> tuple[str, ...]:
        """What else the user should know of the plan."""
        return ()

    def availability(self, target: str) -> Availability:
        """Whether this machine can build for a target; if not, why and how to go on."""
        return trt.availability(self.name)

    def fingerprint(self, target: str) -> tuple[str, ...]:
        """Package, version and compute capabilities."""
        capabilities = self.compute_capabilities(target)
        return self.name, trt.load(self.name).version, *map(str, capabilities)

    def refusal(self, request: EngineRequest) -> str | None:
        """Why the target, though available, cannot have this engine; or None."""
        reason = contradiction(request.options, request.weights) or self.unsupported(request)
        oldest = min(self.compute_capabilities(request.target))
        if reason is None and oldest < _AMPERE:
            return self.turing_refusal(f"sm{oldest}", request)
        return reason

    def turing_refusal(self, device: str, request: EngineRequest) -> str | None:
        """Which of its types a device before Ampere cannot compute in, or None."""
        wrong = {w: t for w, t in _types(request).items() if t is Precision.BF16}
        return _lacking(f"{device} has no bf16", wrong, request)

    def build(self, request: EngineRequest, progress: Progress | None = None) -> Engine:
        """Build one engine, as `EngineBuilder.build` has it."""
        availability = self.availability(request.target)
        if not availability.available:
            raise MissingRuntimeError(
                "this target cannot be built here",
                where=request.target,
                got=availability.reason,
                hint=availability.remedy,
            )
        if (reason := self.refusal(request)) is not None:
            raise UsageError(
                "the target cannot have this engine", where=_where(request), got=reason
            )
        handle = trt.load(self.name)
        options, notes = effective(request.options, request.weights)
        with failures.translated(handle, _where(request), request.weights):
            parsed = network.parse(handle, request.graph)
            products.check(parsed, request.stage.layers, request.precision, request.kept)
            named = request.weight_names if request.weights == "shared" else None
            bindings = bindings_of(parsed, request.stage, named)
            config = parsed.builder.create_builder_config()
            configure(parsed, config, options, bindings)
            self.prepare(handle, config, request)
            with timing_cache(config, request.timing_cache):
                plan = plans.build(parsed, config, progress)
        return Engine(
            plan=plan,
            package=self.name,
            package_version=handle.version,
            compute_capabilities=self.compute_capabilities(request.target),
            bindings=bindings,
            options=options,
            layers=network.layer_list(parsed),
            notes=(*notes, *self.notes(request, parsed)),
        )


class TensorRTRTXBuilder(_Builder):
    """TensorRT-RTX: plans for any supported device, built without one.

    One plan may serve several compute capabilities; from Ampere on, it is as small as for one.
    """

    name = "tensorrt_rtx"
    forms = "rtx (sm80 and later), rtx:sm75, rtx:sm80, rtx:sm86, rtx:sm89, rtx:sm86+sm89, ..."

    def accepts(self, target: str) -> bool:
        """Whether a target is "rtx" or names compute capabilities behind "rtx:"."""
        return _RTX_TARGET.fullmatch(target) is not None

    def default_targets(self) -> tuple[str, ...]:
        """One plan for Ampere and later, and one for Turing."""
        return ("rtx", f"rtx:sm{_TURING}")

    def compute_capabilities(self, target: str) -> tuple[int, ...]:
        """The devices that a target stands for; "rtx" is all that the package has from sm80 on."""
        named = re.findall(r"sm(\d+)", target)
        if named:
            return tuple(sorted({int(number) for number in named}))
        return tuple(
            number for number in trt.load(self.name).compute_capabilities if number >= _AMPERE
        )

    def availability(self, target: str) -> Availability:
        """Whether the package is here and builds for every device of the target."""
        availability = super().availability(target)
        if not availability.available:
            return availability
        supported = trt.load(self.name).compute_capabilities
        unknown = [n for n in self.compute_capabilities(target) if n not in supported]
        if not unknown:
            return availability
        known = ", ".join(f"sm{number}" for number in supported)
        return Availability(
            False,
            availability.version,
            reason=f"TensorRT-RTX builds for {known}, not for sm{unknown[0]}",
            remedy=_elsewhere(unknown[0], supported),
        )

    def unsupported(self, request: EngineRequest) -> str | None:
        """TensorRT-RTX compiles its kernels where it runs; refitting it asks for the device."""
        options = request.options
        if request.timing_cache is not None:
            return "TensorRT-RTX times no kernels when it builds; leave --timingCacheFile out"
        if options.hardware_compatibility != "none":
            return (
                "TensorRT-RTX builds for the devices that the target names; "
                "in the place of --hardwareCompatibilityLevel: --target rtx:sm86+sm89"
            )
        if options.version_compatible and not _loads(library := self.lean_library):
            return f"--versionCompatible needs {library}, which is not here; leave it out"
        if (options.refit or options.strip_weights) and not (driver := trt.driver()).available:
            flag = "--stripWeights" if options.strip_weights else "--refit"
            return (
                f"TensorRT-RTX needs a GPU for {flag}: {driver.reason}; leave it out, "
                "or exchange weights without a rebuild: --weights shared"
            )
        transposed = _types(request, "conv_transpose")
        wrong = {w: t for w, t in transposed.items() if t is Precision.BF16}
        return _lacking("TensorRT-RTX builds no transposed convolution in bf16", wrong, request)

    @property
    def lean_library(self) -> str:
        """The runtime that a version-compatible plan carries; the Python package has none."""
        return f"libnvinfer_lean.so.{trt.load(self.name).version.partition('.')[0]}"

    def turing_refusal(self, device: str, request: EngineRequest) -> str | None:
        """Turing gets fp16 engines only."""
        wrong = {w: t for w, t in _types(request).items() if t is not Precision.FP16}
        others = ", ".join(sorted(set(wrong.values())))
        return _lacking(f"TensorRT-RTX computes no {others} on {device}", wrong, request)

    def notes(self, request: EngineRequest, parsed: network.Parsed) -> tuple[str, ...]:
        """What streaming costs, and weights that its kernels cannot take as they lie."""
        notes = []
        if request.options.weight_streaming:
            notes.append("weights stream: the plan allocates as it runs; no CUDA graph records it")
        oldest = min(self.compute_capabilities(request.target))
        multiple = 2 if oldest >= _AMPERE else 8
        odd = sorted(n for n in products.matrix_sizes(parsed) if n % multiple)
        if odd and request.weights == "shared":
            notes.append(
                f"sm{oldest} multiplies sizes that are multiples of {multiple}, unlike "
                f"{', '.join(map(str, odd))}: each run pads a copy of the weight"
            )
        return tuple(notes)

    def prepare(self, handle: trt.Handle, config: Any, request: EngineRequest) -> None:
        """Set the devices, and memory that is planned ahead: a CUDA graph cannot allocate."""
        module, capabilities = handle.module, self.compute_capabilities(request.target)
        config.num_compute_capabilities = len(capabilities)
        for index, number in enumerate(capabilities):
            capability = getattr(module.ComputeCapability, f"SM{number}")
            if not config.set_compute_capability(capability, index):
                raise RuntimeError(f"compute capability sm{number} was refused")
        if not request.options.weight_streaming:  # which must allocate
            config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)


class TensorRTBuilder(_Builder):
    """TensorRT: plans for the GPU of this machine."""

    name = "tensorrt"
    forms = "tensorrt (the GPU of this machine)"

    def accepts(self, target: str) -> bool:
        """Whether the target is "tensorrt"."""
        return target == self.name

    def default_targets(self) -> tuple[str, ...]:
        """The GPU of this machine, there or not: the build says which engines it went without."""
        return (self.name,)

    def compute_capabilities(self, target: str) -> tuple[int, ...]:
        """That of the device present."""
        device = trt.device()
        return () if device is None else (device.compute_capability,)

    def fingerprint(self, target: str) -> tuple[str, ...]:
        """The device's name too: kernels are timed on it."""
        device = trt.device()
        return *super().fingerprint(target), "" if device is None else device.name

    def availability(self, target: str) -> Availability:
        """Whether the package, a device and a driver that is new enough are here."""
        if not trt.driver().available:
            return Availability(False, reason=trt.driver().reason, remedy=_ELSEWHERE)
        driver = trt.driver_for(self.name)
        return super().availability(target) if driver.available else driver


def _elsewhere(capability: int, supported: tuple[int, ...]) -> str:
    """Where a device that TensorRT-RTX does not know gets its engine."""
    if capability < min(supported):  # TensorRT has left those behind as well
        return "a GPU that old runs bundles with ONNX Runtime: pip install 'tiedexport[gpu]'"
    return "on a machine with that GPU: tiedexport build model.pt --target tensorrt"


def _types(request: EngineRequest, *ops: str) -> dict[str, Precision]:
    """Weight → the type that its products are computed in; of all layers, or of these kinds."""
    layers = [layer for layer in request.stage.layers if not ops or layer.op in ops]
    weights = [layer.weight for layer in layers if layer.weight is not None]
    return {weight: request.kept.get(weight, request.precision) for weight in weights}


def _lacking(what: str, wrong: Mapping[str, Precision], request: EngineRequest) -> str | None:
    """The refusal of weights in types that a target lacks, and what to do; None without any."""
    if not wrong:
        return None
    if wrong.keys() - request.kept.keys():
        return f"{what}; build fp16"
    kept = ", ".join(f"{weight} is kept in {kind}" for weight, kind in wrong.items())
    return f"{what}, and {kept}; tiedexport build model.pt --precision fp16 keeps none"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _where(request: EngineRequest) -> str:
    graph = "" if isinstance(request.graph, bytes) else f" from {request.graph.name}"
    return f"{request.stage.name} in {request.precision} for {request.target}{graph}"


BUILDERS: tuple[EngineBuilder, ...] = (TensorRTRTXBuilder(), TensorRTBuilder())
