"""Section 1: the device, its driver, and every package that the other sections need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport import trt
from tiedexport.acceptance.job import PACKAGES, reporting
from tiedexport.results.acceptance import Check, Finding
from tiedexport.runtimes import runtime_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiedexport.acceptance.job import Job
    from tiedexport.results import Availability

_ON_THE_DEVICE = ("onnxruntime-cuda", "onnxruntime-tensorrt", "torch-cuda")


def run(job: Job) -> Iterator[Finding]:
    """Driver, device, packages."""
    yield _check("driver", trt.driver())
    yield from reporting("device", _device(job))
    for package in PACKAGES:
        yield _check(package, trt.availability(package))
    for name in _ON_THE_DEVICE:
        yield _check(name, runtime_named(name).availability())


def _device(job: Job) -> Iterator[Check]:
    device = job.require_device()
    free, total = job.cuda.memory_bytes()
    figures: dict[str, float | int | str] = {
        "name": device.name,
        "compute_capability": device.compute_capability,
        "free_bytes": free,
        "total_bytes": total,
    }
    yield Check("device", "passed", "", figures)


def _check(what: str, found: Availability) -> Check:
    if found.available:
        return Check(what, "passed", "", {"version": found.version})
    return Check(what, "not run", found.why)
