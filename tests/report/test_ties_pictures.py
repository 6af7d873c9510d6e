"""Pictures of ties show every copy, its form and its readers, in colours that the page chooses."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import handmade_ties
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import same_color
from matplotlib.patches import FancyBboxPatch

from tiedexport.report import pictures, tie_pictures, tie_tables

LONG = "model.decoder.layers.11.self_attention.output_projection.weight.transposed_by_the_exporter"
AUDITS = {
    "healthy": handmade_ties.healthy(),
    "untied": handmade_ties.untied(),
    "module": handmade_ties.module(),
}


def drawn(result):
    """The first tie of the first stage that has one."""
    stage = next(stage for stage in result.stages if stage.ties)
    return tie_pictures.tie_chart(stage, stage.ties[0], tie_tables.short_names(result))


def of_copies(*copies):
    stage = handmade_ties.stage("ONNX files", "copies", handmade_ties.tie(*copies))
    return drawn(handmade_ties.audit(stage))


def texts(figure) -> list[str]:
    root = ET.fromstring(pictures.svg(figure, "x"))
    return ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")]


def boxes(figure, colour):
    patches = figure.axes[0].patches
    found = [patch for patch in patches if isinstance(patch, FancyBboxPatch)]
    return [patch for patch in found if same_color(patch.get_edgecolor(), colour)]


@pytest.mark.parametrize("name", AUDITS)
@pytest.mark.parametrize("chart", [tie_pictures.stage_chart, drawn], ids=["stages", "tie"])
def test_a_picture_takes_its_colours_and_its_size_from_the_page(name, chart):
    svg = pictures.svg(chart(AUDITS[name]), "x")
    root = ET.fromstring(svg)
    assert "width" not in root.attrib
    assert not any(colour in svg for colour in pictures.CSS_NAMES)
    assert "var(--series-1)" in svg or "var(--series-2)" in svg
    assert svg == pictures.svg(chart(AUDITS[name]), "x")


def test_a_lost_tie_shows_each_copy_with_form_size_place_and_readers():
    figure = drawn(AUDITS["untied"])
    shown = texts(figure)
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
    assert len(boxes(figure, tie_pictures.ORIGINAL)) == 2  # the stored tensor and its form
    assert len(boxes(figure, tie_pictures.COPY)) == 2
    assert len(boxes(figure, pictures.MUTED)) == 2


def test_a_tie_that_holds_shows_one_copy_and_two_readers():
    figure = drawn(AUDITS["healthy"])
    assert "one copy" in texts(figure)
    assert boxes(figure, tie_pictures.COPY) == []
    assert len(boxes(figure, pictures.MUTED)) == 2


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
    copy = handmade_ties.copy(
        LONG, f"{LONG}.onnx", form=form, shape=(4096, 11008, 16, 16), uses=(LONG,), scope=LONG
    )
    twin = handmade_ties.copy("W", "b.onnx")
    figure = of_copies(twin, copy)
    (axes,) = figure.axes
    figure.draw_without_rendering()
    frames = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    inside = [text.get_window_extent() for text in axes.texts[2:]]
    assert len(inside) == 2 * 4 + 1
    for extent in inside:
        assert any(
            frame.x0 <= extent.x0 and extent.x1 <= frame.x1 and frame.y0 <= extent.y0 <= frame.y1
            for frame in frames
        )
    page = figure.get_window_extent()
    assert all(text.get_window_extent().x1 <= page.x1 for text in axes.texts)


def test_bars_show_needed_and_stored_bytes_of_every_stage_that_ran():
    figure = tie_pictures.stage_chart(AUDITS["healthy"])
    widths = sorted(bar.get_width() for bar in figure.axes[0].patches)
    ran = [stage for stage in AUDITS["healthy"].stages if stage.status != "not run"]
    assert widths == sorted(b for s in ran for b in (s.needed_bytes, s.stored_bytes))
    shown = texts(figure)
    assert "2.35 MiB stored: 1.993 ×" in shown
    assert "process memory: fp32" in shown
    assert not any("device memory" in text for text in shown)


def test_bars_of_copies_have_another_colour():
    colours = [
        bar.get_facecolor() for bar in tie_pictures.stage_chart(AUDITS["untied"]).axes[0].patches
    ]
    assert same_color(colours[0], tie_pictures.COPY)


def test_there_are_no_bars_where_nothing_was_measured():
    assert (
        tie_pictures.stage_chart(handmade_ties.audit(handmade_ties.not_run("checkpoint"))) is None
    )


@given(st.text(max_size=60), st.integers(3, 40))
def test_a_shortened_text_keeps_both_ends_and_its_limit(text, most):
    short = tie_pictures.shortened(text, most)
    assert len(short) <= most
    if len(text) > most:
        front, back = short.split("…", 1) if "…" not in text else (short[:1], short[-1:])
        assert text.startswith(front)
        assert text.endswith(back)
    else:
        assert short == text
