"""Cold start: seconds from the start of a process to its first output."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from tiedexport import fresh
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.candidates import Candidate, candidates
from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.progress import Progress
from tiedexport.results.cold import ColdStart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tiedexport.bundle import Check
    from tiedexport.results import Status

LEAST_PROCESSES = 5

# Nothing is imported before the first reading, and nothing that a user's program would not need.
_PROGRAM = """
import time
readings = [time.monotonic_ns()]
import sys
import msgspec
import numpy as np
from tiedexport import open_bundle, open_session
readings.append(time.monotonic_ns())
path, check, options = msgspec.json.decode(sys.argv[1])
bundle = open_bundle(path, check=check)
readings.append(time.monotonic_ns())
session = open_session(bundle, **options)
readings.append(time.monotonic_ns())
spec = bundle.manifest.stage("autoencoder").inputs[0]
session.reconstruct(np.zeros((1, *spec.element_shape), spec.dtype.dtype))
readings.append(time.monotonic_ns())
with open(sys.argv[2], "wb") as file:
    file.write(msgspec.json.encode(readings))
"""
PARTS = ("start_s", "import_s", "open_s", "session_s", "run_s")


Question = tuple[str, str, dict[str, Any]]
"""Path, check and options of the session."""


def _started(question: Question) -> list[int]:
    """Nanoseconds before the process was made, and as it read them: all have one clock."""
    before = time.monotonic_ns()
    words = msgspec.json.encode(question).decode()
    return [before, *fresh.ask(("-c", _PROGRAM, words), None, list[int])]


def cold(
    bundle: Bundle | str | Path,
    *,
    runtime: Sequence[str] = (),
    memory: str = "shared",
    threads: int = 1,
    processes: int = 7,
    check: Check = "hash",
    progress: Progress | None = None,
    started: Callable[[Question], list[int]] = _started,
) -> tuple[ColdStart, ...]:
    """Start processes that open the bundle and run it once, contenders taking turns.

    The first process of each is not counted: it fills the page cache and compiles bytecode.

    Args:
        bundle: an open bundle or its path.
        runtime: names; by default every runtime that is not slow by design.
        memory: "shared", "packed", or "both".
        threads: CPU threads a session computes with.
        processes: how many are counted, of each contender.
        check: how far each checks the bundle's files.
        progress: where to show progress; by default nowhere.
        started: starts a process: its question → nanoseconds at each point; for tests.

    Raises:
        UsageError: fewer than five processes, or an argument names nothing that exists.
    """
    if processes < LEAST_PROCESSES:
        raise UsageError(
            "too few processes for a median", got=processes, expected=f"{LEAST_PROCESSES} or more"
        )
    bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    rows = list(candidates(bundle, runtime, memory))
    racing = [row for row in rows if not row.reason]
    questions = {id(row): (str(bundle.path), check, _options(row, threads)) for row in racing}
    readings: dict[int, list[list[int]]] = {id(row): [] for row in racing}
    failed: dict[int, str] = {}
    with (progress or Progress(quiet=True)).task("cold", (processes + 1) * len(racing)) as task:
        for turn in range(processes + 1):
            for row in racing[:: -1 if turn % 2 else 1]:
                task.advance(note=f"{row.runtime.name} {row.precision}")
                if id(row) in failed:
                    continue
                try:
                    found = started(questions[id(row)])
                except RuntimeFailedError as error:
                    failed[id(row)] = error.what
                    continue
                readings[id(row)] += [found] if turn else []
    return tuple(
        _row(row, threads, check, readings.get(id(row), []), failed.get(id(row), ""))
        for row in rows
    )


def _options(row: Candidate, threads: int) -> dict[str, Any]:
    return {
        "runtime": row.runtime.name,
        "precision": row.precision,
        "memory": row.memory,
        "threads": threads,
    }


def _row(
    row: Candidate, threads: int, check: Check, readings: list[list[int]], failed: str
) -> ColdStart:
    named = (row.runtime.name, row.precision, row.memory, threads)
    remark = row.runtime.remark
    if row.reason or failed:
        status: Status = "failed" if failed else "not run"
        return ColdStart(*named, status, failed or row.reason, remark=remark)
    parts = zip(*([b - a for a, b in pairwise(one)] for one in readings), strict=True)
    totals_s = [(one[-1] - one[0]) / 1e9 for one in readings]
    return ColdStart(
        *named,
        "passed",
        check=check,
        processes=len(readings),
        total_s=median(totals_s),
        least_s=min(totals_s),
        most_s=max(totals_s),
        remark=remark,
        **dict(zip(PARTS, (median(part) / 1e9 for part in parts), strict=True)),
    )
