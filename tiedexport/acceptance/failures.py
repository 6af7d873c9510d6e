"""Section 7: what cannot work is refused with a message, and the process lives on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tiedexport import trt
from tiedexport.acceptance import builds, models
from tiedexport.acceptance.job import each_package, reporting, view
from tiedexport.contender import golden_inputs
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError
from tiedexport.results.acceptance import Check, Finding, Note
from tiedexport.session import open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.acceptance.job import Built, Job
    from tiedexport.bundle import Bundle

_LEFT_OF_WEIGHT = 4
"""A part of the weight this small is what is left of device memory for a model to be opened in."""


def run(job: Job) -> Iterator[Finding]:
    """For each package whose plans run here: a plan of another device, and no memory left."""
    job.require_device()

    def both(package: str) -> Iterator[Finding]:
        built = next(one for one in job.built if one.package == package)
        yield from reporting(f"{package}: a plan of another device", _other_device(job, built))
        yield from reporting(f"{package}: out of memory", _out_of_memory(job, package))

    yield from each_package(job, "refusals", both)


def _other_device(job: Job, built: Built) -> Iterator[Finding]:
    """Refused for what the manifest says; and, where it lies, by the library itself."""
    package, here = built.package, job.require_device().compute_capability
    known = trt.load(package).compute_capabilities if package == "tensorrt_rtx" else ()
    other = next((number for number in known if number != here), here + 1)
    name = f"{package}: a plan of another device"
    claiming = _claiming(built.bundle, other)
    yield refused(f"{name}, by its manifest", package, built.precision, claiming, f"sm{other}")
    if not known:
        yield Note(f"{package} builds for the device present only: there is no other plan to load")
        return
    origin = builds.made(job, "small", "fp16")
    foreign, _ = builds.with_engines(job, origin, package, "shared", target=f"rtx:sm{other}")
    lying = _claiming(foreign, here)
    yield refused(f"{name}, by the library", package, Precision.FP16, lying, "plan")


def _claiming(bundle: Bundle, capability: int) -> Bundle:
    """The bundle, its manifest saying that its plans are for another device than they are."""
    plans = tuple(
        msgspec.structs.replace(plan, compute_capabilities=(capability,))
        for plan in bundle.manifest.plans
    )
    return view(bundle, plans=plans)


def _out_of_memory(job: Job, package: str) -> Iterator[Finding]:
    """Opening a model that does not fit says so; with the memory back, the same opens and runs."""
    origin = builds.made(job, "large", "fp16")
    bundle, _ = builds.with_engines(job, origin, package, "shared", builds.FEW_ROWS)
    what = f"{package}: out of memory"
    with job.cuda.filled(models.large_bytes() // _LEFT_OF_WEIGHT) as free_bytes:
        check = refused(what, package, Precision.FP16, bundle, "memory")
    yield msgspec.structs.replace(check, figures={**check.figures, "free_bytes": free_bytes})
    with open_session(bundle, runtime=package, precision="fp16") as session:
        stage = bundle.manifest.stages[0]
        session.run(stage.name, golden_inputs(bundle, stage, 1))
    yield Check(f"{package}: the same with the memory back", "passed")


def refused(what: str, package: str, precision: Precision, bundle: Bundle, word: str) -> Check:
    """Whether opening and running a bundle ends in an error of ours that has a word in it."""
    try:
        with open_session(bundle, runtime=package, precision=precision) as session:
            for stage in bundle.manifest.stages:
                session.run(stage.name, golden_inputs(bundle, stage, 1))
    except (MissingRuntimeError, RuntimeFailedError) as error:
        said = str(error)
        if word in said:
            return Check(what, "passed", "", {"message": said})
        return Check(what, "failed", f"the message does not speak of {word!r}: {said}")
    return Check(what, "failed", "it was opened and run")
