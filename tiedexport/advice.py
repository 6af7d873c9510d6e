"""What to deploy: the fastest whose numbers match and whose tie holds, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tiedexport.measure.intervals import paired
from tiedexport.report.tables import contender, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tiedexport.results import BenchResult, Latency, VerifyResult
    from tiedexport.results.ties import AuditResult
    from tiedexport.spec import Precision

_STAGE = "autoencoder"
_NAMED = 3


def advise(
    bench: BenchResult | None,
    verify: VerifyResult | None,
    audit: AuditResult | None,
    hidden_copies: Callable[[str, Precision], str | None],
) -> str:
    """Name the runtime, precision and memory mode to deploy, and why.

    It is the fastest at the smallest batch size measured, by the median, among those of which every
    stage that was compared passed, and whose memory holds each weight once. Whoever is not slower
    than it beyond chance is named beside it, and it is then not called the fastest; so is named
    what has a smaller median but is ruled out.

    Args:
        bench: whose rows of the autoencoder count.
        verify: whether the numbers match.
        audit: where a runtime holds weights more than once, if it was measured.
        hidden_copies: runtime, precision → why it holds weights more than once, or None.
    """
    for verb, result in (("bench", bench), ("verify", verify)):
        if result is None:
            return f"not known before tiedexport {verb} has run."
    assert bench is not None
    assert verify is not None
    rows = _rows(bench)
    if not rows:
        return "not known: nothing could be measured here."
    whys = {id(row): _ruled_out(row, verify, audit, hidden_copies) for row in rows}
    fit = [row for row in rows if not whys[id(row)]]
    if not fit:
        reasons = (f"{contender(row)}: {whys[id(row)]}" for row in rows[:_NAMED])
        return f"nothing that was measured; {'; '.join(reasons)}."
    best = fit[0]
    faster = [(row, whys[id(row)]) for row in rows[: rows.index(best)]]
    doubts = ", ".join(dict.fromkeys(warning.kind for warning in best.warnings))
    unsteady = f" (unsteady: {doubts})" if doubts else ""
    rivals = _rivals(best, fit[1:])
    place = "the least median" if rivals else "the fastest"
    which = "the only one" if len(fit) == 1 else f"{place} of {len(fit)}"
    return f"{_choice(best, which)}{unsteady}{rivals}{_excluded(faster)}."


def _rows(bench: BenchResult) -> list[Latency]:
    """What was measured at the smallest batch size, the fastest first."""
    ran = [row for row in bench.latencies if row.stage == _STAGE and row.median_s is not None]
    smallest = min((row.batch for row in ran), default=0)
    return sorted((r for r in ran if r.batch == smallest), key=lambda row: row.median_s or 0.0)


def _ruled_out(
    row: Latency,
    verify: VerifyResult,
    audit: AuditResult | None,
    hidden_copies: Callable[[str, Precision], str | None],
) -> str:
    """Why it is not to be deployed; or ""."""
    if row.memory == "packed":
        return "packed memory may hold weights more than once"
    if row.remark:
        return row.remark
    compared = [
        found.status
        for found in verify.comparisons
        if (found.runtime, found.precision) == (row.runtime, row.precision)
    ]
    if "failed" in compared:
        return "its numbers do not match"
    if "passed" not in compared:
        return "its numbers were not verified"
    measured = () if audit is None else audit.stages
    subject = f"{row.runtime} {row.precision} "
    if any(s.status == "copies" and f"{s.subject} ".startswith(subject) for s in measured):
        return "its memory was seen to hold weights more than once"
    return hidden_copies(row.runtime, row.precision) or ""


def _choice(best: Latency, which: str) -> str:
    time = f"{seconds(best.median_s)} a call at batch {best.batch}"
    threads = "1 thread" if best.threads == 1 else f"{best.threads} threads"
    return (
        f"{best.runtime} in {best.precision}, memory {best.memory}, with {time} and {threads}, "
        f"{which} whose numbers match and whose tie holds"
    )


def _rivals(best: Latency, others: Sequence[Latency]) -> str:
    """Those that the interval does not separate from the best, and those without an interval."""
    near, unknown = [], []
    for row in others:
        if not (row.rounds_ns and best.rounds_ns):
            unknown.append(contender(row))
            continue
        found = paired(np.array(row.rounds_ns), np.array(best.rounds_ns))
        if found.low is None:
            unknown.append(contender(row))
        elif found.verdict != "slower":
            near.append(contender(row))
    told = ""
    if near:
        told += (
            f", while {_listed(near)} {'is' if len(near) == 1 else 'are'} not shown to be slower"
        )
    if unknown:
        told += f", with too few rounds to tell chance from difference to {_listed(unknown)}"
    return told


def _excluded(faster: Sequence[tuple[Latency, str]]) -> str:
    if not faster:
        return ""
    told = [f"{contender(row)} ({seconds(row.median_s)}): {why}" for row, why in faster[:_NAMED]]
    return f"; with a smaller median, but ruled out: {'; '.join(told)}"


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:_NAMED], *([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
