"""The acceptance of a GPU: in one call, everything that a machine without one cannot prove.

The list of sections is fixed here. Each ends in a verdict: what raised has failed, what could not
run is not passed, and the files are written anew after each section, so that a run that is cut off
leaves files in which the rest has failed.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport import atomic, environment, trt
from tiedexport.acceptance import (
    builds,
    embedded,
    failures,
    machine,
    numerics,
    pages,
    sharing,
    speed,
)
from tiedexport.acceptance.job import Job, Settings, reporting
from tiedexport.bundle import open_bundle
from tiedexport.contender import refuse_batches
from tiedexport.progress import Progress
from tiedexport.results import to_json
from tiedexport.results.acceptance import AcceptanceResult, judged, unreported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tiedexport.results.acceptance import Finding, Section

    Run = Callable[[Job], Iterator[Finding]]

SECTIONS: tuple[tuple[str, str, Run], ...] = (
    ("machine", "Is everything here that the other sections need?", machine.run),
    ("builds", "Does every package build every engine for this device?", builds.run),
    ("numerics", "Does every plan compute what the model computes?", numerics.run),
    ("embedded", "Does the C++ library compute it too, with the same plans?", embedded.run),
    ("sharing", "Is a weight on the device once, and do all stages read that one?", sharing.run),
    ("speed", "How long does a call take, beside its peers?", speed.run),
    ("failures", "Is what cannot work refused with a message?", failures.run),
)
"""Name, question, and what answers it, in the order of running."""

DEFAULT_FOLDER = "tiedexport-acceptance"
_STEM = "acceptance"


def acceptance(
    bundle: str | Path | None = None,
    output: str | Path = DEFAULT_FOLDER,
    *,
    batch: Sequence[int] = Settings.batch,
    warmup_ms: float = Settings.warmup_ms,
    duration_s: float = Settings.duration_s,
    iterations: int = Settings.iterations,
    progress: Progress | None = None,
) -> AcceptanceResult:
    """Run every section, and write `acceptance.json`, `.md` and, with altair, plots.

    Args:
        bundle: the model to accept with; its engines are built anew in copies of it. By default a
            model of the reference model's shape, which takes torch to make.
        output: the folder for the files.
        batch: batch sizes of the measurement.
        warmup_ms: as in `bench`.
        duration_s: as in `bench`.
        iterations: as in `bench`.
        progress: where to show progress; by default nowhere.

    Raises:
        BundleError: the bundle is damaged.
        UsageError: nothing could be measured so.
    """
    begin = time.perf_counter()
    given = None if bundle is None else open_bundle(bundle).path
    settings = Settings(tuple(batch), warmup_ms, duration_s, iterations)
    refuse_batches(batch)
    settings.budget.check()
    progress = progress or Progress(quiet=True)
    sections = [unreported(name, question) for name, question, _ in SECTIONS]

    def result(finished: bool) -> AcceptanceResult:
        seconds = time.perf_counter() - begin
        return _result(sections, seconds, finished)

    with tempfile.TemporaryDirectory(prefix="tiedexport-") as folder:
        job = Job(given, Path(folder), settings, progress)
        try:
            for index, (name, question, run) in enumerate(SECTIONS):
                _write(result(finished=False), Path(output))
                progress.say(f"{name}: {question}")
                sections[index] = _run(name, question, run(job))
        finally:
            job.close()
    done = result(finished=True)
    _write(done, Path(output))
    return done


def _run(name: str, question: str, findings: Iterator[Finding]) -> Section:
    begin = time.perf_counter()
    found = list(reporting(name, findings))
    return judged(name, question, found, time.perf_counter() - begin)


def _result(sections: Sequence[Section], seconds: float, finished: bool) -> AcceptanceResult:
    device = trt.device()
    name = "" if device is None else f"{device.name} (sm{device.compute_capability})"
    return AcceptanceResult(name, tuple(sections), environment.current(), seconds, finished)


def _write(result: AcceptanceResult, folder: Path) -> None:
    atomic.write(folder / f"{_STEM}.json", to_json(result))
    pages.write(result, folder / f"{_STEM}.md")
