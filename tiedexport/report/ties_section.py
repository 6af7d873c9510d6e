"""What a report says of an audit: the first answers, the stages, and a picture a tie."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING

from tiedexport.report import bytes_charts, origin_tables, tie_pictures, tie_tables
from tiedexport.report.page import Answer, Chart, Commands, Fold, Page, Reasons, Section
from tiedexport.report.tables import size

if TYPE_CHECKING:
    from tiedexport.report.page import Block
    from tiedexport.results.ties import AuditResult, Stage, TiedWeight

_PICTURES = 6
_THINGS_SHOWN = 3


def page(result: AuditResult) -> Page:
    """A report of an audit alone."""
    names = tie_tables.listed([PurePath(thing).name for thing in result.things], _THINGS_SHOWN)
    command = shlex.join(["tiedexport", "audit", *result.things])
    closing = Section(
        "To repeat this",
        "Copies are found by content; a path may differ on another machine.",
        (Commands((command,)), origin_tables.environment(result.environment)),
    )
    subtitle = "audit: how many physical copies of each tied weight, stage by stage"
    return Page(names, subtitle, answers(result), (*sections(result), closing))


def answers(result: AuditResult) -> tuple[Answer, ...]:
    """Does the tie hold, how many copies are there, and what do they take?"""
    found = [Answer("Does the tie hold?", *tie_tables.verdict(result))]
    stages = [stage for stage in result.stages if stage.counts and stage.status != "not run"]
    if with_ties := [stage for stage in stages if stage.ties]:
        found.append(_copies_answer(with_ties))
    if measured := [stage for stage in stages if stage.needed_bytes]:
        found.append(_bytes_answer(measured))
    return tuple(found)


def _copies_answer(stages: list[Stage]) -> Answer:
    """Of the worst tie at its worst stage."""
    worst = max(stages, key=lambda stage: max(len(tie.copies) for tie in stage.ties))
    tie = max(worst.ties, key=lambda tie: len(tie.copies))
    copies = len(tie.copies)
    if copies <= 1:
        ties = max(len(stage.ties) for stage in stages)
        detail = f"of {tie.name}" if ties == 1 else f"of each of {ties:,} tied weights"
    else:
        detail = f"of {tie.name} in {worst.name}"
        lost = len(tie_tables.by_loss(worst.ties))
        if len(worst.ties) > 1:
            detail += f"; {lost:,} of {len(worst.ties):,} tied weights there have more than one"
    return Answer("How many copies are there?", f"{copies:,}", detail)


def _bytes_answer(stages: list[Stage]) -> Answer:
    worst = max(stages, key=tie_tables.ratio)
    detail = (
        f"{size(worst.stored_bytes)} stored for {size(worst.needed_bytes)} needed: "
        f"{tie_tables.label(worst)}"
    )
    return Answer("What do they take?", f"{tie_tables.ratio(worst):.3f} ×", detail)


def sections(result: AuditResult) -> tuple[Section, ...]:
    """Stages, ties, and the mistakes of a live module where there are any."""
    found = [_stage_section(result)]
    if result.findings:
        found.append(_mistake_section(result))
    if any(stage.ties for stage in result.stages if stage.counts):
        found.append(_tie_section(result))
    return tuple(found)


def _mistake_section(result: AuditResult) -> Section:
    blocks: list[Block] = []
    for finding in tie_tables.findings(result):
        who = f"{finding.kind}: {finding.where}"
        reason = (tie_tables.when(finding.breaks_now), who, finding.consequence)
        blocks += [Reasons((reason,)), Commands(tuple(finding.instead.splitlines()))]
    text = "What is written in the module, what follows from it, and what to write instead."
    return Section("Mistakes in the module", text, tuple(blocks))


def _stage_section(result: AuditResult) -> Section:
    text = (
        "A weight on its way from Python to a device. Needed is each weight once, stored is what "
        "lies there. Rows for comparison, drawn pale, decide nothing."
    )
    blocks: list[Block] = []
    if bars := bytes_charts.stage_bars(result):
        blocks.append(Chart("stages", bytes_charts.bytes_chart(bars)))
    blocks.append(tie_tables.stages(result))
    if reasons := tie_tables.reasons(result):
        blocks.append(Reasons(tuple(reasons)))
    return Section("From stage to stage", text, tuple(blocks))


def _tie_section(result: AuditResult) -> Section:
    files = tie_tables.short_names(result)
    drawn = _to_draw(result)
    blocks: list[Block] = []
    for index, (stage, tie) in enumerate(drawn):
        picture = tie_pictures.tie_chart(stage, tie, files, _alt(stage, tie, files))
        blocks.append(Chart(f"tie-{index}", picture, wide=True))
    blocks.append(Fold("Every copy of every tied weight", (tie_tables.copies(result),)))
    every = {tie.name for stage in result.stages if stage.counts for tie in stage.ties}
    shown = len({tie.name for _, tie in drawn})
    text = (
        "Stored copies on the left, in orange what repeats another; on the right what reads them."
    )
    if shown < len(every):
        text += f" {shown} of {len(every):,} tied weights are drawn, broken ones first."
    return Section("Around each tie", text, tuple(blocks))


def _to_draw(result: AuditResult) -> list[tuple[Stage, TiedWeight]]:
    """A stage for each tied weight: where most is lost, else a graph, else what reads it.

    Broken ties come first, the most costly at their head.
    """
    pairs = [(stage, tie) for stage in result.stages if stage.counts for tie in stage.ties]
    pairs.sort(key=lambda pair: _interest(*pair))
    first: dict[str, tuple[Stage, TiedWeight]] = {}
    for stage, tie in pairs:
        first.setdefault(tie.name, (stage, tie))
    return list(first.values())[:_PICTURES]


def _interest(stage: Stage, tie: TiedWeight) -> tuple[bool, int, bool, bool]:
    broken = len(tie.copies) > 1
    whole_graph = stage.name == "ONNX files"
    return (not broken, -tie_tables.lost_bytes(tie), not whole_graph, not tie.uses)


def _alt(stage: Stage, tie: TiedWeight, files: dict[str, str]) -> str:
    copies = []
    for copy in tie.copies:
        readers = tie_tables.listed(tie_tables.readers(copy, files), 4) or "nothing here"
        copies.append(f"{tie_tables.name(copy)} ({copy.form}) read by {readers}")
    return f"{tie_tables.label(stage)}, {tie.name}: {'; '.join(copies)}"
