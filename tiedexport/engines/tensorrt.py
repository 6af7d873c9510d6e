"""Engines for NVIDIA GPUs: one builder over a module handle serves TensorRT and TensorRT-RTX.

TensorRT-RTX builds for compute capabilities that are asked for and needs no GPU; TensorRT times
its kernels on the GPU present. Networks are strongly typed: the graph alone decides what is
computed in which type, and `network.products` holds the parsed network to what was asked for.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tiedexport import network, trt
from tiedexport.engines import Engine
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError, UsageError
from tiedexport.manifest import Binding
from tiedexport.network import products
from tiedexport.results import Availability
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.engines import EngineBuilder, EngineRequest, Progress

_RTX_TARGET = re.compile(r"rtx(:sm\d{2,3}(\+sm\d{2,3})*)?")
_AMPERE, _TURING = 80, 75


class _Builder:
    """What both packages have in common."""

    name: str
    forms: str

    def compute_capabilities(self, target: str) -> tuple[int, ...]:
        """The devices that a target stands for."""
        raise NotImplementedError

    def configure(self, handle: trt.Handle, config: Any, target: str) -> None:
        """Tell the builder's configuration what only this package knows."""

    def availability(self, target: str) -> Availability:
        """Whether this machine can build for a target; if not, why and how to go on."""
        return trt.availability(self.name)

    def fingerprint(self, target: str) -> tuple[str, ...]:
        """Package, version and compute capabilities."""
        capabilities = self.compute_capabilities(target)
        return self.name, trt.load(self.name).version, *map(str, capabilities)

    def refusal(self, request: EngineRequest) -> str | None:
        """Why the target, though available, cannot have this engine; or None."""
        oldest = min(self.compute_capabilities(request.target))
        if request.precision is Precision.BF16 and oldest < _AMPERE:
            return f"sm{oldest} has no bf16; build fp16"
        return None

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
        with _translated(handle, request):
            plan, bindings, layers = self._plan(handle, request, progress)
        capabilities = self.compute_capabilities(request.target)
        return Engine(plan, self.name, handle.version, capabilities, bindings, layers)

    def _plan(
        self, handle: trt.Handle, request: EngineRequest, progress: Progress | None
    ) -> tuple[bytes, tuple[Binding, ...], tuple[str, ...]]:
        module = handle.module
        parsed = network.parse(handle, request.graph)
        products.check(parsed, request.stage.layers, request.precision, request.kept)
        bindings = _bindings(parsed, request)
        config = parsed.builder.create_builder_config()
        # A TF32 product keeps 10 bits of its operands: that is not fp32.
        config.clear_flag(module.BuilderFlag.TF32)
        self.configure(handle, config, request.target)
        for batches in request.options.profiles:
            config.add_optimization_profile(_profile(parsed.builder, bindings, batches))
        monitor = None if progress is None else trt.progress_monitor(module, progress)
        if monitor is not None:
            config.progress_monitor = monitor
        plan = parsed.builder.build_serialized_network(parsed.network, config)
        if monitor is not None and monitor.raised is not None:
            raise monitor.raised
        if plan is None:
            raise RuntimeError("the builder returned no plan")
        return bytes(plan), bindings, network.layer_list(parsed)


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
            remedy="on a machine with that GPU: tiedexport build model.pt --target tensorrt",
        )

    def refusal(self, request: EngineRequest) -> str | None:
        """Turing gets fp16 engines only."""
        oldest = min(self.compute_capabilities(request.target))
        if oldest < _AMPERE and request.precision is not Precision.FP16:
            return f"TensorRT-RTX builds no {request.precision} engines for sm{oldest}; build fp16"
        return None

    def configure(self, handle: trt.Handle, config: Any, target: str) -> None:
        """Set the devices, and memory that is planned ahead: a CUDA graph cannot allocate."""
        module, capabilities = handle.module, self.compute_capabilities(target)
        config.num_compute_capabilities = len(capabilities)
        for index, number in enumerate(capabilities):
            capability = getattr(module.ComputeCapability, f"SM{number}")
            if not config.set_compute_capability(capability, index):
                raise RuntimeError(f"compute capability sm{number} was refused")
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
        """Whether the package, a driver and a device are here."""
        driver = trt.driver()
        if driver.available:
            return super().availability(target)
        remedy = "without a GPU, build TensorRT-RTX engines: tiedexport build model.pt --target rtx"
        return Availability(False, reason=driver.reason, remedy=remedy)


def _bindings(parsed: network.Parsed, request: EngineRequest) -> tuple[Binding, ...]:
    """Inputs and weights, then outputs, as the network declares them."""
    tensors = (*parsed.inputs, *parsed.outputs)
    roles = {spec.name: "input" for spec in request.stage.inputs}
    roles |= {spec.name: "output" for spec in request.stage.outputs}
    needed = set(roles)
    if request.weights == "shared":
        roles |= dict.fromkeys(request.weight_names, "weight")
        needed |= {n for layer in request.stage.layers for n in (layer.weight, layer.bias) if n}
    names = {tensor.name for tensor in tensors}
    if missing := needed - names:
        raise RuntimeError(f"the network does not take or give {', '.join(sorted(missing))}")
    if unknown := names - roles.keys():
        raise RuntimeError(f"the network has undeclared {', '.join(sorted(unknown))}")
    return tuple(
        Binding(
            tensor.name,
            roles[tensor.name],
            parsed.handle.precision(tensor.dtype),
            tuple(tensor.shape),
        )
        for tensor in tensors
    )


def _profile(builder: Any, bindings: tuple[Binding, ...], batches: tuple[int, int, int]) -> Any:
    """Batch sizes for the data inputs; weights keep the one shape they have."""
    profile = builder.create_optimization_profile()
    for binding in bindings:
        if binding.role == "input":
            shapes = [(batch, *binding.shape[1:]) for batch in batches]
            profile.set_shape(binding.name, *shapes)
    return profile


@contextmanager
def _translated(handle: trt.Handle, request: EngineRequest) -> Iterator[None]:
    """TensorRT's exceptions and logged errors → ours, with the graph that they are about."""
    with handle.errors() as logged:
        try:
            yield
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            baked = "try --weights baked, or another --precision for this target"
            raise RuntimeFailedError(
                f"{handle.package} {handle.version} cannot build this engine",
                where=_where(request),
                got="; ".join(dict.fromkeys([str(error), *logged])),
                hint=baked if request.weights == "shared" else "try another --precision",
            ) from error


def _where(request: EngineRequest) -> str:
    graph = "" if isinstance(request.graph, bytes) else f" from {request.graph.name}"
    return f"{request.stage.name} in {request.precision} for {request.target}{graph}"


BUILDERS: tuple[EngineBuilder, ...] = (TensorRTRTXBuilder(), TensorRTBuilder())
