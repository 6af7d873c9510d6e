"""Never passed: what failed, did not run, never reported, or looked at nothing."""

from __future__ import annotations

import io
import json

import handmade
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import tiedexport.acceptance as verb
from tiedexport.acceptance import pages
from tiedexport.acceptance.job import reporting
from tiedexport.acceptance.sharing import judged_growth
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError
from tiedexport.report import markdown
from tiedexport.results import Latency, to_json
from tiedexport.results.acceptance import (
    NEVER_REPORTED,
    AcceptanceResult,
    Check,
    Note,
    judged,
    unreported,
)

STATUSES = st.sampled_from(["passed", "failed", "not run"])
CHECKS = st.builds(
    lambda status: Check("a plan", status, "" if status == "passed" else "because"), STATUSES
)
LATENCIES = st.builds(
    lambda status: Latency("r", "encoder", handmade.FP16, 1, 1, status, "because"), STATUSES
)
FINDINGS = st.lists(CHECKS | LATENCIES | st.just(Note("no SM90")), max_size=6)


def section_of(*statuses: str):
    return judged("s", "?", [Check("c", status, "why") for status in statuses], 0.0)


def result_of(*sections, finished=True) -> AcceptanceResult:
    return AcceptanceResult("GPU", tuple(sections), handmade.ENVIRONMENT, 1.0, finished)


@given(FINDINGS)
def test_a_section_passes_only_if_it_looked_and_all_of_it_passed(findings):
    section = judged("s", "?", findings, 1.0)
    statuses = [row.status for row in findings if not isinstance(row, Note)]
    if "failed" in statuses or not statuses:
        assert section.status == "failed"
    elif "not run" in statuses:
        assert section.status == "not run"
    else:
        assert section.status == "passed"
    assert bool(section.reason) == (section.status != "passed")
    assert len(section.checks) + len(section.latencies) + len(section.notes) == len(findings)


@given(st.lists(st.lists(STATUSES, max_size=3), max_size=4), st.booleans())
def test_a_run_passes_only_if_it_ended_and_all_sections_passed(groups, finished):
    sections = [section_of(*statuses) for statuses in groups]
    result = result_of(*sections, finished=finished)
    verdicts = {section.status for section in sections}
    assert result.failed == ("failed" in verdicts)
    assert result.passed == (finished and verdicts == {"passed"})
    assert not (result.passed and result.failed)


@given(st.lists(FINDINGS, min_size=1, max_size=3))
def test_json_says_what_the_records_say(groups):
    result = result_of(*(judged(f"s{i}", "?", found, 0.5) for i, found in enumerate(groups)))
    decoded = json.loads(to_json(result))
    assert decoded.pop("passed") == result.passed
    assert msgspec.convert(decoded, AcceptanceResult) == result


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (MissingRuntimeError("no driver", hint="install it"), "not run", "no driver; install it"),
        (ImportError("No module named 'onnx'"), "not run", "onnx"),
        (RuntimeFailedError("it refused"), "failed", "it refused"),
        (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
    ],
)
def test_what_is_raised_ends_a_section_but_loses_nothing(error, status, said):
    def findings():
        yield Check("first", "passed")
        raise error

    first, last = reporting("section", findings())
    assert (first.status, last.what, last.status) == ("passed", "section", status)
    assert said in last.reason
    assert judged("s", "?", [first, last], 0.0).status == status


def test_an_interrupted_run_leaves_files_in_which_the_rest_has_failed(tmp_path, monkeypatch):
    def interrupted(job):
        yield Check("half of it", "passed")
        raise KeyboardInterrupt

    sections = [("one", "?", lambda job: iter([Check("all of it", "passed")]))]
    sections += [("two", "?", interrupted), ("three", "?", interrupted)]
    monkeypatch.setattr(verb, "SECTIONS", tuple(sections))
    with pytest.raises(KeyboardInterrupt):
        verb.acceptance(output=tmp_path)
    left = json.loads((tmp_path / "acceptance.json").read_bytes())
    assert [row["status"] for row in left["sections"]] == ["passed", "failed", "failed"]
    assert {row["reason"] for row in left["sections"][1:]} == {NEVER_REPORTED}
    assert (left["finished"], left["passed"]) == (False, False)
    assert "never reported" in (tmp_path / "acceptance.md").read_text()


@pytest.mark.parametrize(
    ("statuses", "passed", "failed"),
    [
        (("passed", "passed"), True, False),
        (("passed", "not run"), False, False),
        (("not run", "failed"), False, True),
    ],
)
def test_every_section_is_judged_although_another_disagrees(
    tmp_path, monkeypatch, statuses, passed, failed
):
    def answering(status):
        return lambda job: iter([Check("c", status, "" if status == "passed" else "why")])

    sections = tuple((f"s{i}", "?", answering(status)) for i, status in enumerate(statuses))
    monkeypatch.setattr(verb, "SECTIONS", sections)
    result = verb.acceptance(output=tmp_path)
    assert [section.status for section in result.sections] == list(statuses)
    assert (result.passed, result.failed, result.finished) == (passed, failed, True)
    assert json.loads((tmp_path / "acceptance.json").read_bytes())["passed"] == passed


@given(st.lists(STATUSES, min_size=1, max_size=4))
def test_no_text_says_passed_of_what_did_not_run(statuses):
    """A word of a verdict stands in the texts as often as that verdict was given."""
    rows = [Check(f"c{i}", s, "" if s == "passed" else "why") for i, s in enumerate(statuses)]
    result = result_of(*(judged(f"s{i}", "?", [row], 0.0) for i, row in enumerate(rows)))
    console = Console(record=True, width=200, file=io.StringIO())
    pages.print_result(result, console)
    printed = console.export_text().lower()
    assert printed.count("passed") == 2 * statuses.count("passed")
    rows, _, overview = printed.rpartition("of them failed")
    lines = [line for line in (rows + overview).splitlines() if "not run" in line]
    assert all("passed" not in line for line in lines)


def test_the_page_has_every_section_and_plots_what_was_measured(tmp_path):
    pytest.importorskip("altair")
    timed = handmade.latency("tensorrt shared, graph", handmade.FP16, 8, 1e-5)
    absent = Latency("torch eager", "autoencoder", handmade.FP16, 8, 1, "not run", "no CUDA")
    result = result_of(
        judged("speed", "How long?", [timed, absent, Note("a note")], 1.0),
        unreported("failures", "Refused?"),
    )
    pages.write(result, tmp_path / "acceptance.md")
    text = (tmp_path / "acceptance.md").read_text()
    assert (tmp_path / "acceptance-pictures" / "latency-autoencoder.png").stat().st_size > 1000
    for said in ("How long?", "10.0", "no CUDA", "a note", markdown.text(NEVER_REPORTED)):
        assert said in text
    assert "failed after" in text


@pytest.mark.parametrize(
    ("mode", "grown", "status"),
    [
        ("shared", [1.05, 1.08, 1.1], "passed"),
        ("shared", [1.05, 2.1, 3.1], "failed"),
        ("shared", [0.05, 0.1, 0.1], "failed"),  # the instrument sees nothing
        ("shared", [2.05, 2.1, 2.1], "failed"),
        ("baked", [1.05, 2.1, 3.1], "passed"),
        ("baked", [1.05, 1.1, 1.1], "failed"),
        ("one-plan", [1.05], "passed"),
        ("one-plan", [2.05], "failed"),
    ],
)
def test_growth_is_one_weight_for_all_or_one_each(mode, grown, status):
    check = judged_growth("memory", mode, grown)
    assert check.status == status
    assert list(check.figures.values()) == grown
