"""The parts of a job on Ray Data, which says who computes which; all else is as on one machine."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tiedexport import errors
from tiedexport.data.extras import needed_for
from tiedexport.encode.job import Done
from tiedexport.encode.pipeline import disk_reported
from tiedexport.encode.pipeline import run_parts as run_here
from tiedexport.encode.work import Work, reopen
from tiedexport.runtimes import runtime_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MOST_BLOCKS = 10_000
"""Of Ray Data's, among which the parts are shared out."""

_LOOPBACK = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
"""Has a Ray of this machine alone listen on 127.0.0.1. It reads that when it is imported; where
the caller did so before, it listens on every address."""


class Worker:
    """An actor: it opens the job once, and computes the parts that Ray hands to it."""

    def __init__(self, bundle: str, output: str, folder: str) -> None:
        os.chdir(folder)  # inputs are named from there
        self._work = reopen(Path(bundle), Path(output))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """One part → the record of it, or the error that stopped it: Ray would wrap that."""
        done: list[Done] = []
        try:
            run_here(self._work, map(int, batch["part"]), done.append, lambda _rows: None)
        except errors.TiedExportError as error:
            failure = msgspec.json.encode(errors.fields_of(error))
            return {"record": [b""], "failure": [failure]}
        return {"record": [msgspec.json.encode(done[0])], "failure": [b""]}


def run_parts(
    work: Work,
    parts: Sequence[int],
    done: Callable[[Done], None],
    advance: Callable[[int], None],
    *,
    bundle: Path,
    output: Path,
    address: str | None,
) -> None:
    """As the same function of one machine, in any order, on every processor of a cluster.

    Args:
        work: of the one who began the job.
        parts: which of them.
        done: called when a part is whole and synced.
        advance: called with a number of rows that were written.
        bundle: which the workers have under the same name.
        output: of the job, on a file system that all share.
        address: of the cluster; None takes RAY_ADDRESS, or starts one on this machine alone.

    Raises:
        BadInputError, DataError, RuntimeFailedError: as on one machine.
        MissingRuntimeError: Ray is not installed.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    with needed_for("--engine ray", "Ray Data", extra="ray"):
        if not address:
            os.environ.setdefault(*_LOOPBACK)
        import ray
    if not parts:
        return
    begun = not ray.is_initialized()
    if begun:
        _start(address)
    try:
        for row in _rows(work, parts, [str(bundle), str(output), os.getcwd()]):
            if row["failure"]:
                raise errors.error_of(msgspec.json.decode(row["failure"]))
            record = msgspec.json.decode(row["record"], type=Done)
            with disk_reported(work.folder):
                done(record)
            advance(record.rows + record.rejected)
    finally:
        if begun:
            ray.shutdown()


def _start(address: str | None) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        ray.init(address, **quiet)
    else:
        ray.init("local", include_dashboard=False, **quiet)


def _rows(work: Work, parts: Sequence[int], where: list[str]) -> Iterator[dict[str, Any]]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    nodes: Any = ray.nodes  # which has no types
    threads = work.job.settings.threads or 1
    most = max(1, int(sum(node["Resources"].get("CPU", 0) for node in nodes())) // threads)
    on_gpu = runtime_named(work.job.settings.runtime).on_gpu
    chosen = ray.data.from_items(
        [{"part": part} for part in parts], override_num_blocks=min(len(parts), MOST_BLOCKS)
    )
    yield from chosen.map_batches(
        Worker,
        fn_constructor_args=where,
        batch_size=1,
        num_cpus=threads,
        num_gpus=1 if on_gpu else 0,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(most, len(parts))),
    ).iter_rows()
