"""What several callers of one session get."""

from __future__ import annotations

from msgspec import Struct, field

from tiedexport.results.status import Status
from tiedexport.spec import Precision


class Load(Struct, frozen=True):
    """A number of threads that call one session in a closed loop: each again when it is answered.

    Every result is compared bit for bit with that of a single caller: one that differs fails.
    What is compared is outside the latency of a call, and inside the throughput. Runtimes take
    turns; the first call of each caller in a turn is compared and not timed.

    Attributes:
        callers: threads of Python that call; `threads` compute for each call.
        calls: of all callers.
        latencies_s: seconds of a call: "min", "mean", "p50", "p90", "p99", "max".
        throughput_per_s: samples a second of all callers together.
        different: results that differ.
    """

    runtime: str
    stage: str
    precision: Precision
    memory: str
    threads: int
    batch: int
    callers: int
    status: Status
    reason: str = ""
    calls: int = 0
    latencies_s: dict[str, float] = field(default_factory=dict)
    throughput_per_s: float | None = None
    different: int = 0
    remark: str = ""
