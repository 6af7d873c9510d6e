"""What `bench` measures beside latency: limits, cold starts, memory, and several callers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, TypedDict

from msgspec.structs import replace

from tiedexport import cold as starts
from tiedexport import roofline as limits
from tiedexport.footprint import footprint
from tiedexport.load import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.bundle import Bundle
    from tiedexport.progress import Progress
    from tiedexport.results import BenchResult
    from tiedexport.runtimes import Memory


class _Way(TypedDict):
    """What all of them take."""

    runtime: Sequence[str]
    memory: Memory | Literal["both"]
    threads: int
    progress: Progress | None


def surround(
    result: BenchResult,
    bundle: Bundle,
    *,
    roofline: bool = False,
    cold: bool = False,
    memory_use: bool = False,
    callers: int | None = None,
    runtime: Sequence[str] = (),
    stage: Sequence[str] = ("autoencoder",),
    batch: Sequence[int] = (1, 64),
    threads: int = 1,
    memory: Memory | Literal["both"] = "shared",
    progress: Progress | None = None,
) -> BenchResult:
    """A result with what was asked for beside its latencies.

    Args:
        result: of `bench` on this bundle.
        bundle: an open bundle.
        roofline: place each latency against the roofline of this machine.
        cold: fresh processes to their first output.
        memory_use: memory of fresh processes; a call has the largest of `batch` samples.
        callers: so many callers of one session at once, at most; a call has the fewest samples.
        runtime: as for `bench`, and so are the following.
        stage: of which callers call the first.
        batch: batch sizes.
        threads: CPU threads a session computes with.
        memory: "shared", "packed", or "both".
        progress: where to show progress; by default nowhere.

    Raises:
        UsageError: an argument is out of range.
    """
    started = time.perf_counter()
    way: _Way = {
        "runtime": runtime,
        "memory": memory,
        "threads": threads,
        "progress": progress,
    }
    if roofline:
        found = limits.roofline(bundle, result.latencies, progress=progress)
        result = replace(result, roofline=found)
    if cold:
        result = replace(result, cold_starts=starts.cold(bundle, **way))
    if memory_use:
        held = footprint(bundle, batch=max(batch), **way)
        result = replace(result, footprints=held)
    if callers:
        warmup_s = result.options.get("warmUp", 100.0) / 1e3
        first, least = stage[0], min(batch)
        loads = load(bundle, callers, stage=first, batch=least, warmup_s=warmup_s, **way)
        result = replace(result, loads=loads)
    return replace(result, seconds=result.seconds + time.perf_counter() - started)
