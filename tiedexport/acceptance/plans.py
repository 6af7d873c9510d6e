"""TensorRT plans as contenders: the kernels of a stage, without the copies of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiedexport import trt
from tiedexport.acceptance.builds import TRTEXEC, TWO_PLANS
from tiedexport.acceptance.device_contender import Bound
from tiedexport.device import Execution, Gpu
from tiedexport.runtimes.tensorrt import load_engine, upload

if TYPE_CHECKING:
    from tiedexport.acceptance.cuda import Cuda
    from tiedexport.acceptance.job import Built
    from tiedexport.spec import StageSpec


class Plans:
    """The plans of one package, way and precision.

    Args:
        cuda: whose stream they run on.
        built: what to load. In trtexec's way there is no plan of the autoencoder: the encoder's and
            the decoder's run one after the other.

    Raises:
        RuntimeFailedError: a plan could not be loaded.
    """

    def __init__(self, cuda: Cuda, built: Built) -> None:
        self._cuda, bundle = cuda, built.bundle
        self._two_plans = built.way == TRTEXEC
        self._stages = {stage.name: stage for stage in bundle.manifest.stages}
        gpu = Gpu(trt.load(built.package))
        with gpu.translated(bundle.path):
            weights = upload(gpu, bundle, built.precision) if built.way == "shared" else None
            self._engines = {
                plan.stage: load_engine(gpu, bundle, plan, weights)
                for plan in bundle.manifest.plans
            }

    def bind(self, stage: StageSpec, x: np.ndarray, graph: bool) -> Bound:
        """Run once, so that kernels are loaded and every input is on the device; then capture."""
        executions: list[Execution] = []
        value = x
        parts = [self._stages[name] for name in TWO_PLANS] if self._splits(stage) else [stage]
        for part in parts:
            # One plan of two halves serves every stage.
            engine = self._engines.get(part.name) or self._engines["autoencoder"]
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

    def _splits(self, stage: StageSpec) -> bool:
        return self._two_plans and stage.name not in TWO_PLANS


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
