"""How much memory a process really holds, as Linux accounts it."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport.errors import MissingRuntimeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

_MAPPING = re.compile(r"^(?=[0-9a-f]+-[0-9a-f]+ )", re.MULTILINE)
_FIELD = re.compile(r"^(Rss|Pss|Anonymous):\s+(\d+) kB$", re.MULTILINE)


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


def anonymous_bytes(pid: int | None = None) -> int:
    """Pages of no file: what the kernel cannot drop and read again where memory is short.

    Raises:
        MissingRuntimeError: the kernel does not tell, or the process is gone or not ours.
    """
    return _smaps_rollup(pid)["Anonymous"]


def data_pss_bytes(pid: int | None = None) -> int:
    """Pss of all but programs and libraries, whose share moves as other processes come and go.

    Summed over processes it is what they hold together; a file mapped for execution is code.

    Args:
        pid: the process; by default this one.

    Raises:
        MissingRuntimeError: the kernel does not tell, or the process is gone or not ours.
    """
    mappings, code = [], set()
    for mapping in _MAPPING.split(_smaps(pid, "smaps"))[1:]:
        _, permissions, _, _, inode, *_ = mapping.split(maxsplit=5)
        sizes = {name: int(kibibytes) << 10 for name, kibibytes in _FIELD.findall(mapping)}
        mappings.append((inode, sizes))
        if "x" in permissions and inode != "0":
            code.add(inode)
    return sum(sizes["Anonymous" if inode in code else "Pss"] for inode, sizes in mappings)


def _smaps_rollup(pid: int | None) -> dict[str, int]:
    _, *lines = _smaps(pid, "smaps_rollup").splitlines()
    fields = (line.split() for line in lines)
    return {name.rstrip(":"): int(kibibytes) << 10 for name, kibibytes, _ in fields}


def _smaps(pid: int | None, name: str) -> str:
    path = Path(f"/proc/{'self' if pid is None else pid}/{name}")
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise MissingRuntimeError(
            "the memory of a process cannot be read",
            where=path,
            got=str(error),
            expected="Linux 4.14 or newer and a live process of the same user",
        ) from error


def held_bytes(files: Iterable[Path]) -> int:
    """What this process holds apart from code: its own pages, and each page of `files` once.

    It is Pss less the libraries, as if nobody else mapped the same files: neither a server that has
    a model open, nor one more process with the same libraries, changes it.

    Args:
        files: mapped files that hold data.

    Raises:
        MissingRuntimeError: the kernel does not tell.
    """
    inodes = {str(path.stat().st_ino) for path in files}
    of_files: dict[tuple[str, ...], int] = {}
    own_bytes = 0
    for mapping in _MAPPING.split(_smaps(None, "smaps"))[1:]:
        head = mapping.partition("\n")[0]
        addresses, _, offset, _, inode, *file = head.split(maxsplit=5)
        sizes = {name: int(kibibytes) << 10 for name, kibibytes in _FIELD.findall(mapping)}
        if inode not in inodes:
            library = file and file[0].startswith("/") and not file[0].endswith("(deleted)")
            own_bytes += sizes["Anonymous" if library else "Pss"]
            continue
        begin, end = (int(address, 16) for address in addresses.split("-"))
        part = inode, offset, str(end - begin)
        of_files[part] = max(of_files.get(part, 0), sizes["Rss"])
    return own_bytes + sum(of_files.values())


class PeakMemory:
    """Samples the memory of a process from a thread, in a `with` statement.

    Measure another process by its `pid` where you can: a sampler inside the measured process waits
    for the interpreter lock, and its own pages count. The kernel walks all pages at each sample and
    holds the process's map meanwhile: with gigabytes, choose a longer `interval_s`.

    Args:
        pid: the process; by default this one.
        interval_s: between two samples.
        measure: what is sampled; by default Pss.

    Attributes:
        start_bytes: as sampled on entry.
        peak_bytes: the largest sample so far. Peaks shorter than `interval_s` may be missed.
    """

    def __init__(
        self,
        pid: int | None = None,
        interval_s: float = 0.02,
        measure: Callable[[int | None], int] = pss_bytes,
    ) -> None:
        self._pid = pid
        self._interval_s = interval_s
        self._measure = measure
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self.start_bytes = 0
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self.start_bytes = self.peak_bytes = self._measure(self._pid)
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
                self.peak_bytes = max(self.peak_bytes, self._measure(self._pid))
            except MissingRuntimeError:
                return  # the watched process has ended: its peak stands
            if last:
                return
