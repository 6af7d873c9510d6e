"""Which engines a bundle is to have: one job a target, precision and stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from msgspec.structs import replace

from tiedexport import engines
from tiedexport.engine_build import graphs
from tiedexport.engine_options import EngineOptions, effective
from tiedexport.engine_words import Weights
from tiedexport.results import EngineOutcome
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.manifest import PlanRecord
    from tiedexport.results import Status
    from tiedexport.spec import StageSpec

    Tell = Callable[[float, str], None]

_MODES: dict[str, Weights] = {mode: mode for mode in get_args(Weights)}
_USUAL_PHASES = 4


@dataclass(frozen=True)
class Wanted:
    """Which engines to build, and how.

    Attributes:
        targets: as their builders write them, each once.
        precisions: those of the bundle that engines are built in.
        weights: None takes what the standing plans agree in, or else "shared".
        options: None takes what the standing plans agree in, or else the defaults.
        timing_cache: a file that builders read and add to.
        force: build even what stands unchanged.
    """

    targets: tuple[str, ...]
    precisions: tuple[Precision, ...]
    weights: Weights | None = None
    options: EngineOptions | None = None
    timing_cache: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class Job:
    """One engine."""

    target: str
    stage: StageSpec
    precision: Precision
    weights: Weights
    options: EngineOptions

    @property
    def file(self) -> str:
        """Its path in the bundle."""
        return f"plans/{self.target.replace(':', '-')}/{self.stage.name}.{self.precision}.plan"

    @property
    def effective_options(self) -> EngineOptions:
        """What it is really built with."""
        return effective(self.options, self.weights)[0]

    def outcome(self, status: Status, reason: str = "") -> EngineOutcome:
        """A row of the result."""
        return EngineOutcome(self.target, self.stage.name, self.precision, status, reason)


def engine_precisions(precisions: Iterable[Precision]) -> tuple[Precision, ...]:
    """Engines are built in the half precisions of a bundle, in fp32 only where it has no other."""
    precisions = tuple(precisions)
    half = tuple(p for p in precisions if p is not Precision.FP32)
    return half or precisions


def telling(options: EngineOptions) -> EngineOptions:
    """What of the options a plan depends on: nothing insists where no batch is 1 alone."""
    insists = options.exact_profiles and (1, 1, 1) in options.profiles
    return replace(options, exact_profiles=insists)


def jobs_for(target: str, draft: Bundle, standing: Bundle | None, wanted: Wanted) -> Iterator[Job]:
    """The engines of one target; what was not asked for is as in the plans that stand."""
    plans = plans_that_stand(standing)
    for precision in wanted.precisions:
        weights = wanted.weights or weights_that_stand(plans, target, precision)
        options = wanted.options or _options_that_stand(plans, target, precision, weights)
        for stage in graphs.stages(draft.manifest, weights):
            yield Job(target, stage, precision, weights, options)


def plans_that_stand(standing: Bundle | None) -> tuple[PlanRecord, ...]:
    """Those of the bundle that is replaced, if there is one."""
    return () if standing is None else standing.manifest.plans


def weights_that_stand(plans: Iterable[PlanRecord], target: str, precision: Precision) -> Weights:
    """How engines take their weights where nobody says: as the nearest plans, or else shared."""
    near = _nearest(plans, target, precision)
    modes = {plan.weights for plan in near}
    return _MODES.get(modes.pop(), "shared") if len(modes) == 1 else "shared"


def _options_that_stand(
    plans: Iterable[PlanRecord], target: str, precision: Precision, weights: Weights
) -> EngineOptions:
    """What the nearest plans agree in; of options told to another package, the batches alone."""
    near = _nearest([p for p in plans if p.weights == weights], target, precision)
    if not near or any(plan.options != near[0].options for plan in near):
        return EngineOptions()
    options, package = near[0].options, engines.builder_for(target).name
    if all(plan.package == package for plan in near):
        return options
    return EngineOptions(profiles=options.profiles, exact_profiles=options.exact_profiles)


def _nearest(
    plans: Iterable[PlanRecord], target: str, precision: Precision
) -> Sequence[PlanRecord]:
    """The plans of a target and precision; without any, those of the target; without, all."""
    plans = tuple(plans)
    own = [plan for plan in plans if plan.target == target]
    return [plan for plan in own if plan.precision is precision] or own or plans


class Steps:
    """Shows how far an engine is.

    How many phases a builder goes through is known to nobody: each fills a part of what is left.
    """

    def __init__(self, tell: Tell, before: int, job: Job) -> None:
        self._tell, self._before = tell, before
        self._what = f"{job.stage.name} {job.precision} for {job.target}"
        self._shares: dict[str, float] = {}

    def __call__(self, phase: str, done: int, steps: int) -> None:
        """Take a step of a phase into account."""
        self._shares[phase] = max(self._shares.get(phase, 0.0), done / max(steps, 1))
        part = 1.0 - 2.0 ** (-sum(self._shares.values()) / _USUAL_PHASES)
        self._tell(self._before + part, f"{self._what}: {phase}")
