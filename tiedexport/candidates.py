"""Every runtime, precision and memory mode that could run a bundle, and why some cannot here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiedexport.errors import UsageError
from tiedexport.runtimes import all_runtimes, choose_precision, runtime_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Memory, Runtime
    from tiedexport.spec import Precision

MODES: dict[str, tuple[Memory, ...]] = {
    "shared": ("shared",),
    "packed": ("packed",),
    "both": ("shared", "packed"),
}


@dataclass(frozen=True)
class Candidate:
    """A way to run a bundle; `reason` says why it cannot be used, and is "" where it can."""

    runtime: Runtime
    precision: Precision
    memory: Memory
    reason: str


def candidates(
    bundle: Bundle, wanted: Sequence[str] = (), memory: str = "shared"
) -> Iterator[Candidate]:
    """All of them, by rank.

    Args:
        bundle: whose precisions are candidates.
        wanted: names of runtimes; by default all, of which those that are slow by design are not
            used.
        memory: "shared", "packed", or "both" where a runtime lays out both differently.

    Raises:
        UsageError: there is no such runtime or memory mode.
    """
    if memory not in MODES:
        raise UsageError("unknown memory mode", got=repr(memory), expected=", ".join(MODES))
    for row in [runtime_named(name) for name in dict.fromkeys(wanted)] or all_runtimes().values():
        found = row.availability()
        for precision in bundle.manifest.precisions:
            if not found.available:
                reason = found.why
            elif row.slow and not wanted:
                reason = f"slow by design; to measure it: --runtime {row.name}"
            else:
                _, reason = choose_precision(row, bundle, precision)
            for mode in MODES[memory] if row.packs else MODES[memory][:1]:
                yield Candidate(row, precision, mode, reason)
