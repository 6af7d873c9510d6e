"""What audit and retie found as rows of text, the same for the terminal, HTML and Markdown."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from tiedexport.report.tables import Table, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tiedexport.results.ties import AuditResult, Finding, Stage, StoredCopy, TiedWeight


class Verdict(NamedTuple):
    """Whether the tie holds: in a word, in a sentence, and as a mark like those of `Table`."""

    word: str
    sentence: str
    mark: str


def verdict(result: AuditResult) -> Verdict:
    """The answer over every stage that counts."""
    ran = [stage for stage in result.stages if stage.counts and stage.status != "not run"]
    by_status = {
        status: list(dict.fromkeys(stage.name for stage in ran if stage.status == status))
        for status in ("copies", "one copy", "not proven")
    }
    mistakes = sum(finding.breaks_now for finding in result.findings)
    if result.failed:
        parts = [f"more than one copy in {', '.join(by_status['copies'])}"] * bool(
            by_status["copies"]
        )
        parts += [f"{count(mistakes, 'mistake')} in the module"] * bool(mistakes)
        return Verdict("no", "; ".join(parts), "failed")
    if by_status["not proven"]:
        text = f"{', '.join(by_status['not proven'])} could not tell"
        elsewhere = "; one copy at every other stage that ran" * bool(by_status["one copy"])
        return Verdict("not proven", text + elsewhere, "not run")
    if by_status["one copy"]:
        return Verdict("yes", "one copy at every stage that ran", "passed")
    if ran:
        return Verdict("no tie", "each weight is used and stored once", "")
    return Verdict("–", "nothing could be measured here", "failed")


def mark(stage: Stage) -> str:
    """How a table shows a stage; copies in a row that is there for comparison are no failure."""
    return {
        "one copy": "passed",
        "copies": "failed" if stage.counts else "",
        "no tie": "",
        "not proven": "not run",
        "not run": "not run",
    }[stage.status]


def figures(stage: Stage) -> tuple[str, ...]:
    """Ties that hold, bytes needed, bytes stored, their ratio, and the status."""
    if stage.status == "not run":
        return ("–", "–", "–", "–", stage.status)
    held = sum(len(tie.copies) <= 1 for tie in stage.ties)
    known = stage.ties and stage.status != "not proven"
    return (
        f"{held} of {len(stage.ties)}" if known else "–",
        size(stage.needed_bytes) if stage.needed_bytes else "–",
        size(stage.stored_bytes) if stage.needed_bytes else "–",
        f"{ratio(stage):.3f}" if stage.needed_bytes else "–",
        stage.status,
    )


def ratio(stage: Stage) -> float:
    """Bytes stored over bytes needed; 0 where nothing is needed."""
    return stage.stored_bytes / stage.needed_bytes if stage.needed_bytes else 0.0


def stages(result: AuditResult) -> Table:
    """A row a stage, its subject in a column of its own."""
    return Table(
        ("stage", "what", "ties held", "needed", "stored", "ratio", "status"),
        tuple((stage.name, subject(stage), *figures(stage)) for stage in result.stages),
        first_number=2,
        marks=tuple(map(mark, result.stages)),
        wide=True,
    )


def subject(stage: Stage) -> str:
    """What was looked at, and whether the row decides anything."""
    return "; ".join(filter(None, (stage.subject, "" if stage.counts else "for comparison")))


def label(stage: Stage) -> str:
    """Stage and subject in one line."""
    return ": ".join(filter(None, (stage.name, subject(stage))))


def reasons(result: AuditResult) -> list[tuple[str, str, str]]:
    """(status, stages, reason) of every stage that has a reason; equal reasons in one."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for stage in result.stages:
        if stage.reason:
            groups.setdefault((stage.status, stage.reason), {})[label(stage)] = None
    return [(status, ", ".join(who), why) for (status, why), who in groups.items()]


def copies(result: AuditResult) -> Table:
    """Every physical copy of every tied weight at every stage."""
    files = short_names(result)
    rows, marks = [], []
    for stage in result.stages:
        for tie in stage.ties:
            for copy in tie.copies:
                rows.append((label(stage), tie.name, *_copy_cells(copy, files)))
                marks.append("")
    headers = ("stage", "tied weight", "form", "stored as", "type", "size", "where", "read by")
    return Table(headers, tuple(rows), first_number=len(headers), marks=tuple(marks))


def _copy_cells(copy: StoredCopy, files: dict[str, str]) -> tuple[str, ...]:
    return (
        copy.form,
        name(copy),
        kind(copy),
        size(copy.size_bytes),
        place(copy, files),
        listed(readers(copy, files), 8),
    )


def findings(result: AuditResult) -> list[Finding]:
    """Mistakes of a live module, those that break a tie already first."""
    return sorted(result.findings, key=lambda finding: not finding.breaks_now)


def when(breaks_now: bool) -> str:
    """Whether a finding's tie is lost yet."""
    return "broken already" if breaks_now else "at a later call"


def name(copy: StoredCopy) -> str:
    """The name, with the subgraph or function that it stands in."""
    return f"{copy.name} in {copy.scope}" if copy.scope else copy.name


def kind(copy: StoredCopy) -> str:
    """Element type and shape: float32 [392, 784]."""
    return f"{copy.dtype} [{', '.join(map(str, copy.shape))}]"


def place(copy: StoredCopy, files: dict[str, str]) -> str:
    """File and offset of the first byte; in memory its address."""
    shown = files.get(copy.file, copy.file)
    if copy.offset is None:
        return shown
    return f"{shown} @ {copy.offset:#x}" if copy.file == "memory" else f"{shown} @ {copy.offset:,}"


def readers(copy: StoredCopy, files: dict[str, str]) -> list[str]:
    """The uses, their files as short as they can be told, and the copy's own file not at all."""
    found = []
    for use in copy.uses:
        home, _, rest = use.partition(": ")
        known = home in files and rest
        found.append((rest if home == copy.file else f"{files[home]}: {rest}") if known else use)
    return found


def lost_bytes(tie: TiedWeight) -> int:
    """What the copies beyond the first take."""
    return tie.stored_bytes - tie.needed_bytes


def by_loss(ties: Iterable[TiedWeight]) -> list[TiedWeight]:
    """The ties that are stored more than once, the most costly first."""
    return sorted((tie for tie in ties if len(tie.copies) > 1), key=lost_bytes, reverse=True)


def totals(tie: TiedWeight) -> str:
    """2 copies, 1.17 MiB needed, 2.34 MiB stored; or 1 copy, 1.17 MiB."""
    if len(tie.copies) <= 1:
        return f"1 copy, {size(tie.stored_bytes)}"
    needed, stored = size(tie.needed_bytes), size(tie.stored_bytes)
    return f"{len(tie.copies)} copies, {needed} needed, {stored} stored"


def short_names(result: AuditResult) -> dict[str, str]:
    """Each file that holds or reads a copy → the shortest end of its path that no other has."""
    every = [copy for stage in result.stages for tie in stage.ties for copy in tie.copies]
    graphs = (use.partition(": ")[0] for copy in every for use in copy.uses)
    files = [*(copy.file for copy in every), *(home for home in graphs if home.endswith(".onnx"))]
    return shortest_ends(dict.fromkeys(files))


def shortest_ends(paths: Iterable[str]) -> dict[str, str]:
    """Each path → the shortest end of it that no other of them has."""
    parts = {path: PurePath(path).parts for path in paths}
    ends = {}
    for path, own in parts.items():
        others = [other for other in parts.values() if other != own]
        length = 1
        while length < len(own) and any(other[-length:] == own[-length:] for other in others):
            length += 1
        ends[path] = str(PurePath(*own[-length:])) if own else path
    return ends


def listed(items: Sequence[str], most: int) -> str:
    """The first few, and how many more."""
    more = len(items) - most
    if more <= 1:  # the last one takes no more room than "and 1 more"
        return ", ".join(items)
    return f"{', '.join(items[:most])} and {more:,} more"


def count(number: int, one: str, many: str = "") -> str:
    """1 tie, 2 ties."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def shortened(text: str, most: int) -> str:
    """Text of at most so many characters, its middle left out: both ends tell names apart."""
    if len(text) <= most:
        return text
    front = (most - 1) // 2
    return f"{text[:front]}…{text[len(text) - (most - 1 - front) :]}"
