"""Who takes part in a measurement: every runtime, precision and mode, or why it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tiedexport.candidates import candidates
from tiedexport.contender import RemoteContender, SessionContender
from tiedexport.errors import TiedExportError
from tiedexport.measure.turns import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Memory


def rows_of(bundle: Bundle, wanted: Sequence[str], memory: Memory | Literal["both"]) -> list[Row]:
    """A row for each; those that cannot run have a reason.

    Args:
        bundle: what is run.
        wanted: names of runtimes; none for all that are not slow by design.
        memory: one mode, or both side by side where a runtime has two.

    Raises:
        UsageError: there is no such runtime or mode.
    """
    return [
        Row(
            one.runtime.name,
            one.precision,
            one.reason,
            one.memory,
            one.runtime.remark,
            one.runtime.on_gpu,
        )
        for one in candidates(bundle, wanted, memory)
    ]


def open_all(rows: Sequence[Row], bundle: Bundle, threads: int, idle_s: float) -> None:
    """Give every row that can run its contender; where that fails the row says why.

    With one thread all live in this process; with more each has a process of its own.
    """
    for row in rows:
        if row.reason:
            continue
        arguments = (row.runtime, row.precision.value, threads, row.memory, idle_s)
        try:
            if threads == 1:
                row.contender = SessionContender(bundle, *arguments)
            else:
                row.contender = RemoteContender(SessionContender, str(bundle.path), *arguments)
        except TiedExportError as error:
            row.fail(error)
