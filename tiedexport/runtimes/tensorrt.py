"""TensorRT and TensorRT-RTX on an NVIDIA GPU: the bundle's plans, run through cuda.core.

A weight is on the device once: every stage, context and session of the process binds the same
buffer.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import trt
from tiedexport.device import DeviceWeights, Engine, Execution, Gpu
from tiedexport.errors import MissingRuntimeError
from tiedexport.results import Availability
from tiedexport.runtimes import bind_by_running
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle
    from tiedexport.manifest import PlanRecord
    from tiedexport.runtimes import Options
    from tiedexport.spec import StageSpec

_log = logging.getLogger(__name__)


class _TensorRT:
    slow, packs = False, False
    remark = ""
    precisions = (Precision.FP16, Precision.BF16, Precision.FP32)

    def __init__(self, name: str, rank: int) -> None:
        self.name, self.rank = name, rank
        # TensorRT promises no wider sums than the type of a strongly typed product.
        self.accumulation = {precision: precision for precision in Precision}

    def availability(self) -> Availability:
        if find_spec(self.name) is None:
            return trt.availability(self.name)
        if find_spec("cuda") is None or find_spec("cuda.core") is None:
            return Availability(
                False, reason="cuda-core is not installed", remedy=trt.REMEDIES[self.name]
            )
        driver = trt.driver()
        return trt.availability(self.name) if driver.available else driver

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        plans = self._fitting_plans(bundle, precision)
        return plans if isinstance(plans, str) else None

    def hidden_copies(self, bundle: Bundle, precision: Precision) -> str | None:
        return None

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> _Backend:
        # Without a driver, TensorRT's runtime is an invalid pointer: ask before it is made.
        availability = self.availability()
        plans = self._fitting_plans(bundle, precision) if availability.available else None
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

    def _fitting_plans(self, bundle: Bundle, precision: Precision) -> dict[str, PlanRecord] | str:
        """For each stage a plan that this device and package can run, or why there is none."""
        device = trt.device()
        if device is None:
            return trt.driver().reason
        chosen = {}
        for stage in bundle.manifest.stages:
            plans = [
                plan
                for plan in bundle.manifest.plans
                if (plan.package, plan.stage, plan.precision) == (self.name, stage.name, precision)
            ]
            if not plans:
                return (
                    f"the bundle has no {self.name} plan of its {stage.name} in {precision}: "
                    f"tiedexport build model.pt --precision {precision} "
                    f"--target {_target(self.name, device)}"
                )
            if (reason := self._misfit(plans, device)) is not None:
                return reason
            current = [plan for plan in plans if self._misfit([plan], device) is None]
            chosen[stage.name] = min(current, key=lambda plan: plan.weights != "shared")
        return chosen

    def _misfit(self, plans: list[PlanRecord], device: trt.Device) -> str | None:
        """Why none of these plans runs here; or None."""
        again = f"tiedexport build model.pt --target {_target(self.name, device)}"
        fitting = [p for p in plans if device.compute_capability in p.compute_capabilities]
        if not fitting:
            built = sorted({number for plan in plans for number in plan.compute_capabilities})
            names = ", ".join(f"sm{number}" for number in built)
            here = f"{device.name} is sm{device.compute_capability}"
            return f"the plans are for {names}, {here}: {again}"
        version, versions = trt.load(self.name).version, {p.package_version for p in fitting}
        if version not in versions:
            wanted, package = max(versions), self.name.replace("_", "-")
            return (
                f"the plans need {package} {wanted}, here is {version}: "
                f"pip install {package}=={wanted}, or {again}"
            )
        return None


class _Backend:
    """Engines of every stage; one execution a stage for `run`, and one for each `bind`."""

    def __init__(
        self, gpu: Gpu, bundle: Bundle, precision: Precision, plans: dict[str, PlanRecord]
    ) -> None:
        self._engines: dict[str, Engine] = {}
        self._running: dict[str, Execution] = {}
        self._bound: weakref.WeakSet[Execution] = weakref.WeakSet()
        self._gpu = gpu
        try:
            with gpu.translated(bundle.path):
                shared = any(plan.weights == "shared" for plan in plans.values())
                weights = _upload(gpu, bundle, precision) if shared else None
                for stage, plan in plans.items():
                    serialised = (bundle.path / plan.file).read_bytes()
                    self._engines[stage] = Engine(gpu, plan, serialised, weights)
                    self._running[stage] = Execution(self._engines[stage], plan.profiles[0][2])
        except BaseException:
            self.close()
            raise

    def run(self, stage: StageSpec, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        execution = self._running[stage.name]
        if out is None:
            spec = stage.outputs[0]
            out = np.empty((len(x), *spec.element_shape), spec.dtype.dtype)
        for begin in range(0, len(x), execution.capacity):
            rows = slice(begin, begin + execution.capacity)
            execution(x[rows], out[rows])
        return out

    def bind(self, stage: StageSpec, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        engine = self._engines[stage.name]
        largest = engine.plan.profiles[0][2]
        if not 1 <= len(x) <= largest:
            _log.warning(
                "%s runs a batch of %d without a CUDA graph: its profile ends at %d",
                engine.plan.file,
                len(x),
                largest,
            )
            return bind_by_running(self, stage, x, out)
        with self._gpu.translated(engine.plan.file):
            execution = Execution(engine, len(x), specialise=True)
        self._bound.add(execution)
        execution.capture(len(x))
        return lambda: execution(x, out)

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # each is closed, even after another's failure
            closing.callback(self._engines.clear)
            closing.callback(self._running.clear)
            for execution in (*self._running.values(), *self._bound):
                closing.callback(execution.close)


def _upload(gpu: Gpu, bundle: Bundle, precision: Precision) -> DeviceWeights:
    sha256 = bundle.manifest.files[bundle.manifest.weights[precision]].sha256
    return DeviceWeights.of(gpu, bundle.weights_path(precision), sha256, bundle.weights(precision))


def _target(package: str, device: trt.Device) -> str:
    return package if package == "tensorrt" else f"rtx:sm{device.compute_capability}"


RUNTIMES = (_TensorRT("tensorrt", 10), _TensorRT("tensorrt_rtx", 15))
