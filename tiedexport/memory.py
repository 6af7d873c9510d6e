"""How much memory a process really holds, as Linux accounts it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport.errors import MissingRuntimeError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


def pss_bytes(pid: int | None = None) -> int:
    """Proportional set size: private pages whole, each shared page divided by those who map it.

    RSS counts a mapped file in full in every process; Pss summed over processes is the truth.

    Args:
        pid: the process; by default this one.

    Raises:
        MissingRuntimeError: the kernel does not tell, or the process is gone or not ours.
    """
    return _smaps_rollup(pid)["Pss"]


def private_bytes(pid: int | None = None) -> int:
    """Bytes that would be free if the process ended: its private pages, clean and dirty.

    Raises:
        MissingRuntimeError: the kernel does not tell, or the process is gone or not ours.
    """
    fields = _smaps_rollup(pid)
    return fields["Private_Clean"] + fields["Private_Dirty"]


def _smaps_rollup(pid: int | None) -> dict[str, int]:
    path = Path(f"/proc/{'self' if pid is None else pid}/smaps_rollup")
    try:
        _, *lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise MissingRuntimeError(
            "the memory of a process cannot be read",
            where=path,
            got=str(error),
            expected="Linux 4.14 or newer and a live process of the same user",
        ) from error
    fields = (line.split() for line in lines)
    return {name.rstrip(":"): int(kibibytes) << 10 for name, kibibytes, _ in fields}


class PeakMemory:
    """Samples the Pss of a process from a thread, in a `with` statement.

    Measure another process by its `pid` where you can: a sampler inside the measured process waits
    for the interpreter lock, and its own pages count. The kernel walks all pages at each sample and
    holds the process's map meanwhile: with gigabytes, choose a longer `interval_s`.

    Attributes:
        start_bytes: Pss on entry.
        peak_bytes: the largest Pss seen so far. Peaks shorter than `interval_s` may be missed.
    """

    def __init__(self, pid: int | None = None, interval_s: float = 0.02) -> None:
        self._pid = pid
        self._interval_s = interval_s
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self.start_bytes = 0
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self.start_bytes = self.peak_bytes = pss_bytes(self._pid)
        self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._sampler.join()

    def _watch(self) -> None:
        while True:
            last = self._done.wait(self._interval_s)
            try:
                self.peak_bytes = max(self.peak_bytes, pss_bytes(self._pid))
            except MissingRuntimeError:
                return  # the watched process has ended: its peak stands
            if last:
                return
