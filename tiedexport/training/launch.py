"""Many processes on one host: started, watched and started again by torchrun's own agent."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.training.worker import MEETING_PLACE, raise_reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


def launch(arguments: Sequence[str], processes: int, max_restarts: int) -> None:
    """Run Python with these arguments in many processes of this host, until all are done.

    When one dies, the others are ended and all are started again. Only what the first one writes
    is shown. On one host they meet in a folder, so that no port is open but gloo's on loopback.

    Args:
        arguments: what follows `python`; whatever runs is to use `reporting_to_launcher`.
        processes: how many.
        max_restarts: how often they are started again at most.

    Raises:
        TiedExportError: what one of the processes raised on purpose.
        RuntimeFailedError: a process has died more often than it may be started again.
        KeyboardInterrupt: somebody wants an end.
    """
    if "RANK" in os.environ:
        raise UsageError(
            "torchrun has started this process, and --nproc would start more",
            hint="leave out --nproc",
        )
    with tempfile.TemporaryDirectory(prefix="tiedexport-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="train",
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(folder, "rendezvous")),
            rdzv_configs={"store_type": "file"},
            local_addr="localhost",
            max_restarts=max_restarts,
            logs_specs=DefaultLogsSpecs(str(Path(folder, "logs"))),
        )
        with _surroundings(folder, processes), _signals_restored():
            try:
                elastic_launch(config, sys.executable)(*arguments)
            except SignalException:
                raise KeyboardInterrupt from None
            except ChildFailedError as error:
                raise _exhausted(error, max_restarts) from None
        raise_reason(folder)


def _exhausted(error: ChildFailedError, max_restarts: int) -> RuntimeFailedError:
    rank, failure = min(error.failures.items(), key=lambda one: _blame(one[1]))
    message: Any = failure.message
    if not isinstance(message, str):  # what a process recorded, with its stack
        message = message["message"]
    return RuntimeFailedError(
        "a process of the training has died, as often as it may be started again",
        where=f"process {rank}",
        got=message,
        expected=f"at most {max_restarts} restarts",
        hint="go on where it stopped with --resume, and with --nproc 1 see all that it says",
    )


def _blame(failure: ProcessFailure) -> tuple[bool, int]:
    """Who was killed comes before those who missed it, and they in the order of their end."""
    return failure.exitcode >= 0, failure.timestamp


@contextlib.contextmanager
def _surroundings(folder: str, processes: int) -> Iterator[None]:
    """The environment that the processes get, and silence about their coming and going."""
    cores = len(os.sched_getaffinity(0))
    wanted = {
        MEETING_PLACE: folder,
        "PYTHONPATH": os.pathsep.join(entry or os.curdir for entry in sys.path),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // processes))),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }
    before: Mapping[str, str] = dict(os.environ)
    os.environ.update(wanted)
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _signals_restored() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
