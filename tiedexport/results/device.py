"""What `bench` tells of a call on a GPU, part by part, in trtexec's terms."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct, field

from tiedexport.results.status import Status

Part = Literal["latency", "h2d", "compute", "d2h", "enqueue"]
PARTS: tuple[Part, ...] = get_args(Part)


class Figures(Struct, frozen=True):
    """Seconds, over every timed call (none dropped).

    Attributes:
        percentiles_s: "p99" → seconds, interpolated linearly between calls.
    """

    min_s: float
    mean_s: float
    median_s: float
    max_s: float
    percentiles_s: dict[str, float] = field(default_factory=dict)


class DeviceTimes(Struct, frozen=True):
    """A call with its copies by CUDA events, on a stream of its own, without waiting for each.

    Attributes:
        graph: whether what computes is launched as one CUDA graph; copies are outside it.
        iterations: how many calls were timed.
        parts: "latency": the device's time of a call, which is the sum of the next three; "h2d": of
            the copy of the input from pinned memory to the device; "compute": of what computes, and
            where the host enqueues that more slowly, its waiting; "d2h": of the copy of the output
            from the device to pinned memory; "enqueue": the host's time to enqueue what computes.
            Empty where it did not run.
    """

    graph: bool
    status: Status
    reason: str = ""
    iterations: int = 0
    parts: dict[Part, Figures] = field(default_factory=dict)
