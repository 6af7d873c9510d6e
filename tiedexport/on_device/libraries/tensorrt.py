"""TensorRT plans on a stream of ours: the kernels of a stage, without the copies of a session."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import trt
from tiedexport.device import Execution, Gpu
from tiedexport.errors import MissingRuntimeError
from tiedexport.on_device.work import Bound
from tiedexport.runtimes.tensorrt import RUNTIMES, load_engines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tiedexport.bundle import Bundle
    from tiedexport.device import Engine
    from tiedexport.manifest import PlanRecord
    from tiedexport.on_device.cuda import Cuda
    from tiedexport.runtimes import Memory
    from tiedexport.spec import Precision, StageSpec

_HALVES = ("encoder", "decoder")


class Plans:
    """Plans of one package and precision.

    Args:
        cuda: whose stream they run on.
        package: "tensorrt" or "tensorrt_rtx".
        bundle: which holds them.
        precision: of all of them.
        plans: stage → its plan. The autoencoder may have none: then the encoder's and the decoder's
            run one after the other.

    Raises:
        RuntimeFailedError: a plan could not be loaded.
    """

    def __init__(
        self,
        cuda: Cuda,
        package: str,
        bundle: Bundle,
        precision: Precision,
        plans: Mapping[str, PlanRecord],
    ) -> None:
        self._cuda = cuda
        self._stages = {stage.name: stage for stage in bundle.manifest.stages}
        gpu = Gpu(trt.load(package))
        with gpu.translated(bundle.path):
            self._engines = load_engines(gpu, bundle, precision, plans)

    def bind(self, stage: StageSpec, x: np.ndarray, graph: bool) -> Bound:
        """Run once, so that kernels are loaded and every input is on the device; then capture.

        Raises:
            MissingRuntimeError: a plan takes no such batch at once.
        """
        executions: list[Execution] = []
        value = x
        alone = stage.name in self._engines
        for part in [stage] if alone else [self._stages[name] for name in _HALVES]:
            engine = self._engines[part.name]
            _refuse_more_than_it_takes(engine, len(x))
            executions.append(Execution(engine, part, rows=len(x)))
            spec = part.outputs[0]
            computed = np.empty((len(x), *spec.element_shape), spec.dtype.dtype)
            executions[-1](value, computed)
            value = computed

        def enqueue() -> None:
            for execution in executions:
                execution.compute(self._cuda.stream)

        def output() -> np.ndarray:
            executions[-1].fetch(value)
            return value

        return _captured(self._cuda, Bound(enqueue, output, lambda: _close(executions)), graph)

    def close(self) -> None:
        """Free the engines."""
        self._engines.clear()


def _refuse_more_than_it_takes(engine: Engine, rows: int) -> None:
    if rows > engine.largest:
        raise MissingRuntimeError(
            "a session runs such a batch in several calls of the plan",
            where=engine.plan.file,
            got=f"a batch of {rows}",
            expected=f"{engine.largest} at most, where its largest profile ends",
            hint="tiedexport build --maxShapes",
        )


def _captured(cuda: Cuda, bound: Bound, graph: bool) -> Bound:
    if not graph:
        return bound
    launch, destroy = cuda.capture(bound.enqueue)

    def free() -> None:
        destroy()
        bound.free()

    return Bound(launch, bound.output, free)


def _close(executions: list[Execution]) -> None:
    for execution in executions:
        execution.close()


def _of_a_session(
    package: str, cuda: Cuda, bundle: Bundle, precision: Precision, memory: Memory
) -> Plans:
    """The plans that a session of this package takes; they have one layout for both modes."""
    (row,) = [row for row in RUNTIMES if row.name == package]
    plans = row.fitting_plans(bundle, precision)
    if isinstance(plans, str):
        raise MissingRuntimeError(f"{package} cannot run", where=bundle.path, got=plans)
    return Plans(cuda, package, bundle, precision, plans)


SUBJECTS = {row.name: partial(_of_a_session, row.name) for row in RUNTIMES}
