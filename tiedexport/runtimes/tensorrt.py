"""TensorRT and TensorRT-RTX on an NVIDIA GPU: the bundle's plans, run through cuda.core.

A weight is on the device once: every stage, context and session of the process binds the same
buffer.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import weakref
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import trt
from tiedexport.device import DeviceWeights, Engine, Execution, Gpu
from tiedexport.errors import MissingRuntimeError
from tiedexport.results import Availability
from tiedexport.runtimes import Runtime, bind_by_running
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tiedexport.bundle import Bundle
    from tiedexport.manifest import PlanRecord
    from tiedexport.runtimes import Options
    from tiedexport.spec import StageSpec

_log = logging.getLogger(__name__)

_PREFERENCE = ("shared", "one-plan", "baked")
"""Fewest copies of a weight on the device first."""

_AMPERE = 80


class _TensorRT(Runtime):
    precisions = (Precision.FP16, Precision.BF16, Precision.FP32)
    on_gpu = True

    def __init__(self, name: str, rank: int) -> None:
        self.name, self.rank = name, rank
        # TensorRT promises no wider sums than the type of a strongly typed product.
        self.accumulation = {precision: precision for precision in Precision}

    def availability(self) -> Availability:
        if find_spec(self.name) is None:
            return trt.availability(self.name)
        if find_spec("cuda") is None or find_spec("cuda.core") is None:
            return Availability(
                False,
                reason="cuda-core is not installed, through which plans reach the device",
                remedy=trt.REMEDIES[self.name],
            )
        driver = trt.driver_for(self.name)
        return trt.availability(self.name) if driver.available else driver

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        plans = self.fitting_plans(bundle, precision)
        return plans if isinstance(plans, str) else None

    def hidden_copies(self, bundle: Bundle, precision: Precision) -> str | None:
        return None

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> _Backend:
        # Without a driver, TensorRT's runtime is an invalid pointer: ask before it is made.
        availability = self.availability()
        plans = self.fitting_plans(bundle, precision) if availability.available else None
        if not isinstance(plans, dict):
            raise MissingRuntimeError(
                f"{self.name} cannot run",
                where=bundle.path,
                got=plans or availability.reason,
                hint=availability.remedy or "tiedexport doctor",
            )
        return _Backend(Gpu(trt.load(self.name)), bundle, precision, plans)

    def layers(
        self, bundle: Bundle, precision: Precision, stage: StageSpec, x: np.ndarray
    ) -> dict[str, np.ndarray] | str:
        return "an engine computes several layers in one kernel; tensorrt_network shows them"

    def fitting_plans(self, bundle: Bundle, precision: Precision) -> dict[str, PlanRecord] | str:
        """For each stage a plan that this device and package can run, or why there is none."""
        device = trt.device()
        if device is None:
            return trt.driver().reason
        again = f"tiedexport build {shlex.quote(str(bundle.path))} --target "
        again += self.name if self.name == "tensorrt" else f"rtx:sm{device.compute_capability}"
        chosen = {}
        for stage in bundle.manifest.stages:
            plans = [
                plan
                for plan in bundle.manifest.plans
                if (plan.package, plan.precision) == (self.name, precision)
                and plan.weights in _PREFERENCE
                and (plan.stage == stage.name or plan.weights == "one-plan")
            ]
            if not plans:
                return (
                    f"the bundle has no {self.name} plan of its {stage.name} in {precision}: "
                    f"{again} --precision {precision}"
                )
            if (reason := self._misfit(plans, device, again)) is not None:
                return reason
            current = [plan for plan in plans if not self._misfit([plan], device, again)]
            chosen[stage.name] = min(current, key=lambda plan: _PREFERENCE.index(plan.weights))
        return chosen

    def _misfit(self, plans: list[PlanRecord], device: trt.Device, again: str) -> str | None:
        """Why none of these plans runs here, with the command that builds one; or None."""
        fitting = [plan for plan in plans if _serves(plan, device)]
        if not fitting:
            built = sorted({number for plan in plans for number in plan.compute_capabilities})
            names = ", ".join(f"sm{number}" for number in built)
            here = f"{device.name} is sm{device.compute_capability}"
            return f"the plans are for {names}, {here}: {again}"
        version, versions = trt.load(self.name).version, {p.package_version for p in fitting}
        fitting = [plan for plan in fitting if _readable(plan, version)]
        if not fitting:
            wanted, package = max(versions, key=_numbers), self.name.replace("_", "-")
            return (
                f"the plans need {package} {wanted}, here is {version}: "
                f"pip install {package}=={wanted}, or {again}"
            )
        if all(plan.options.strip_weights for plan in fitting):
            return (
                "the plans were built with --stripWeights and hold no weights, and sessions do not "
                f"refit plans: without that option, {again}; --weights shared makes small plans too"
            )
        return None


class _Backend:
    """Engines of every plan; one execution a stage for `run`, and one for each `bind`."""

    def __init__(
        self, gpu: Gpu, bundle: Bundle, precision: Precision, plans: dict[str, PlanRecord]
    ) -> None:
        self._engines: dict[str, Engine] = {}
        self._running: dict[str, Execution] = {}
        self._bound: weakref.WeakSet[Execution] = weakref.WeakSet()
        self._gpu = gpu
        try:
            with gpu.translated(bundle.path):
                self._engines |= load_engines(gpu, bundle, precision, plans)
                for stage, engine in self._engines.items():
                    self._running[stage] = Execution(engine, bundle.manifest.stage(stage))
        except BaseException:
            self.close()
            raise

    def run(self, stage: StageSpec, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        execution, largest = self._running[stage.name], self._engines[stage.name].largest
        if out is None:
            spec = stage.outputs[0]
            out = np.empty((len(x), *spec.element_shape), spec.dtype.dtype)
        for begin in range(0, len(x), largest):
            rows = slice(begin, begin + largest)
            execution(x[rows], out[rows])
        return out

    def bind(self, stage: StageSpec, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        engine = self._engines[stage.name]
        if len(x) > engine.largest:
            _log.warning(
                "%s runs a batch of %d without a CUDA graph: its largest profile ends at %d",
                engine.plan.file,
                len(x),
                engine.largest,
            )
            return bind_by_running(self, stage, x, out)
        with self._gpu.translated(engine.plan.file):
            execution = Execution(engine, stage, rows=len(x))
        self._bound.add(execution)
        execution.capture(len(x))
        return lambda: execution(x, out)

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # each is closed, even after another's failure
            closing.callback(self._engines.clear)
            closing.callback(self._running.clear)
            for execution in (*self._running.values(), *self._bound):
                closing.callback(execution.close)


def upload(gpu: Gpu, bundle: Bundle, precision: Precision) -> DeviceWeights:
    """The weights of a bundle on the device, the same for all who ask."""
    sha256 = bundle.manifest.files[bundle.manifest.weights[precision]].sha256
    return DeviceWeights.of(gpu, bundle.weights_path(precision), sha256, bundle.weights(precision))


def load_engines(
    gpu: Gpu, bundle: Bundle, precision: Precision, plans: Mapping[str, PlanRecord]
) -> dict[str, Engine]:
    """Stage → its engine, for a plan of each; one engine where they have one plan."""
    shared = any(plan.weights == "shared" for plan in plans.values())
    weights = upload(gpu, bundle, precision) if shared else None
    loaded: dict[str, Engine] = {}  # a plan of two halves serves every stage
    for plan in plans.values():
        if plan.file not in loaded:
            loaded[plan.file] = load_engine(gpu, bundle, plan, weights)
    return {stage: loaded[plan.file] for stage, plan in plans.items()}


def load_engine(
    gpu: Gpu, bundle: Bundle, plan: PlanRecord, weights: DeviceWeights | None
) -> Engine:
    """A plan of a bundle, ready to run; `weights` are for plans that hold none."""
    if plan.options.weight_streaming:
        # How little memory is worth how much time is the user's to say, and no option asks yet.
        _log.warning("%s could stream its weights; TensorRT's own budget is kept", plan.file)
    serialised = (bundle.path / plan.file).read_bytes()
    return Engine(gpu, plan, serialised, weights if plan.weights == "shared" else None)


def _serves(plan: PlanRecord, device: trt.Device) -> bool:
    """Whether a plan was built for devices of this kind."""
    number = device.compute_capability
    if plan.options.hardware_compatibility == "ampere+" and number >= _AMPERE:
        return True
    return number in plan.compute_capabilities


def _readable(plan: PlanRecord, version: str) -> bool:
    """Whether a package of this version reads a plan: its own, or one made to last its major."""
    built, here = _numbers(plan.package_version), _numbers(version)
    lasting = plan.options.version_compatible and built[:1] == here[:1] and built <= here
    return plan.package_version == version or lasting


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


RUNTIMES = (_TensorRT("tensorrt", 10), _TensorRT("tensorrt_rtx", 15))
