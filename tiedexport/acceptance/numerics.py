"""Section 3: every plan against the golden outputs, by stage, batch size and way of calling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiedexport.acceptance.job import bound_on, each_package, worst_in_bounds
from tiedexport.contender import golden_inputs
from tiedexport.results.acceptance import Check, Finding
from tiedexport.runtimes import runtime_named
from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.acceptance.job import Built, Job
    from tiedexport.rounding import Bounded
    from tiedexport.session import Session
    from tiedexport.spec import StageSpec

BATCHES = (1, 8, 256)


def run(job: Job) -> Iterator[Finding]:
    """A row for every plan and stage that was built, with the worst error in units of its bound."""

    def every_plan(package: str) -> Iterator[Check]:
        for built in job.built:
            if built.package == package:
                job.progress.say(built.name)
                yield from _examined(built)

    yield from each_package(job, "every plan", every_plan)


def _examined(built: Built) -> Iterator[Check]:
    accumulation = runtime_named(built.package).accumulation[built.precision]
    stages = built.bundle.manifest.stages
    with open_session(built.bundle, runtime=built.package, precision=built.precision) as session:
        for stage in stages:
            bounded = bound_on(built.bundle, stage, built.precision, accumulation)
            yield _stage(built, session, stage, bounded)


def _stage(built: Built, session: Session, stage: StageSpec, bounded: Bounded) -> Check:
    largest = max(profile[2] for plan in built.bundle.manifest.plans for profile in plan.profiles)
    worst, beyond = 0.0, ""
    for batch in (*BATCHES, largest + BATCHES[1]):
        x = golden_inputs(built.bundle, stage, batch)
        for way, output in _both_ways(session, stage, x):
            ratio = worst_in_bounds(output, bounded)
            if not ratio <= 1.0 and not beyond:
                beyond = f"batch {batch} by {way}: error {ratio:.3g} times its bound"
            worst = max(worst, ratio)
    figures = {"error_in_bounds": worst, "largest_batch": largest + BATCHES[1]}
    what = f"{built.name}: {stage.name}"
    return Check(what, "failed" if beyond else "passed", beyond, figures)


def _both_ways(
    session: Session, stage: StageSpec, x: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """What `run` gives, and what a bound call leaves the second time."""
    output = session.run(stage.name, x)
    yield "run", output
    left = np.full_like(output, np.nan)
    call = session.bind(stage.name, x, left)
    call()
    left[...] = np.nan
    call()
    yield "bind", left
