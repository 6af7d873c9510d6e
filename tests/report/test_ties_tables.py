"""The rows and words that every page of an audit shares."""

from __future__ import annotations

from pathlib import PurePath

import handmade_ties
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tiedexport.report import tie_tables
from tiedexport.results.ties import AuditResult

HELD = handmade_ties.stage("ONNX files", "one copy", handmade_ties.held())
LOST = handmade_ties.stage("engine plan", "copies", handmade_ties.broken())
OPEN = handmade_ties.stage("device memory", "not proven")
NO_TIE = handmade_ties.stage("checkpoint", "no tie")
IDLE = handmade_ties.not_run("process memory")
LATER, NOW = handmade_ties.FINDINGS
EVERYWHERE = ("yes", "one copy at every stage that ran", "passed")


@pytest.mark.parametrize(
    ("stages", "findings", "verdict"),
    [
        ([HELD, IDLE], (), EVERYWHERE),
        ([HELD, NO_TIE], (LATER,), EVERYWHERE),
        ([HELD, replace(LOST, counts=False)], (), EVERYWHERE),
        (
            [HELD, OPEN],
            (),
            (
                "not proven",
                "device memory could not tell; one copy at every other stage that ran",
                "not run",
            ),
        ),
        ([HELD, LOST, LOST], (), ("no", "more than one copy in engine plan", "failed")),
        ([HELD], (NOW, LATER), ("no", "1 mistake in the module", "failed")),
        ([OPEN, IDLE], (), ("not proven", "device memory could not tell", "not run")),
        ([NO_TIE, IDLE], (), ("no tie", "each weight is used and stored once", "")),
        ([IDLE], (), ("–", "nothing could be measured here", "failed")),
        ([], (), ("–", "nothing could be measured here", "failed")),
    ],
)
def test_the_verdict_agrees_with_the_result(stages, findings, verdict):
    result = handmade_ties.audit(*stages, findings=findings)
    assert tuple(tie_tables.verdict(result)) == verdict
    assert (verdict[2] in ("passed", "")) is result.passed
    assert not (result.failed and verdict[2] != "failed")


@pytest.mark.parametrize(
    ("stage", "mark"),
    [
        (HELD, "passed"),
        (LOST, "failed"),
        (replace(LOST, counts=False), ""),
        (NO_TIE, ""),
        (OPEN, "not run"),
        (IDLE, "not run"),
    ],
)
def test_only_copies_in_a_row_that_counts_are_marked_as_failed(stage, mark):
    assert tie_tables.mark(stage) == mark


@pytest.mark.parametrize(
    ("stage", "figures"),
    [
        (HELD, ("1 of 1", "1.18 MiB", "1.18 MiB", "1.000", "one copy")),
        (LOST, ("0 of 1", "1.18 MiB", "2.35 MiB", "1.993", "copies")),
        (replace(HELD, status="not proven"), ("–", "1.18 MiB", "1.18 MiB", "1.000", "not proven")),
        (IDLE, ("–", "–", "–", "–", "not run")),
        (handmade_ties.stage("checkpoint", "no tie", rest=0), ("–", "–", "–", "–", "no tie")),
    ],
)
def test_figures_are_told_where_there_are_any(stage, figures):
    assert tie_tables.figures(stage) == figures


def test_equal_reasons_are_told_once_whatever_the_status():
    result = handmade_ties.audit(
        replace(HELD, reason="growth of Pss"), IDLE, handmade_ties.not_run("engine plan"), LOST
    )
    assert tie_tables.reasons(result) == [
        ("one copy", "ONNX files", "growth of Pss"),
        ("not run", "process memory, engine plan", handmade_ties.NO_GRAPH),
    ]


def test_every_copy_of_every_stage_is_in_the_table_of_copies():
    result: AuditResult = handmade_ties.healthy(3)
    table = tie_tables.copies(result)
    assert len(table.rows) == sum(len(t.copies) for s in result.stages for t in s.ties)
    assert {len(row) for row in table.rows} == {len(table.headers)}


paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@given(st.lists(st.one_of(paths, paths.map("/{}".format), st.just("memory")), max_size=6))
def test_the_shortest_ends_of_paths_are_ends_and_tell_them_apart(found):
    ends = tie_tables.shortest_ends(found)
    assert set(ends) == set(found)
    for path, end in ends.items():
        assert PurePath(path).parts[-len(PurePath(end).parts) :] == PurePath(end).parts
    assert len(set(ends.values())) == len({PurePath(path) for path in found})


@pytest.mark.parametrize(
    ("items", "most", "text"),
    [
        ((), 2, ""),
        (("a",), 2, "a"),
        (("a", "b", "c"), 2, "a, b, c"),
        (("a", "b", "c", "d"), 2, "a, b and 2 more"),
    ],
)
def test_a_list_names_the_first_and_counts_the_rest(items, most, text):
    assert tie_tables.listed(items, most) == text


def test_an_address_is_told_as_such():
    place = tie_tables.place(handmade_ties.copy("W", "memory", offset=0x7F00), {})
    assert place == "memory @ 0x7f00"
    assert tie_tables.place(handmade_ties.copy("W", "memory", offset=None), {}) == "memory"


def test_a_reader_is_told_without_the_file_that_the_copy_lies_in_itself():
    copy = handmade_ties.copy("W", "m.onnx")
    uses = (f"{copy.file}: gemm input 1", "old/o.onnx: gemm input 1", "a: b", "a")
    copy = replace(copy, uses=uses)
    stage = handmade_ties.stage("ONNX files", "one copy", handmade_ties.tie(copy))
    files = tie_tables.short_names(handmade_ties.audit(stage))
    assert tie_tables.readers(copy, files) == ["gemm input 1", "o.onnx: gemm input 1", "a: b", "a"]


def test_the_most_costly_of_broken_ties_comes_first():
    small = handmade_ties.tie(
        handmade_ties.copy("b", shape=(8,)), handmade_ties.copy("b_1", shape=(8,), form="same")
    )
    large = handmade_ties.broken()
    assert tie_tables.by_loss([small, handmade_ties.held(), large]) == [large, small]
