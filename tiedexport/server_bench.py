"""`bench --server`: what a server answers, how fast under which load, and what it costs."""

from __future__ import annotations

import asyncio
import selectors
import time
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from msgspec.structs import replace

from tiedexport import environment
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.contender import refuse_batches
from tiedexport.errors import UsageError
from tiedexport.load import MOST_CALLERS, load, numbers_up_to
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
from tiedexport.results.server import ServerLoad, ServerResult
from tiedexport.runtimes import all_runtimes
from tiedexport.served_stage import Target, target
from tiedexport.spec import STAGE_OF_VERB, Precision, StageSpec
from tiedexport.triton_client import TritonClient

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tiedexport.open_loop import Arrivals, Ask
    from tiedexport.progress import Task
    from tiedexport.results.load import Load

SWEEP = (0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.5, 2.0, 3.0, 4.0)
"""Rates to try where none is given, over the most that a closed loop got; up to saturation."""

_WARM_UP_S = 0.3


class _Way(TypedDict):
    """How long, and how requests arrive."""

    callers: int
    rates: Sequence[float]
    duration_s: float
    arrivals: Arrivals


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
            where it tells it, else with every one.
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
    way = _Way(callers=callers, rates=rates, duration_s=duration_s, arrivals=arrivals)
    progress = progress or Progress(quiet=True)
    with progress.task("server", len(stages) * len(batch)) as task:
        run = partial(_all_rows, bundle, url, stages, batch, models, way, task)
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            server, own, rows = runner.run(run())
    loads = [
        _without_server(bundle, of, callers, runtime or own, threads, duration_s, progress)
        for of in dict.fromkeys((row.stage, row.batch, row.precision) for row in rows)
    ]
    return ServerResult(
        bundle=str(bundle.path),
        url=url,
        server=server,
        models=models,
        rows=tuple(rows),
        loads=tuple(chain.from_iterable(loads)),
        environment=environment.current(),
        seconds=time.perf_counter() - started,
        options={"duration": duration_s, "arrivals": arrivals, "threads": threads},
        weights_sha256=bundle.manifest.weights_sha256,
    )


def _without_server(
    bundle: Bundle,
    of: tuple[str, int, Precision],
    callers: int,
    runtime: Sequence[str],
    threads: int,
    duration_s: float,
    progress: Progress,
) -> list[Load]:
    """The same stage, batch size and precision in closed loops of callers of one session."""
    stage, batch, precision = of
    found = load(
        bundle,
        callers,
        runtime=runtime,
        stage=stage,
        batch=batch,
        threads=threads,
        duration_s=duration_s,
        progress=progress,
    )
    return [row for row in found if row.precision == precision]


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop that wakes at the microsecond: epoll's waits are of whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def _refuse(callers: int, rates: Sequence[float], arrivals: str, duration_s: float) -> None:
    if not 1 <= callers <= MOST_CALLERS:
        raise UsageError(
            "not a useful number of callers", got=callers, expected=f"1 to {MOST_CALLERS}"
        )
    if any(not 0 < rate < np.inf for rate in rates):
        raise UsageError("rates must be positive", got=list(rates), expected="requests a second")
    if arrivals not in ARRIVALS:
        raise UsageError("no such arrivals", got=arrivals, expected=", ".join(ARRIVALS))
    if not 0 < duration_s < np.inf:
        raise UsageError("the duration must be positive", got=duration_s, expected="seconds")


async def _all_rows(
    bundle: Bundle,
    url: str,
    stages: Sequence[StageSpec],
    batches: Sequence[int],
    models: dict[str, str],
    way: _Way,
    task: Task,
) -> tuple[str, tuple[str, ...], list[ServerLoad]]:
    """The server, the runtime that it tells to run if it is here, and every row."""
    rows: list[ServerLoad] = []
    async with TritonClient(url) as client:
        server = await client.server()
        served = {stage.name: await client.model(models[stage.name]) for stage in stages}
        for stage in stages:
            for size in batches:
                found = await target(bundle, stage, size, client, served[stage.name], server)
                rows += await _rows(found, way)
                task.advance(note=f"{stage.name}, batch {size}")
    told = {one.parameters.get("runtime", "") for one in served.values()}
    return server, tuple(told & all_runtimes().keys()), rows


async def _rows(asked: Target, way: _Way) -> list[ServerLoad]:
    """Closed loops of more and more callers, then open ones of higher and higher rates."""
    await closed_loop(asked.ask, way["callers"], _WARM_UP_S)
    rows = []
    for callers in numbers_up_to(way["callers"]):
        answers = await closed_loop(asked.ask, callers, way["duration_s"])
        rows.append(summed_up(replace(asked.row, callers=callers), answers))
    most = max(row.achieved_per_s or 0.0 for row in rows)
    for rate in way["rates"] or [share * most for share in SWEEP if most]:
        rows.append(await _open(asked.ask, asked.row, rate, way))
        if not way["rates"] and saturated(rows[-1]):
            break
    return rows


async def _open(ask: Ask, row: ServerLoad, rate: float, way: _Way) -> ServerLoad:
    due_s = arrivals_s(rate, way["duration_s"], way["arrivals"])
    answers = await open_loop(ask, due_s)
    return summed_up(replace(row, loop="open", offered_per_s=rate), answers)
