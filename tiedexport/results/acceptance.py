"""What the acceptance of a GPU reports: sections that are fixed beforehand, each with a verdict.

A section is passed only if it looked at something and all of it passed. What could not run is never
passed, and a section that never reported has failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from tiedexport.results import RESULT_SCHEMA, Environment, Latency, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEVER_REPORTED = "it never reported: the run ended before or in it"


class Check(Struct, frozen=True):
    """One thing that a section looked at, and the figures that it saw, named with their units."""

    what: str
    status: Status
    reason: str = ""
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


class Note(Struct, frozen=True):
    """What a reader must know and no machine of this kind can change: TensorRT-RTX has no SM90."""

    text: str


Finding = Check | Latency | Note
"""What a section yields, one after the other."""


class Section(Struct, frozen=True):
    """A section and its verdict.

    Attributes:
        name: one word.
        question: what it answers.
        reason: of a verdict that is not "passed".
        checks, latencies, notes: what it found until it ended.
    """

    name: str
    question: str
    status: Status
    reason: str = ""
    checks: tuple[Check, ...] = ()
    latencies: tuple[Latency, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


class AcceptanceResult(Struct, frozen=True):
    """Every section of the acceptance, in order, whether or not it ran.

    Attributes:
        device: name and compute capability; empty where there is none.
        finished: whether the run came to its end; a file that says no is of one that did not.
    """

    device: str
    sections: tuple[Section, ...]
    environment: Environment
    seconds: float
    finished: bool = False
    schema: int = RESULT_SCHEMA

    @property
    def failed(self) -> bool:
        """Whether any section disagreed, raised or never reported."""
        return any(section.status == "failed" for section in self.sections)

    @property
    def passed(self) -> bool:
        """Whether the run came to its end and every section passed."""
        passed = all(section.status == "passed" for section in self.sections)
        return self.finished and bool(self.sections) and passed


def unreported(name: str, question: str) -> Section:
    """A section before it has run."""
    return Section(name, question, "failed", NEVER_REPORTED)


def judged(name: str, question: str, findings: Iterable[Finding], seconds: float) -> Section:
    """The verdict on what a section found: any failure, else anything not run, else passed."""
    found = list(findings)
    checks = tuple(one for one in found if isinstance(one, Check))
    latencies = tuple(one for one in found if isinstance(one, Latency))
    status, reason = _verdict([*checks, *latencies])
    notes = tuple(one.text for one in found if isinstance(one, Note))
    return Section(name, question, status, reason, checks, latencies, notes, seconds)


def _verdict(rows: Sequence[Check | Latency]) -> tuple[Status, str]:
    if not rows:
        return "failed", "it looked at nothing"
    for status in ("failed", "not run"):
        here = [row for row in rows if row.status == status]
        if here:
            reasons = list(dict.fromkeys(row.reason.split("\n", 1)[0] for row in here))
            more = f", and {len(reasons) - 1} other reasons" if reasons[1:] else ""
            share = "" if len(here) == len(rows) else f"{len(here)} of {len(rows)}: "
            return status, f"{share}{reasons[0]}{more}"
    return "passed", ""
