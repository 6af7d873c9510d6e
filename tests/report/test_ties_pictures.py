"""Pictures of ties show every copy, its form and its readers, in colours that the page chooses."""

from __future__ import annotations

import handmade_ties
import pytest
from chart_data import values
from hypothesis import given
from hypothesis import strategies as st

from tiedexport.report import bytes_charts, charts, tie_pictures, tie_tables
from tiedexport.report.tie_pictures import COPY, ORIGINAL

LONG = "model.decoder.layers.11.self_attention.output_projection.weight.transposed_by_the_exporter"
AUDITS = {
    "healthy": handmade_ties.healthy(),
    "untied": handmade_ties.untied(),
    "module": handmade_ties.module(),
}


def drawn(result):
    """The first tie of the first stage that has one."""
    stage = next(stage for stage in result.stages if stage.ties)
    return tie_pictures.tie_chart(stage, stage.ties[0], tie_tables.short_names(result), "a tie")


def of_copies(*copies):
    stage = handmade_ties.stage("ONNX files", "copies", handmade_ties.tie(*copies))
    return drawn(handmade_ties.audit(stage))


def rows(spec, field):
    """The data of the first layer that has such a field."""
    found = (values(spec, layer) for layer in range(len(spec["layer"])))
    return next(data for data in found if data and field in data[0])


def texts(spec) -> list[str]:
    return [row["words"] for row in rows(spec, "words")]


def boxes(spec, colour):
    return [row for row in rows(spec, "x2") if row["colour"] == colour]


def test_a_lost_tie_shows_each_copy_with_form_size_place_and_readers():
    spec = drawn(AUDITS["untied"])
    shown = texts(spec)
    for text in (
        "layers.0.weight: 2 copies, 1.17 MiB needed, 2.34 MiB stored",
        "layers.0.weight",
        "original",
        "float32 [392, 784], 1.17 MiB",
        "encoder.onnx @ 412",
        "node_linear_0 (Gemm) input 1",
        "val_0",
        "transposed",
        "float32 [784, 392], 1.17 MiB",
        "decoder.onnx @ 97",
        "node_matmul_0 (MatMul) input 1",
    ):
        assert text in shown
        assert text in charts.svg(spec, "x")
    assert len(boxes(spec, ORIGINAL)) == 2  # the stored tensor and its form
    assert len(boxes(spec, COPY)) == 2
    assert len(boxes(spec, charts.MUTED)) == 2


def test_a_tie_that_holds_shows_one_copy_and_two_readers():
    spec = drawn(AUDITS["healthy"])
    assert "one copy" in texts(spec)
    assert boxes(spec, COPY) == []
    assert len(boxes(spec, charts.MUTED)) == 2


def test_many_copies_and_readers_are_counted_instead_of_drawn():
    uses = tuple(f"node_{n} (Gemm) input 1" for n in range(40))
    original = handmade_ties.copy("W", uses=uses)
    others = [handmade_ties.copy(f"W_{n}", f"{n}.onnx", form="same") for n in range(30)]
    shown = texts(of_copies(original, *others))
    assert "and 35 more" in shown
    assert "and 25 more copies" in shown
    assert "node_4 (Gemm) input 1" in shown
    assert "node_5 (Gemm) input 1" not in shown


@pytest.mark.parametrize("form", ["original", "cast and transposed", f"permuted ({LONG})"])
def test_no_text_leaves_its_box(form):
    """A character is about 6.6 pixels wide on average, at this size in any usual font."""
    copy = handmade_ties.copy(
        LONG, f"{LONG}.onnx", form=form, shape=(4096, 11008, 16, 16), uses=(LONG,), scope=LONG
    )
    spec = of_copies(handmade_ties.copy("W", "b.onnx"), copy)
    frames = rows(spec, "x2")
    inside = rows(spec, "words")[2:]
    assert len(inside) >= 2 * 4 + 1
    for text in inside:
        width = 6.6 * len(text["words"])
        left = text["x"] - width / 2 if text["kind"] == "centred" else text["x"]
        assert any(
            frame["x"] <= left
            and left + width <= frame["x2"]
            and frame["y"] < text["y"] < frame["y2"]
            for frame in frames
        ), text
    assert all(frame["x2"] <= tie_pictures.WIDTH for frame in frames)


def test_bars_show_needed_and_stored_bytes_of_every_stage_that_ran():
    bars = bytes_charts.stage_bars(AUDITS["healthy"])
    ran = [stage for stage in AUDITS["healthy"].stages if stage.status != "not run"]
    assert [(b.needed_bytes, b.stored_bytes) for b in bars] == [
        (stage.needed_bytes, stage.stored_bytes) for stage in ran
    ]
    shown = charts.svg(bytes_charts.bytes_chart(bars), "x")
    assert "2.35 MiB: 1.993 ×" in shown
    assert "process memory: fp32" in shown
    assert "device memory" not in shown


def test_bars_of_copies_have_another_colour():
    assert bytes_charts.stage_bars(AUDITS["untied"])[0].colour == COPY


def test_there_are_no_bars_where_nothing_was_measured():
    idle = handmade_ties.audit(handmade_ties.not_run("checkpoint"))
    assert bytes_charts.stage_bars(idle) == []


@given(st.text(max_size=60), st.integers(3, 40))
def test_a_shortened_text_keeps_both_ends_and_its_limit(text, most):
    short = tie_tables.shortened(text, most)
    assert len(short) <= most
    if len(text) > most:
        front, back = short.split("…", 1) if "…" not in text else (short[:1], short[-1:])
        assert text.startswith(front)
        assert text.endswith(back)
    else:
        assert short == text
