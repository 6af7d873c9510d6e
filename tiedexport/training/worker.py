"""What a process of a training is told by the one that started it, and what it tells back."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
from click.exceptions import Exit

from tiedexport.errors import (
    EXIT_DONE,
    EXIT_INTERNAL,
    RuntimeFailedError,
    TiedExportError,
    error_of,
    fields_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MEETING_PLACE = "TIEDEXPORT_TRAINING"
"""The variable that names the folder of those whom `tiedexport train --nproc` started."""

INTERRUPTED = 130


def leads() -> bool:
    """Whether this process shows what many do; true where there is one."""
    return int(os.environ.get("RANK", 0)) == 0


def launched() -> bool:
    """Whether `tiedexport train --nproc` started this process."""
    return MEETING_PLACE in os.environ


def restarted() -> bool:
    """Whether torchrun started this process in the place of one that died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


@contextlib.contextmanager
def reporting_to_launcher() -> Iterator[None]:
    """In a process that was launched, leave it to the launcher to say what went wrong.

    Only the first process says anything itself.
    What tiedexport raises on purpose would be raised again: a process that is started after it
    ends at once, and well. Anything else is told when no restarts are left.
    """
    reason = _reason_file(os.environ[MEETING_PLACE])
    if reason.exists():
        raise Exit(EXIT_DONE)
    if not leads():
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
    try:
        yield
    except KeyboardInterrupt:
        raise Exit(INTERRUPTED) from None
    except RuntimeFailedError as error:
        _record(error, error.exit_code)
    except TiedExportError as error:
        with contextlib.suppress(FileExistsError), reason.open("xb") as file:
            file.write(msgspec.json.encode(fields_of(error)))
        raise Exit(error.exit_code) from error
    except Exception as error:
        _record(error, EXIT_INTERNAL)


def raise_reason(folder: str) -> None:
    """Raise what one of the processes that met in a folder did, if any."""
    path = _reason_file(folder)
    if path.exists():
        raise error_of(msgspec.json.decode(path.read_bytes()))


def _reason_file(folder: str) -> Path:
    return Path(folder, "reason")


def _record(error: Exception, exit_code: int) -> NoReturn:
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
    raise Exit(exit_code) from error
