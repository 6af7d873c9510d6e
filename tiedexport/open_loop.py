"""Loads on something that answers requests: open loops without coordinated omission, and closed.

A closed loop waits for an answer before it asks again, so a server that stalls is not asked
meanwhile and its stall counts once. In an open loop requests arrive as scheduled ahead, and each
one's latency is counted from that moment: all that would have come during a stall count it (Gil
Tene, "How NOT to Measure Latency"; Schroeder et al., "Open Versus Closed", NSDI 2006).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tiedexport.results.server import ServerLoad

    Ask = Callable[[int], Awaitable["Reply"]]

Arrivals = Literal["poisson", "constant"]
Verdict = Literal["good", "failed", "different"]

ARRIVALS: tuple[Arrivals, ...] = get_args(Arrivals)
LEAST_REQUESTS = 100
"""Fewer have no 99th percentile."""

SATURATED = 0.95
"""Below this share of what is offered, a queue grows for as long as the load lasts."""

_PERCENTILES = (50, 90, 99)
_CLIENT_BOUND = 0.25
_LEAD_S = 0.01


@dataclass(frozen=True)
class Answer:
    """One request, in seconds of the event loop's clock.

    Attributes:
        due_s: when it was to be sent.
        begun_s: when it was.
        done_s: when its answer was there.
        why: what was wrong, where its verdict is not "good".
    """

    due_s: float
    begun_s: float
    done_s: float
    verdict: Verdict
    version: str = ""
    why: str = ""


@dataclass(frozen=True)
class Reply:
    """What a request came to; `at_s` is when the answer was there, before it was compared."""

    at_s: float
    verdict: Verdict
    version: str = ""
    why: str = ""


def arrivals_s(rate_per_s: float, duration_s: float, kind: Arrivals, seed: int = 0) -> np.ndarray:
    """Seconds from the beginning at which requests arrive, float64 [n], the same for one seed.

    Args:
        rate_per_s: requests a second.
        duration_s: for so long, or as many as a 99th percentile needs.
        kind: "poisson": independent of each other: given their number, arrivals of a Poisson
            process are uniform draws in order; "constant": equal gaps.
        seed: of the draws.
    """
    count = max(LEAST_REQUESTS, round(rate_per_s * duration_s))
    if kind == "constant":
        return np.arange(count) / rate_per_s
    return np.sort(np.random.default_rng(seed).uniform(0, count / rate_per_s, count))


async def open_loop(ask: Ask, due_s: np.ndarray) -> list[Answer]:
    """Send request `i` at `due_s[i]` seconds from now on, whatever became of those before.

    Args:
        ask: sends the request of that number and compares its answer.
        due_s: ascending seconds.
    """
    loop = asyncio.get_running_loop()
    start_s = loop.time() + _LEAD_S
    answers: list[Answer] = []
    tasks: list[asyncio.Task[None]] = []
    all_sent = loop.create_future()

    async def send(number: int, at_s: float) -> None:
        begun_s = loop.time()
        answers.append(_answer(at_s, begun_s, await ask(number)))

    def arrive(number: int, at_s: float) -> None:
        tasks.append(loop.create_task(send(number, at_s)))
        if len(tasks) == len(due_s):
            all_sent.set_result(None)

    for number, offset_s in enumerate(due_s):
        at_s = start_s + float(offset_s)
        loop.call_at(at_s, arrive, number, at_s)
    await all_sent
    await asyncio.gather(*tasks)
    return answers


async def closed_loop(
    ask: Ask, callers: int, duration_s: float, least_requests: int = LEAST_REQUESTS
) -> list[Answer]:
    """Let callers ask again and again, each when it is answered, for at least so long."""
    loop = asyncio.get_running_loop()
    answers: list[Answer] = []
    start_s = loop.time()
    sent = 0

    async def call() -> None:
        nonlocal sent
        while sent < least_requests or loop.time() - start_s < duration_s:
            begun_s, number, sent = loop.time(), sent, sent + 1
            answers.append(_answer(begun_s, begun_s, await ask(number)))

    await asyncio.gather(*(call() for _ in range(callers)))
    return answers


def _answer(due_s: float, begun_s: float, reply: Reply) -> Answer:
    return Answer(due_s, begun_s, reply.at_s, reply.verdict, reply.version, reply.why)


def summed_up(row: ServerLoad, answers: Sequence[Answer]) -> ServerLoad:
    """The figures of all answers; rates are over all of the time from the first request on.

    Args:
        row: says which loop it is, and how many samples a request has.
        answers: of all requests, at least one.
    """
    good = [one for one in answers if one.verdict == "good"]
    failed = sum(one.verdict == "failed" for one in answers)
    different = sum(one.verdict == "different" for one in answers)
    seconds = max(one.done_s for one in answers) - min(one.due_s for one in answers)
    if row.offered_per_s:  # the last is due a gap before the load's end
        seconds = max(seconds, len(answers) / row.offered_per_s)
    achieved = len(good) / seconds if seconds > 0 else None
    latencies = np.array([one.done_s - one.due_s for one in good])
    late = np.array([one.begun_s - one.due_s for one in answers])
    row = replace(
        row,
        status="failed" if failed or different else "passed",
        reason=_reason(answers, failed, different),
        requests=len(answers),
        failed=failed,
        different=different,
        achieved_per_s=achieved,
        throughput_per_s=None if achieved is None else achieved * row.batch,
        latencies_s=figures(latencies) if good else {},
        late_p99_s=float(np.percentile(late, 99)) if row.loop == "open" else None,
        versions=tuple(sorted({one.version for one in good if one.version})),
    )
    return replace(row, warnings=tuple(_warnings(row)))


def figures(seconds: np.ndarray) -> dict[str, float]:
    """Name → seconds: of all requests or calls of a load, float64 [n]."""
    percentiles = np.percentile(seconds, _PERCENTILES)
    return {
        "min": float(seconds.min()),
        "mean": float(seconds.mean()),
        **{f"p{p}": float(s) for p, s in zip(_PERCENTILES, percentiles, strict=True)},
        "max": float(seconds.max()),
    }


def _reason(answers: Sequence[Answer], failed: int, different: int) -> str:
    if not failed and not different:
        return ""
    first = next(one.why for one in answers if one.verdict != "good")
    of = f"of {len(answers)} requests {failed} failed and {different} were answered wrongly"
    return f"{of}; the first: {first}"


def saturated(row: ServerLoad) -> bool:
    """Whether an open loop's requests came faster than they were answered."""
    return (row.achieved_per_s or 0.0) < SATURATED * (row.offered_per_s or 0.0)


def _warnings(row: ServerLoad) -> list[str]:
    found = []
    if row.loop == "open" and saturated(row):
        found.append("saturated: a queue grew for as long as the load lasted")
    late, p99 = row.late_p99_s, row.latencies_s.get("p99")
    if late is not None and p99 is not None and late > _CLIENT_BOUND * p99:
        found.append("client-bound: requests left late, by more than a quarter of the p99")
    return found
