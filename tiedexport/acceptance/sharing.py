"""Section 5: one copy of a weight on the device, and every stage reads that one."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

from tiedexport.acceptance import builds, models
from tiedexport.acceptance.job import (
    bound_on,
    each_package,
    reporting,
    view,
    worst_in_bounds,
)
from tiedexport.contender import golden_inputs
from tiedexport.errors import MissingRuntimeError
from tiedexport.results.acceptance import Check, Finding
from tiedexport.runtimes import runtime_named
from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    from tiedexport.acceptance.job import Built, Job
    from tiedexport.bundle import Bundle

_MOST_BESIDE, _LEAST_OF_A_COPY = 0.25, 0.75
"""In units of |W|: contexts and kernels of three engines are far less, a second copy far more."""


def run(job: Job) -> Iterator[Finding]:
    """Growth of the memory used by 1, 2 and 3 engines, and the effect of one rebound weight."""
    job.require_device()

    def both(package: str) -> Iterator[Finding]:
        yield from reporting(f"{package}: memory", _memory(job, package))
        yield from reporting(f"{package}: one weight rebound", _rebinding(job, package))

    yield from each_package(job, "sharing", both)


def _memory(job: Job, package: str) -> Iterator[Check]:
    """Shared engines need one W together; baked ones one each, which shows that it can be seen."""
    origin = builds.made(job, "large", "fp16")
    weight_bytes = models.large_bytes()
    for mode in builds.MODES:
        bundle, outcomes = builds.with_engines(job, origin, package, mode, builds.FEW_ROWS)
        if reasons := [row.reason for row in outcomes if row.status != "passed"]:
            yield Check(f"{package} {mode}: memory", "failed", reasons[0])
            continue
        grown = [used / weight_bytes for used in _growth(job, package, bundle, mode)]
        yield judged_growth(f"{package} {mode}: memory", mode, grown)


def judged_growth(what: str, mode: str, grown: list[float]) -> Check:
    """Whether memory grew as the mode says.

    Args:
        what: of the row.
        mode: "shared": one W for all; "baked": one for each engine; "one-plan": one for the plan.
        grown: what all engines so far take, in units of |W|, after each of them was loaded.
    """
    steps = [after - before for before, after in pairwise([0.0, *grown])]
    more = [step >= _LEAST_OF_A_COPY for step in steps]
    held = steps[0] <= 1 + _MOST_BESIDE and sum(steps[1:]) <= _MOST_BESIDE
    right = all(more) if mode == "baked" else more[0] and held
    expected = "a weight an engine" if mode == "baked" else "one weight for all"
    found = ", ".join(f"{step:.2f}" for step in steps)
    reason = "" if right else f"{expected} expected, grown by {found}"
    names = [f"after_{number}_engines_over_weight" for number in range(1, len(grown) + 1)]
    figures = dict(zip(names, grown, strict=True))
    return Check(what, "passed" if right else "failed", reason, figures)


def _growth(job: Job, package: str, bundle: Bundle, mode: str) -> Iterator[int]:
    """Bytes of the device used more than before, as one engine after another is loaded and run."""
    small = job.plans_of(package, mode)
    stages = bundle.manifest.stages
    # One plan serves all stages: there is but one engine to load.
    parts = [stages] if mode == "one-plan" else [(stage,) for stage in stages]
    with ExitStack() as opened:
        # Libraries and what they allocate once are not what is measured.
        warm = open_session(small.bundle, runtime=package, precision=small.precision)
        opened.enter_context(warm)
        for stage in small.bundle.manifest.stages:
            warm.run(stage.name, golden_inputs(small.bundle, stage, 1))
        gc.collect()
        before, _ = job.cuda.memory_bytes()
        for part in parts:
            session = open_session(view(bundle, stages=part), runtime=package, precision="fp16")
            opened.enter_context(session)
            for stage in part:
                session.run(stage.name, golden_inputs(bundle, stage, 1))
            yield before - job.cuda.memory_bytes()[0]


def _rebinding(job: Job, package: str) -> Iterator[Check]:
    """Halve and negate one tied weight in its buffer: each stage computes the altered model."""
    built = job.plans_of(package, "shared")
    bundle, precision = built.bundle, built.precision
    if not bundle.manifest.ties:
        raise MissingRuntimeError("the model ties no weight", where=bundle.path)
    tie = bundle.manifest.ties[0]
    accumulation = runtime_named(package).accumulation[precision]
    weights = dict(bundle.weights(precision))
    weights[tie.weight] = weights[tie.weight] * weights[tie.weight].dtype.type(-0.5)
    with open_session(bundle, runtime=package, precision=precision) as session:
        inputs = {s.name: golden_inputs(bundle, s, 8) for s in bundle.manifest.stages}
        before = {name: session.run(name, x) for name, x in inputs.items()}
        _replace(built, tie.weight, weights)
        for stage in bundle.manifest.stages:
            bounded = bound_on(bundle, stage, precision, accumulation, weights)
            after = worst_in_bounds(session.run(stage.name, inputs[stage.name]), bounded)
            stale = worst_in_bounds(before[stage.name], bounded)
            reason = ""
            if not after <= 1.0:
                reason = f"{after:.3g} times the bound of the altered model"
            elif stale <= 1.0:
                reason = "the altered model is not told apart from the old one"
            figures = {"error_in_bounds": after, "old_output_in_bounds": stale}
            what = f"{package}: {tie.weight} rebound, {stage.name}"
            yield Check(what, "failed" if reason else "passed", reason, figures)


def _replace(built: Built, name: str, weights: Mapping[str, np.ndarray]) -> None:
    """Put the altered weight into the one buffer that all engines of the bundle are bound to."""
    from tiedexport.device import Engine

    bound = [engine for engine in Engine.alive if engine.plan in built.bundle.manifest.plans]
    resident = {id(engine.weights): engine.weights for engine in bound if engine.weights}
    if len(resident) != 1:
        raise RuntimeError(f"the engines are bound to {len(resident)} sets of weights, not to one")
    next(iter(resident.values())).replace(name, weights[name])
