"""What is to be done, on disk before it begins: inputs, options, and parts that never change.

In the folder of a job lie `_job.json`, one `_done/K-of-N.jsonl` a shard (a line for each finished
part, synced after the part itself), `_rejected/part-*.jsonl`, and `_complete.json` once every part
of every shard is done. Names that begin with `_` are passed over by readers of Parquet folders.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from tiedexport import atomic
from tiedexport.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

_log = logging.getLogger(__name__)

JOB_SCHEMA = 1
JOB, LOCK, DONE, REJECTED, COMPLETE = (
    "_job.json", "_lock", "_done", "_rejected", "_complete.json",
)  # fmt: skip

ARRAY = "rows.npy"
"""What becomes an array's own file when it is whole."""

_STAGED = re.compile(r"\.part-(\d+)\.")


class Input(Struct, frozen=True, forbid_unknown_fields=True):
    """One input, and what shows that it is still the same.

    `sha256` is of its first and last 64 KiB, or of the names, sizes and times of a folder's files.
    """

    path: str
    kind: str
    rows: int
    size_bytes: int
    modified_ns: int
    sha256: str


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows `start` to `stop` of one input; `offset` rows of all inputs come before them."""

    input: int
    start: int
    stop: int
    offset: int


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All that the bytes of the output depend on, beside the inputs.

    `weights` and `graph` are SHA-256 of the bundle's, `written_by` names versions of libraries.
    """

    weights: str
    graph: str
    stage: str
    runtime: str
    precision: str
    memory: Literal["shared", "packed"]
    threads: int | None
    column: str | None
    on_error: str
    part_rows: int | None
    output: str
    shards: int
    written_by: dict[str, str]


class Job(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole plan; `batch` rows are computed at once, and `block` read and written."""

    settings: Settings
    batch: int
    block: int
    inputs: tuple[Input, ...]
    parts: tuple[Part, ...]
    schema: int = JOB_SCHEMA

    @property
    def rows(self) -> int:
        """Of all inputs."""
        return sum(part.stop - part.start for part in self.parts)


class Done(Struct, frozen=True, forbid_unknown_fields=True):
    """One finished part: rows written, rows rejected, and bytes of its file."""

    part: int
    rows: int
    rejected: int
    size_bytes: int


def part_name(part: int) -> str:
    """The name of a part's files, without a suffix."""
    return f"part-{part:05}"


def read_job(folder: Path) -> Job | None:
    """The job of a folder, or None where none was begun.

    Raises:
        BadInputError: the record is damaged, or of a later version.
    """
    path = folder / JOB
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Job)
    except msgspec.MsgspecError as error:
        raise BadInputError(
            "the record of the job cannot be read",
            where=path,
            got=str(error),
            expected=f"schema {JOB_SCHEMA}",
            hint="go on with the version of tiedexport that began it, or name another -o",
        ) from error


def write_job(folder: Path, job: Job) -> None:
    """Put the record of a new job into its folder."""
    atomic.write(folder / JOB, msgspec.json.format(msgspec.json.encode(job), indent=1) + b"\n")


def refuse_changes(job: Job, wanted: Settings, batch: int | None, inputs: tuple[Input, ...],
                   folder: Path) -> None:  # fmt: skip
    """Go on with a job only if it is the same.

    Raises:
        UsageError: something that the output depends on has changed since it was begun.
    """
    changes = [*_changes(msgspec.to_builtins(job.settings), msgspec.to_builtins(wanted))]
    if batch not in (None, job.batch):
        changes.append(f"batch: {job.batch}, now {batch}")
    changes += _changes(
        {one.path: msgspec.to_builtins(one) for one in job.inputs},
        {one.path: msgspec.to_builtins(one) for one in inputs},
    )
    if not changes and job.inputs != inputs:
        changes.append("the order of the inputs")
    if changes:
        raise UsageError(
            "this is not the job that was begun here",
            where=folder,
            got="; ".join(changes[:5]) + ("; …" if changes[5:] else ""),
            expected="the same inputs, bundle, options and versions",
            hint="give it what it had, or name another -o",
        )


def _changes(before: dict[str, Any], now: dict[str, Any], name: str = "") -> Iterator[str]:
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{name}{key} ")
        elif isinstance(old, dict) or isinstance(new, dict):
            yield f"{name}{key}: {'no longer' if new is None else 'newly'} named"
        elif old != new:
            yield f"{name}{key}: {_shown(old)}, now {_shown(new)}"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) < 64 else f"{text[:12]}…"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Held for moments in which shards must not meet: where a job is begun and where it ends.

    What is written then, and was left half written by a killed process, is removed.
    """
    with (folder / LOCK).open("ab") as file:
        _flock(file.fileno(), fcntl.LOCK_EX, folder)
        for name in (JOB, COMPLETE, ARRAY):
            for path in folder.glob(f".{name}.*.new"):
                path.unlink()
        yield


class Shard:
    """What one process of a job does, and has done: part i of a job belongs to shard i mod n.

    A context manager: nobody else works on the same shard while it is open.

    Raises:
        UsageError: another process does.
    """

    def __init__(self, folder: Path, job: Job, number: int) -> None:
        self._path = folder / DONE / f"{number}-of-{job.settings.shards}.jsonl"
        self.parts = range(number, len(job.parts), job.settings.shards)
        self.done: dict[int, Done] = {}

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+b")
        try:
            _flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, self._path)
            self._read()
            self._tidy()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what a full disk has refused before, which was reported then
            self._file.close()

    def _read(self) -> None:
        """Take what is whole; a kill can leave the last line torn, which then never was."""
        self.done, whole_bytes = _lines(self._path)
        self._file.truncate(whole_bytes)

    def _tidy(self) -> None:
        """Remove what a killed process left half written of this shard's parts."""
        folder = self._path.parent.parent
        for path in (*folder.glob(".part-*.new"), *(folder / REJECTED).glob(".part-*.new")):
            if (found := _STAGED.match(path.name)) and int(found[1]) in self.parts:
                path.unlink(missing_ok=True)

    def record(self, done: Done) -> None:
        """Note a part whose file is synced.

        Raises:
            OSError: it cannot be written.
        """
        self._file.write(msgspec.json.encode(done) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done[done.part] = done


def all_done(folder: Path) -> dict[int, Done]:
    """What all shards have done by now."""
    found: dict[int, Done] = {}
    for path in sorted((folder / DONE).glob("*-of-*.jsonl")):
        found |= _lines(path)[0]
    return found


def _lines(path: Path) -> tuple[dict[int, Done], int]:
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        lines = [msgspec.json.decode(line, type=Done) for line in whole.splitlines()]
    except msgspec.MsgspecError as error:
        raise BadInputError(
            "the record of finished parts cannot be read",
            where=path,
            got=str(error),
            hint=f"rm '{path}' has its parts done again",
        ) from error
    return {line.part: line for line in lines}, len(whole)


def _flock(descriptor: int, how: int, where: Path) -> None:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError as error:
        raise UsageError(
            "another process works on this already",
            where=where,
            hint="wait for it, or give each process a --shard of its own",
        ) from error
    except OSError as error:
        _log.warning("%s cannot be locked (%s): take care that nobody shares it", where, error)
