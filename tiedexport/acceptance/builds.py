"""Section 2: engines of every package, mode and precision that this machine can build."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tiedexport import engines, trt
from tiedexport.acceptance import models
from tiedexport.acceptance.job import PACKAGES, Built, reporting, view
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.engine_options import EngineOptions
from tiedexport.results.acceptance import Check, Finding, Note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tiedexport.acceptance.job import Job
    from tiedexport.engine_words import Weights
    from tiedexport.results import EngineOutcome

MODES: tuple[Weights, ...] = ("shared", "baked", "one-plan")
TRTEXEC = "trtexec's way"
TWO_PLANS = ("encoder", "decoder")
FEW_ROWS = EngineOptions(profiles=((1, 2, 8),))
"""So that buffers for data stay small beside a weight."""

_WITHOUT_A_DEVICE = "rtx:sm89"
"""What TensorRT-RTX is asked to build for where there is no GPU to build for."""


def run(job: Job) -> Iterator[Finding]:
    """A row for each package, mode and precision; the plans stay for the other sections."""
    for package in PACKAGES:
        target = target_of(package)
        found = engines.builder_for(target).availability(target)
        if found.available:
            for mode in MODES:
                yield from reporting(f"{package} {mode}", _mode(job, package, mode))
            yield from reporting(f"{package} {TRTEXEC}", _trtexecs_way(job, package))
        elif trt.availability(package).available and trt.device() is not None:
            yield Note(f"{package}: {found.reason}")  # no machine with this device could
        else:
            yield Check(f"{package}: every engine", "not run", found.why)


def target_of(package: str) -> str:
    """What to ask a package to build for: the device of this machine, if it has one."""
    device = trt.device()
    if package == "tensorrt":
        return package
    return _WITHOUT_A_DEVICE if device is None else f"rtx:sm{device.compute_capability}"


def made(job: Job, name: str, precision: str) -> Path:
    """A bundle without engines of the "small" or the "large" model, made once.

    Raises:
        MissingRuntimeError: torch, which makes it, is not installed.
    """
    path = job.folder / f"{name}-{precision.replace(',', '-')}.tied"
    if not path.exists():
        models.require_torch()
        from tiedexport import export

        job.progress.say(f"the {name} model in {precision}")
        checkpoint = job.folder / f"{name}.pt"
        if not checkpoint.exists():
            widths = models.LARGE_WIDTHS if name == "large" else models.SMALL_WIDTHS
            models.write(checkpoint, widths)
        export.build(checkpoint, path, precision=precision, target=())
    return path


def with_engines(
    job: Job,
    origin: Path,
    package: str,
    mode: Weights,
    options: EngineOptions | None = None,
    target: str = "",
) -> tuple[Bundle, Sequence[EngineOutcome]]:
    """A copy of a bundle with new engines of one package and mode, and what became of each.

    The manifest that it gives knows of no other plans.
    """
    target = target or target_of(package)
    path = job.folder / f"{origin.stem}-{target.replace(':', '-')}-{mode}.tied"
    if path in job.made:
        return job.made[path]
    from tiedexport import export  # late: without torch it can still add engines to a bundle

    job.progress.say(f"{target} {mode} engines of {origin.stem}")
    shutil.copytree(origin, path)
    result = export.build(
        path, target=(target,), weights=mode, engine_options=options or EngineOptions(), force=True
    )
    bundle = open_bundle(path)
    plans = tuple(p for p in bundle.manifest.plans if (p.target, p.weights) == (target, mode))
    job.made[path] = view(bundle, plans=plans), result.engines
    return job.made[path]


def _mode(job: Job, package: str, mode: Weights) -> Iterator[Finding]:
    for origin in origins(job):
        bundle, outcomes = with_engines(job, origin, package, mode)
        yield from _registered(job, f"{package} {mode}", package, mode, bundle, outcomes)


def _trtexecs_way(job: Job, package: str) -> Iterator[Finding]:
    """As with trtexec: the encoder's graph and the decoder's, each with weights of its own."""
    origin = job.folder / "untied.tied"
    if not origin.exists():
        models.require_torch()
        from tiedexport import export

        checkpoint = models.write_untied(job.folder / "untied.pt", open_bundle(origins(job)[0]))
        export.build(checkpoint, origin, precision="fp32,fp16", target=())
    bundle, outcomes = with_engines(job, origin, package, "baked")
    plans = tuple(plan for plan in bundle.manifest.plans if plan.stage in TWO_PLANS)
    outcomes = [outcome for outcome in outcomes if outcome.stage in TWO_PLANS]
    found = view(bundle, plans=plans)
    yield from _registered(job, f"{package} {TRTEXEC}", package, TRTEXEC, found, outcomes)


def _registered(
    job: Job,
    what: str,
    package: str,
    way: str,
    bundle: Bundle,
    outcomes: Sequence[EngineOutcome],
) -> Iterator[Finding]:
    """Keep what was built for the other sections, and tell of each precision."""
    for precision in dict.fromkeys(outcome.precision for outcome in outcomes):
        here = [outcome for outcome in outcomes if outcome.precision == precision]
        bad = next((outcome for outcome in here if outcome.status == "failed"), None)
        refused = next((outcome for outcome in here if outcome.status == "not run"), None)
        if precision is None or bad is not None:
            yield Check(f"{what} {precision or ''}", "failed", bad.reason if bad else "no engine")
        elif refused is not None:  # the target has no such engine, whatever the machine
            yield Note(f"{what} {precision}: {refused.reason}")
        else:
            manifest = bundle.manifest
            plans = tuple(plan for plan in manifest.plans if plan.precision == precision)
            built = {plan.stage for plan in plans}
            halves = any(plan.weights == "one-plan" for plan in plans)
            stages = tuple(s for s in manifest.stages if halves or s.name in built)
            found = view(bundle, plans=plans, stages=stages)
            job.built.append(Built(package, way, precision, found))
            figures = {
                "plans": len(plans),
                "plan_bytes": sum(outcome.size_bytes for outcome in here),
                "parameter_bytes": manifest.parameter_count * precision.itemsize,
                "build_s": sum(outcome.seconds for outcome in here),
            }
            yield Check(f"{what} {precision}", "passed", "", figures)


def origins(job: Job) -> tuple[Path, ...]:
    """Bundles without engines: engines in fp32 come from one that holds no other precision."""
    if job.given is not None:
        return (job.given,)
    return made(job, "small", "fp32,fp16,bf16"), made(job, "small", "fp32")
