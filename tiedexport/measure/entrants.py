"""Who takes part in a measurement: every runtime, precision and mode, or why it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tiedexport.contender import RemoteContender, SessionContender
from tiedexport.errors import TiedExportError, UsageError
from tiedexport.measure.turns import Row
from tiedexport.runtimes import all_runtimes, choose_precision, runtime_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Memory

_MODES: dict[str, tuple[Memory, ...]] = {
    "shared": ("shared",),
    "packed": ("packed",),
    "both": ("shared", "packed"),
}


def rows_of(bundle: Bundle, wanted: Sequence[str], memory: Memory | Literal["both"]) -> list[Row]:
    """A row for each; those that cannot run have a reason.

    Args:
        bundle: what is run.
        wanted: names of runtimes; none for all that are not slow by design.
        memory: one mode, or both side by side where a runtime has two.

    Raises:
        UsageError: there is no such runtime or mode.
    """
    if memory not in _MODES:
        raise UsageError("unknown memory mode", got=repr(memory), expected=", ".join(_MODES))
    return list(_rows(bundle, wanted, _MODES[memory]))


def _rows(bundle: Bundle, wanted: Sequence[str], asked: tuple[Memory, ...]) -> Iterator[Row]:
    chosen = [runtime_named(name) for name in wanted] or list(all_runtimes().values())
    for row in chosen:
        found = row.availability()
        modes = asked if row.packs else asked[:1]
        for precision in bundle.manifest.precisions:
            if not found.available:
                reason = found.why
            elif row.slow and not wanted:
                reason = f"slow by design; to measure it: --runtime {row.name}"
            else:
                _, reason = choose_precision(row, bundle, precision)
            for mode in modes:
                yield Row(row.name, precision, reason, mode, row.remark)


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
