"""An audit as a page: the first screen answers, pictures of broken ties come first."""

from __future__ import annotations

import re

import handmade
import handmade_ties
import numpy as np
import onnx
import pytest
from html_outline import Outline
from msgspec.structs import replace

from tiedexport.audit import audit
from tiedexport.report import audit_report, report, ties_section, ties_terminal

pytestmark = pytest.mark.usefixtures("quick_charts")

EVIL = "<script>alert(1)</script>\"'&"


def page_of(result, folder) -> Outline:
    return Outline(audit_report(result, folder / "audit.html").read_text("utf-8"))


@pytest.mark.parametrize(
    ("result", "figures"),
    [
        (handmade_ties.healthy(), ["yes", "1", "1.000 ×", "of layers.0.weight"]),
        (handmade_ties.healthy(4), ["yes", "1", "of each of 4 tied weights"]),
        (handmade_ties.untied(), ["no", "2", "1.993 ×", "of layers.0.weight in ONNX files"]),
        (handmade_ties.untied(3, whole=2), ["3 of 5 tied weights there have more than one"]),
    ],
    ids=["healthy", "healthy, 4 layers", "untied", "untied in part"],
)
def test_the_first_screen_answers_whether_it_holds_how_many_and_how_large(result, figures):
    answers = ties_section.answers(result)
    assert [answer.question for answer in answers] == [
        "Does the tie hold?",
        "How many copies are there?",
        "What do they take?",
    ]
    told = [part for answer in answers for part in (answer.figure, answer.detail)]
    for figure in figures:
        assert any(figure == part or (len(figure) > 4 and figure in part) for part in told)


def test_where_nothing_ran_there_is_one_answer_and_it_is_no_success(tmp_path):
    result = handmade_ties.audit(handmade_ties.not_run("ONNX files"))
    (answer,) = ties_section.answers(result)
    assert answer.mark == "failed"
    page = page_of(result, tmp_path)
    assert page.headings == [
        "digits.tied",
        "Does the tie hold?",
        "From stage to stage",
        "To repeat this",
    ]
    assert handmade_ties.NO_GRAPH in page.text


def test_the_twin_has_the_same_sections_and_its_pictures_exist(tmp_path):
    result = handmade_ties.module()
    page = page_of(result, tmp_path)
    twin = (tmp_path / "audit.md").read_text("utf-8")
    assert re.findall(r"^## (.*)$", twin, flags=re.MULTILINE) == page.headings[4:]
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", twin)
    assert len(linked) == 2
    for name in linked:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_at_most_six_ties_are_drawn_the_broken_first_each_once(tmp_path):
    result = handmade_ties.untied(3, whole=20)
    page = page_of(result, tmp_path)
    labels = [a["aria-label"] for t, a in page.tags if t == "svg" and "role" in a][1:]
    names = [re.search(r", (layers\.\d+\.weight): ", label)[1] for label in labels]
    assert names[:3] == [f"layers.{n}.weight" for n in range(3)]
    assert len(names) == len(set(names)) == 6
    assert "6 of 23 tied weights are drawn, broken ones first" in page.text


def test_a_tie_is_drawn_where_it_is_lost_and_else_where_something_reads_it(tmp_path):
    bare = handmade_ties.tie(handmade_ties.copy("layers.0.weight", "model.pt"))
    checkpoint = handmade_ties.stage("checkpoint", "one copy", bare)
    held = handmade_ties.stage("ONNX files", "one copy", handmade_ties.held())
    lost = handmade_ties.stage("engine plan", "copies", handmade_ties.broken())
    whole = ties_section._to_draw(handmade_ties.audit(checkpoint, held))
    assert [stage for stage, _ in whole] == [held]
    broken = ties_section._to_draw(handmade_ties.audit(checkpoint, held, lost))
    assert [stage for stage, _ in broken] == [lost]
    bias = handmade_ties.tie(
        handmade_ties.copy("b"), handmade_ties.copy("b_1", "c.onnx", form="same")
    )
    cheap = replace(bias, needed_bytes=8, stored_bytes=16)
    both = ties_section._to_draw(handmade_ties.audit(replace(lost, ties=(cheap, *lost.ties))))
    assert [tie.name for _, tie in both] == ["layers.0.weight", "b"]
    compared = ties_section._to_draw(
        handmade_ties.audit(checkpoint, held, replace(lost, counts=False))
    )
    assert [stage for stage, _ in compared] == [held]


def test_the_page_tells_every_copy_mistake_reason_and_the_command(tmp_path):
    page = page_of(handmade_ties.module(), tmp_path)
    for finding in handmade_ties.FINDINGS:
        for text in (finding.kind, finding.where, finding.consequence, finding.instead):
            assert text in page.text
    assert "memory @ 0x7f1234000040" in page.text
    assert "tiedexport audit mine:make" in page.text
    untied = page_of(handmade_ties.untied(), tmp_path)
    assert "tiedexport audit encoder.onnx decoder.onnx" in untied.text
    assert handmade_ties.NO_GPU in untied.text


def test_hostile_names_stay_text(tmp_path):
    copy = handmade_ties.copy(EVIL, f"{EVIL}.onnx", uses=(EVIL,), scope=EVIL)
    twin = handmade_ties.copy(EVIL, "b.onnx", form=EVIL)
    stage = handmade_ties.stage("ONNX files", "copies", handmade_ties.tie(copy, twin), subject=EVIL)
    finding = replace(handmade_ties.FINDINGS[0], where=EVIL, instead=EVIL)
    result = handmade_ties.audit(stage, findings=(finding,), things=(EVIL,))
    page = page_of(result, tmp_path)
    assert "<script>alert" not in (tmp_path / "audit.html").read_text("utf-8")
    assert EVIL in page.text
    twin = (tmp_path / "audit.md").read_text("utf-8")
    assert "<script" not in re.sub(r"(?ms)^(`{3,})$.*?^\1$", "", twin)  # code may hold anything


def test_the_page_asks_the_network_for_nothing_and_its_ids_are_unique(tmp_path):
    page = page_of(handmade_ties.untied(4), tmp_path)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base", "form")
        assert attributes.get("href", "#").startswith("#")


@pytest.mark.parametrize(
    ("audit", "figure"), [(handmade_ties.healthy(), "yes"), (handmade_ties.untied(), "no")]
)
def test_the_first_answer_of_a_bundles_report_is_the_audits(tmp_path, audit, figure):
    bundle = handmade.bundle(tmp_path / "m.tied")
    alone = Outline(report(bundle, output=tmp_path / "alone.html").read_text("utf-8"))
    page = Outline(report(bundle, audit=audit, output=tmp_path / "r.html").read_text("utf-8"))
    added = ["From stage to stage", "Around each tie"]
    where = alone.headings.index("One copy of every weight") + 1
    assert page.headings == [*alone.headings[:where], *added, *alone.headings[where:]]
    answer = page.text[page.text.index("Does the tie hold?") :][:160]
    assert f" {figure}" in answer
    assert "headers and graphs included" in answer
    assert "tiedexport audit m.tied" in page.text
    assert "not run, tiedexport audit does it" in alone.text
    assert "not run, tiedexport audit" not in page.text


def test_no_audit_makes_a_bundle_hold_that_stores_too_much(tmp_path, monkeypatch):
    bundle = handmade.bundle(tmp_path / "m.tied")
    monkeypatch.setattr(bundle, "manifest", replace(bundle.manifest, parameter_count=200))
    path = report(bundle, audit=handmade_ties.healthy(), output=tmp_path / "r.html")
    answer = Outline(path.read_text("utf-8")).text.split("Does the tie hold?")[1]
    assert answer.lstrip("✗ ").startswith("no")


def test_the_audit_of_two_real_files_is_told_on_the_page_and_on_the_terminal(tmp_path, capsys):
    weight = np.random.default_rng(0).normal(size=(8, 24)).astype(np.float32)
    for name, stored in (("encoder", weight), ("decoder", np.ascontiguousarray(weight.T))):
        rows, columns = stored.shape
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Gemm", ["x", f"{name}.w"], ["y"], f"{name}_gemm", transB=1)],
            name,
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", columns])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", rows])],
            [onnx.numpy_helper.from_array(stored, f"{name}.w")],
        )
        opsets = [onnx.helper.make_opsetid("", 20)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.save(model, tmp_path / f"{name}.onnx")
    result = audit([tmp_path / "encoder.onnx", tmp_path / "decoder.onnx"])
    page = page_of(result, tmp_path)
    ties_terminal.print_audit(result)
    for text in (page.text, capsys.readouterr().out):
        shown = " ".join(text.split())
        assert "encoder.w: 2 copies, 768 B needed, 1.50 KiB stored" in shown
        for name in ("encoder", "decoder"):
            assert f"{name}_gemm (Gemm) input 1" in shown
            offset = (
                (tmp_path / f"{name}.onnx")
                .read_bytes()
                .index((weight if name == "encoder" else weight.T).tobytes())
            )
            assert f"{name}.onnx @ {offset:,}" in shown
