"""Triton's tensorrt backend: engines that hold their weights.

It runs one engine a model and feeds an engine's inputs from requests alone. An engine that takes
its weights as inputs, as this project's do by default, would have every client send them; so only
those built with `--weights baked` fit, each with weights of its own on the device. Where they shall
be there once, the python backend runs the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport import atomic
from tiedexport.errors import BundleError, UsageError
from tiedexport.package.triton_config import Value, of_stage

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.manifest import PlanRecord
    from tiedexport.package.triton import Options

_BUILD = "tiedexport build NAME.tied --target tensorrt --weights baked"


class Backend:
    """Each instance is an execution context of its model's engine."""

    def __init__(self, bundle: Bundle, options: Options) -> None:
        if options.device != "gpu":
            raise UsageError("engines run on GPUs", got=f"--device {options.device}")
        self._bundle, self._options = bundle, options
        stages = [stage.name for stage in bundle.manifest.stages]
        self._plans = {stage: _chosen(bundle, stage, options) for stage in stages}
        for plan in self._plans.values():
            _refuse_batches(plan, options)

    def config(self, stage: str) -> dict[str, Value]:
        """As the protocol says."""
        return {
            "backend": "tensorrt",
            **of_stage(self._bundle.manifest.stage(stage), self._options.preferred_batch),
        }

    def fill(self, stage: str, version: Path, whole: Path) -> None:
        """As the protocol says."""
        atomic.link(whole / self._plans[stage].file, version / "model.plan")


def _chosen(bundle: Bundle, stage: str, options: Options) -> PlanRecord:
    """The engine of a stage: of the precision that is asked for, or of the first that there is."""
    fitting = [
        plan
        for plan in bundle.manifest.plans
        if (plan.stage, plan.package, plan.weights) == (stage, "tensorrt", "baked")
        and options.precision in (None, plan.precision.value)
    ]
    if not fitting:
        there = {f"{p.weights} {p.precision} of {p.package}" for p in bundle.manifest.plans}
        raise BundleError(
            f"no engine of the {stage} that Triton's tensorrt backend can run",
            where=bundle.path,
            got=", ".join(sorted(there)) or "no engine",
            expected=f"baked {options.precision or 'in any precision'} of tensorrt",
            hint=f"{_BUILD}, or --backend python",
        )
    return fitting[0]


def _refuse_batches(plan: PlanRecord, options: Options) -> None:
    """Refuse what the server could put together and no profile of the engine covers."""
    smallest = min(profile[0] for profile in plan.profiles)
    largest = max(profile[-1] for profile in plan.profiles)
    if smallest > 1 or largest < options.max_batch:
        raise UsageError(
            "the engine does not take every batch that the server may put together",
            where=plan.file,
            got=f"batches of {smallest} to {largest}",
            expected=f"1 to {options.max_batch}",
            hint=f"--max-batch {largest}, or other profiles: {_BUILD} --maxShapes ...",
        )
