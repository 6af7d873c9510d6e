"""What `bench --server` reports: a server under load, and what the same costs in process."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from tiedexport.results.load import Load
from tiedexport.results.machine import Environment
from tiedexport.results.status import Status
from tiedexport.spec import Precision

SERVER_SCHEMA = 1


class ServerLoad(Struct, frozen=True):
    """One stage of a server under one load; every answer is compared with its golden values.

    Attributes:
        runtime: protocol and server, "triton over http".
        loop: "closed": each of `callers` asks again when it is answered; "open": requests arrive
            as scheduled ahead, whether or not the server has answered those before.
        callers: of a closed loop.
        offered_per_s: requests a second of an open loop.
        requests: how many there were, in all.
        failed: of them, those that the server refused or did not answer.
        different: of them, those whose answer is beyond its bound.
        achieved_per_s: requests a second that were answered well.
        throughput_per_s: samples of them.
        latencies_s: seconds of those: "min", "mean", "p50", "p90", "p99", "max"; in an open loop
            from the moment for which a request was scheduled, in a closed one from its sending.
        late_p99_s: how far behind its schedule the client was, itself part of the latency.
        versions: of the model, that answered.
        warnings: why the figures may not be of the server alone.
    """

    runtime: str
    stage: str
    precision: Precision
    batch: int
    loop: Literal["closed", "open"]
    status: Status
    reason: str = ""
    callers: int = 0
    offered_per_s: float | None = None
    requests: int = 0
    failed: int = 0
    different: int = 0
    achieved_per_s: float | None = None
    throughput_per_s: float | None = None
    latencies_s: dict[str, float] = field(default_factory=dict)
    late_p99_s: float | None = None
    versions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    remark: str = ""


class ServerResult(Struct, frozen=True):
    """All that `bench --server` measured.

    Attributes:
        bundle: whose golden pairs were asked for and compared.
        url: of the server.
        server: its name and version, as it tells them.
        models: stage → name of the model that was asked.
        options: as on the command line: duration in s, arrivals, and what else was given.
        rows: one a stage, batch size and load.
        loads: the same stages under closed loops of callers in this process, without a server.
        weights_sha256: digests of the weights that the bundle held.
    """

    bundle: str
    url: str
    server: str
    models: dict[str, str]
    rows: tuple[ServerLoad, ...]
    loads: tuple[Load, ...]
    environment: Environment
    seconds: float
    options: dict[str, float | str] = field(default_factory=dict)
    weights_sha256: dict[Precision, str] = field(default_factory=dict)
    schema: int = SERVER_SCHEMA

    @property
    def failed(self) -> bool:
        """Whether a request failed or an answer was wrong, or a contender in process failed."""
        return any(row.status == "failed" for rows in (self.rows, self.loads) for row in rows)

    @property
    def passed(self) -> bool:
        """Whether something was measured and nothing failed."""
        return not self.failed and any(row.status == "passed" for row in self.rows)
