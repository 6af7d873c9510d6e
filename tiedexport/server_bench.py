"""`bench --server`: what a server answers, how fast under which load, and what it costs."""

from __future__ import annotations

import asyncio
import selectors
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from tiedexport import environment
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.contender import refuse_batches
from tiedexport.errors import TiedExportError, UsageError
from tiedexport.load import Crowd, heat, numbers_up_to, refuse_callers
from tiedexport.open_loop import (
    ARRIVALS,
    arrivals_s,
    closed_loop,
    open_loop,
    saturated,
    summed_up,
)
from tiedexport.package.triton import model_name
from tiedexport.progress import Progress
from tiedexport.results.load import Load
from tiedexport.results.server import ServerLoad, ServerResult
from tiedexport.runtimes import all_runtimes, runtime_named
from tiedexport.served_stage import Target, target
from tiedexport.session import open_session
from tiedexport.spec import STAGE_OF_VERB, StageSpec
from tiedexport.triton_client import TritonClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tiedexport.open_loop import Arrivals
    from tiedexport.progress import Task

SWEEP = (0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.5, 2.0, 3.0, 4.0)
"""Rates to try where none is given, over the most that a closed loop got; up to saturation."""

_WARM_UP_S = 0.3
_MOST_REQUESTS = 1_000_000
"""Of one load: all of them are scheduled before the first is sent."""


@dataclass(frozen=True)
class _Way:
    """How long, and how requests arrive."""

    callers: int
    rates: Sequence[float]
    duration_s: float
    arrivals: Arrivals


@dataclass(frozen=True)
class _Own:
    """What does the same in this process: runtimes, or the server's own where none is named."""

    runtimes: tuple[str, ...]
    threads: int

    @contextmanager
    def crowds(self, bundle: Bundle, of: ServerLoad, told: str) -> Iterator[list[Crowd]]:
        """Callers of an open session for each, or why there is none.

        Args:
            bundle: what the server serves.
            of: a row of the server.
            told: the runtime that it tells, or what is none here: then the best one is used.
        """
        found: list[Crowd] = []
        with ExitStack() as stack:
            for name in self.runtimes or (told if told in all_runtimes() else "auto",):
                row = Load(
                    name, of.stage, of.precision, "shared", self.threads, of.batch, 1, "not run"
                )
                try:
                    session = stack.enter_context(
                        open_session(
                            bundle, runtime=name, precision=of.precision, threads=self.threads
                        )
                    )
                except TiedExportError as error:
                    found.append(Crowd(replace(row, reason=str(error)), None))
                    continue
                remark = runtime_named(session.runtime).remark
                row = replace(row, runtime=session.runtime, remark=remark)
                found.append(Crowd(row, session))
            yield found


def server_bench(
    bundle: Bundle | str | Path,
    url: str,
    *,
    stage: Sequence[str] = ("autoencoder",),
    batch: Sequence[int] = (1,),
    callers: int = 8,
    rates: Sequence[float] = (),
    arrivals: Arrivals = "poisson",
    duration_s: float = 1.0,
    model: str = "",
    runtime: Sequence[str] = (),
    threads: int = 1,
    progress: Progress | None = None,
) -> ServerResult:
    """Load a server that serves a bundle, compare every answer, and do the same without a server.

    Args:
        bundle: an open bundle or its path: its golden samples are asked for.
        url: of the server, http:// or grpc://.
        stage: stages or verbs.
        batch: samples a request.
        callers: 1, 2, 4, … up to so many in closed loops.
        rates: requests a second of open loops; by default shares of what closed loops got, up to
            saturation.
        arrivals: "poisson" or "constant".
        duration_s: at least, each load.
        model: the models' name without the stage; by default the bundle's.
        runtime: with which the same is done in this process; by default with the server's own
            where it tells it, else with the best one here.
        threads: CPU threads of each of those.
        progress: where to show progress; by default nowhere.

    Raises:
        UsageError: an argument is out of range, or the server has no such model.
        MissingRuntimeError: no server answers, or tritonclient is not installed.
        BadInputError: what is served is not this bundle.
    """
    started = time.perf_counter()
    _refuse(callers, rates, arrivals, duration_s)
    refuse_batches(batch)
    bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    stages = [bundle.manifest.stage(STAGE_OF_VERB.get(name, name)) for name in stage]
    base = model_name(model or bundle.manifest.name)
    models = {one.name: f"{base}_{one.name}" for one in stages}
    way = _Way(callers, rates, duration_s, arrivals)
    own = _Own(tuple(runtime), threads)
    with (
        (progress or Progress(quiet=True)).task("server", len(stages) * len(batch)) as task,
        asyncio.Runner(loop_factory=precise_loop) as runner,
    ):
        run = _all_rows(bundle, url, stages, batch, models, way, own, task)
        server, rows, loads = runner.run(run)
    return ServerResult(
        bundle=str(bundle.path),
        url=url,
        server=server,
        models=models,
        rows=tuple(rows),
        loads=tuple(loads),
        environment=environment.current(),
        seconds=time.perf_counter() - started,
        options=_options(way, threads, model),
        weights_sha256=bundle.manifest.weights_sha256,
    )


def _options(way: _Way, threads: int, model: str) -> dict[str, float | str]:
    """As on the command line, so that a report can say how to repeat it."""
    found: dict[str, float | str] = {"duration": way.duration_s, "arrivals": way.arrivals}
    found["threads"] = threads
    if way.rates:
        found["rate"] = ",".join(f"{rate:.12g}" for rate in way.rates)
    return found | ({"model": model} if model else {})


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop that wakes at the microsecond: epoll's waits are of whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def _refuse(callers: int, rates: Sequence[float], arrivals: str, duration_s: float) -> None:
    refuse_callers(callers)
    if any(not 0 < rate < np.inf for rate in rates):
        raise UsageError("rates must be positive", got=list(rates), expected="requests a second")
    if arrivals not in ARRIVALS:
        raise UsageError("no such arrivals", got=arrivals, expected=", ".join(ARRIVALS))
    if not 0 < duration_s < np.inf:
        raise UsageError("the duration must be positive", got=duration_s, expected="seconds")
    if (requests := max(rates, default=0.0) * duration_s) > _MOST_REQUESTS:
        raise UsageError(
            "more requests than one client can schedule",
            got=f"{requests:,.0f} in one load",
            expected=f"{_MOST_REQUESTS:,} at most",
            hint="a lower --rate or a shorter --duration",
        )


async def _all_rows(
    bundle: Bundle,
    url: str,
    stages: Sequence[StageSpec],
    batches: Sequence[int],
    models: dict[str, str],
    way: _Way,
    own: _Own,
    task: Task,
) -> tuple[str, list[ServerLoad], list[Load]]:
    """The server, every row of it, and every row of this process."""
    rows: list[ServerLoad] = []
    loads: list[Load] = []
    async with TritonClient(url) as client:
        server = await client.server()
        served = {stage.name: await client.model(models[stage.name]) for stage in stages}
        for stage, size in product(stages, batches):
            model = served[stage.name]
            found = await target(bundle, stage, size, client, model, server)
            with own.crowds(bundle, found.row, model.parameters.get("runtime", "")) as crowds:
                closed, beside = await _closed(found, crowds, way)
            rows += closed + await _open(found, closed, way)
            loads += beside
            task.advance(note=f"{stage.name}, batch {size}")
    return server, rows, loads


async def _closed(
    asked: Target, crowds: Sequence[Crowd], way: _Way
) -> tuple[list[ServerLoad], list[Load]]:
    """Closed loops of more and more callers, the server and this process in turns."""
    await closed_loop(asked.ask, way.callers, _WARM_UP_S)
    rows: list[ServerLoad] = []
    loads = [crowd.row for crowd in crowds if crowd.session is None]
    able = [crowd for crowd in crowds if crowd.session is not None]
    for callers in numbers_up_to(way.callers):
        answers = await closed_loop(asked.ask, callers, way.duration_s)
        rows.append(summed_up(replace(asked.row, callers=callers), answers))
        loads += heat(able, callers, _WARM_UP_S, way.duration_s)
    return rows, loads


async def _open(asked: Target, closed: Sequence[ServerLoad], way: _Way) -> list[ServerLoad]:
    """Open loops of higher and higher rates."""
    most = max(row.achieved_per_s or 0.0 for row in closed)
    rows: list[ServerLoad] = []
    for rate in way.rates or [share * most for share in SWEEP if most]:
        answers = await open_loop(asked.ask, arrivals_s(rate, way.duration_s, way.arrivals))
        row = replace(asked.row, loop="open", offered_per_s=rate)
        rows.append(summed_up(row, answers))
        if not way.rates and saturated(rows[-1]):
            break
    return rows
