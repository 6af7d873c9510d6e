"""Section 6: latency on the device by batch size, every contender on one stream, taking turns.

CUDA events stand between the calls, and golden inputs lie on the device already: copies are rows of
their own. A contender whose output leaves its bound has failed, however fast it was.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from msgspec import structs

from tiedexport.acceptance.builds import origins
from tiedexport.acceptance.job import bound_on, worst_in_bounds
from tiedexport.bundle import open_bundle
from tiedexport.errors import MissingRuntimeError, TiedExportError
from tiedexport.measure.stability import bound_by
from tiedexport.measure.turns import PROGRESS_A_HEAT, Row, heat
from tiedexport.on_device.contender import DeviceContender
from tiedexport.on_device.copies import Copies
from tiedexport.on_device.libraries import onnxruntime, tensorrt, torch
from tiedexport.results.acceptance import Check, Finding
from tiedexport.runtimes import runtime_named
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tiedexport.acceptance.job import Built, Job
    from tiedexport.bundle import Bundle
    from tiedexport.manifest import PlanRecord
    from tiedexport.on_device.cuda import Cuda
    from tiedexport.on_device.work import Subject
    from tiedexport.results import Latency
    from tiedexport.rounding import Bounded
    from tiedexport.spec import StageSpec

_COPY_IN, _COPY_OUT = "copy to the device", "copy from the device"


@dataclass
class Entrant:
    """Who takes part.

    Attributes:
        row: its name, precision and, where it cannot run, why.
        graph: whether its work is launched as one CUDA graph.
        open: loads its model; None where it cannot run.
        contender: what it loaded.
        worst: the largest error of any of its outputs in units of its bound.
        outputs: how many of its outputs were judged.
        reasons: what was wrong with those.
    """

    row: Row
    graph: bool
    open: Callable[[], Subject] | None
    contender: DeviceContender | None = None
    worst: float = 0.0
    outputs: int = 0
    reasons: list[str] = field(default_factory=list)


def run(job: Job) -> Iterator[Finding]:
    """A latency for each contender, stage and batch size, and a check of what each computed."""
    cuda, settings = job.cuda, job.settings
    bundle = open_bundle(origins(job)[0])
    if not job.built:
        yield Check("plans", "not run", "no plan was built: only peers are timed")
    racers = entrants(job, bundle)
    with ExitStack() as closing:
        for racer in racers:
            enter(racer, bundle, cuda, closing)
        heats = [(stage, size) for stage in bundle.manifest.stages for size in settings.batch]
        with job.progress.task("device latency", len(heats) * PROGRESS_A_HEAT) as task:
            for index, (stage, size) in enumerate(heats):
                task.reach(index * PROGRESS_A_HEAT, note=f"{stage.name}, batch {size}")
                rows = [racer.row for racer in racers]
                found = heat(rows, stage.name, size, settings.budget, task)
                yield from bounded(found, racers)
                judge(racers, bundle, stage)
    for racer in racers:
        if racer.outputs or racer.reasons:
            figures = {"error_in_bounds": racer.worst, "outputs": racer.outputs}
            reason = racer.reasons[0] if racer.reasons else ""
            what = f"{racer.row.runtime}: outputs after timing"
            yield Check(what, "failed" if reason else "passed", reason, figures)


def entrants(job: Job, bundle: Bundle) -> list[Entrant]:
    """Plans of every package and way, both providers, torch eager and compiled, and copies.

    All but the copies take part twice: each call enqueued by itself, and as one CUDA graph.
    """
    cuda, held = job.cuda, bundle.manifest.precisions
    precision = Precision.FP16 if Precision.FP16 in held else held[-1]
    found = []

    def add(name: str, reason: str, opened: Callable[[], Subject], graphs: bool = True) -> None:
        for graph in (False, True)[: 1 + graphs]:
            row = Row(f"{name}, graph" if graph else name, precision, reason)
            found.append(Entrant(row, graph, None if reason else opened))

    for built in job.built:
        if built.precision == precision:
            reason = runtime_named(built.package).availability().why
            add(f"{built.package} {built.way}", reason, partial(_plans, cuda, built))
    for name in onnxruntime.GRAPH_OPTIONS:
        runtime = runtime_named(name)
        reason = runtime.availability().why or runtime.refusal(bundle, precision) or ""
        add(name, reason, partial(onnxruntime.OnnxRuntime, name, cuda, bundle, precision, "packed"))
    runtime = runtime_named("torch-cuda")
    reason = runtime.availability().why or runtime.refusal(bundle, precision) or ""
    if not reason and bundle.manifest.kept.get(precision):
        reason = "torch alone multiplies in one type, and some weights are kept in another"
    for name, compiled in (("torch eager", False), ("torch compiled", True)):
        add(name, reason, partial(torch.Torch, cuda, bundle, precision, compiled=compiled))
    for name, inwards in ((_COPY_IN, True), (_COPY_OUT, False)):
        add(name, "", partial(Copies, cuda, inwards), graphs=False)
    return found


def _plans(cuda: Cuda, built: Built) -> tensorrt.Plans:
    held = {plan.stage: plan for plan in built.bundle.manifest.plans}
    # One plan of two halves serves every stage; in trtexec's way the autoencoder has none.
    plans: dict[str, PlanRecord] = {
        stage.name: held.get(stage.name) or held["autoencoder"]
        for stage in built.bundle.manifest.stages
    }
    return tensorrt.Plans(cuda, built.package, built.bundle, built.precision, plans)


def enter(racer: Entrant, bundle: Bundle, cuda: Cuda, closing: ExitStack) -> None:
    """Load an entrant's model; where that fails its row says why."""
    if racer.open is None:
        return
    try:
        racer.contender = DeviceContender(cuda, bundle, racer.open, racer.graph)
    except MissingRuntimeError as error:
        racer.row.reason = f"{error.what}: {error.got}"
    except TiedExportError as error:
        racer.row.fail(error)
    else:
        racer.row.contender = racer.contender
        closing.callback(racer.contender.close)


def bounded(found: list[Latency], racers: list[Entrant]) -> Iterator[Latency]:
    """The rows of one heat, those warned of whose device waits for the host, or for copies.

    Args:
        found: a row for each of `racers`.
        racers: with what each still has bound.
    """
    median_s = {row.runtime: row.median_s or 0.0 for row in found}
    copies_s = [median_s.pop(name, 0.0) for name in (_COPY_IN, _COPY_OUT)]
    for row, racer in zip(found, racers, strict=True):
        if row.runtime not in median_s or not row.median_s or racer.contender is None:
            yield row
            continue
        reasons = bound_by(row.median_s, racer.contender.enqueue_s, *copies_s, graph=racer.graph)
        yield structs.replace(row, warnings=(*row.warnings, *reasons))


def judge(racers: list[Entrant], bundle: Bundle, stage: StageSpec) -> None:
    """Hold what each has just computed to its bound."""
    bounds: dict[Precision, Bounded] = {}
    for racer in racers:
        if racer.contender is None or racer.row.status != "passed":
            continue
        precision = racer.row.precision
        try:
            output = racer.contender.output()
        except TiedExportError as error:
            racer.reasons.append(str(error))
            continue
        if output is None:
            continue
        if precision not in bounds:  # sums in the type itself: what all of them may do
            bounds[precision] = bound_on(bundle, stage, precision, precision)
        ratio = worst_in_bounds(output, bounds[precision])
        racer.worst, racer.outputs = max(racer.worst, ratio), racer.outputs + 1
        if not ratio <= 1.0:
            where = f"{stage.name}, batch {len(output)}"
            racer.reasons.append(f"{where}: error {ratio:.3g} times its bound")
