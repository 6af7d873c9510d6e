"""Many processes on one host: started, watched and started again by torchrun's own agent."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from click.exceptions import Exit
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, get_error_handler
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tiedexport.errors import (
    EXIT_DONE,
    EXIT_INTERNAL,
    RuntimeFailedError,
    TiedExportError,
    UsageError,
)
from tiedexport.training.group import MEETING_PLACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

INTERRUPTED = 128 + signal.SIGINT
_REASON = "reason"


class _Reason(msgspec.Struct, frozen=True):
    """Why the training ended before its end, for `TiedExportError`'s fields and exit code."""

    exit_code: int
    what: str
    where: str | None = None
    got: str | None = None
    expected: str | None = None
    hint: str | None = None


def launch(arguments: Sequence[str], processes: int, max_restarts: int) -> None:
    """Run a command of tiedexport in many processes of this host, until all are done.

    When one dies, the others are ended and all are started again. Only what the first one writes
    is shown. On one host they meet in a folder, so that no port is open but gloo's on loopback.

    Args:
        arguments: of the command line.
        processes: how many.
        max_restarts: how often they are started again at most.

    Raises:
        TiedExportError: what the command raised in one of the processes.
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
            logs_specs=DefaultLogsSpecs(
                str(Path(folder, "logs")), dict.fromkeys(range(1, processes), Std.ALL)
            ),
        )
        command = ("-m", "tiedexport", *arguments)
        with _surroundings(folder, processes), _signals_restored():
            try:
                elastic_launch(config, sys.executable)(*command)
            except SignalException:
                raise KeyboardInterrupt from None
            except ChildFailedError as error:
                raise _exhausted(error, max_restarts) from None
        _raise_reason(folder)


@contextlib.contextmanager
def reporting_to_launcher() -> Iterator[None]:
    """In a process that `launch` started, leave it to `launch` to say what went wrong.

    What tiedexport raises on purpose would be raised again: a process that is started after it
    ends at once, and well. Anything else is told when no more restarts are left.
    """
    reason = Path(os.environ[MEETING_PLACE], _REASON)
    if reason.exists():
        raise Exit(EXIT_DONE)
    try:
        yield
    except KeyboardInterrupt:
        raise Exit(INTERRUPTED) from None
    except RuntimeFailedError as error:
        _record(error, error.exit_code)
    except TiedExportError as error:
        with contextlib.suppress(FileExistsError), reason.open("xb") as file:
            fields = {name: _text(getattr(error, name)) for name in ("where", "got", "expected")}
            told = _Reason(error.exit_code, error.what, **fields, hint=error.hint)
            file.write(msgspec.json.encode(told))
        raise Exit(error.exit_code) from error
    except Exception as error:
        _record(error, EXIT_INTERNAL)


def _record(error: Exception, exit_code: int) -> NoReturn:
    get_error_handler().record_exception(error)
    raise Exit(exit_code) from error


def _text(field: object) -> str | None:
    return None if field is None else str(field)


def _raise_reason(folder: str) -> None:
    path = Path(folder, _REASON)
    if not path.exists():
        return
    reason = msgspec.json.decode(path.read_bytes(), type=_Reason)
    error = TiedExportError(
        reason.what,
        where=reason.where,
        got=reason.got,
        expected=reason.expected,
        hint=reason.hint,
    )
    error.exit_code = reason.exit_code
    raise error


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
