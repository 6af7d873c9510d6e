"""Charts show what they are given, take their colours from the page, and are reproducible."""

from __future__ import annotations

import io
import json
import math
import xml.etree.ElementTree as ET

import altair as alt
import handmade
import handmade_ties
import msgspec
import numpy as np
import pytest
from chart_data import values
from PIL import Image

from tiedexport.report import (
    bytes_charts,
    charts,
    layers_chart,
    model_charts,
    numbers_charts,
    reconstruction_grid,
    speed_charts,
    tie_pictures,
    tie_tables,
    training_curves,
)
from tiedexport.report.storage import storage
from tiedexport.spec import Layer

LIMITS = {"fp32": {1: 1e-5, 64: 2e-4}}
LAYERS = (
    Layer("dense", "a"),
    Layer("relu"),
    Layer("dense", "b"),
    Layer("dense", "b", transposed=True),
    Layer("conv_transpose", "a"),
)
NAMES = (
    "model",
    "storage",
    "errors",
    "layers",
    "latency",
    "throughput",
    "training",
    "latent",
    "spread",
    "tie",
)


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    bundle = handmade.bundle(tmp_path_factory.mktemp("charts") / "m.tied")
    verify, bench = handmade.verify_result(), handmade.bench_result()
    layers = [msgspec.structs.replace(r, layer="relu_0") for r in verify.comparisons]
    untied = handmade_ties.untied()
    stage = next(stage for stage in untied.stages if stage.ties)
    files = tie_tables.short_names(untied)
    points = [(0.0, 1.0), (1.0, -1.0), (0.5, 0.25)]
    return {
        "model": layers_chart.layers_chart(LAYERS, {"a": (6, 8, 3, 3), "b": (2, 6)}),
        "storage": bytes_charts.bytes_chart(bytes_charts.storage_bars(storage(bundle))),
        "errors": numbers_charts.error_map(verify.comparisons),
        "layers": numbers_charts.layer_map(layers),
        "latency": speed_charts.latency_chart(bench, "autoencoder", LIMITS),
        "throughput": speed_charts.throughput_chart(bench, "autoencoder", LIMITS),
        "training": model_charts.training_chart([0.3, 0.1, 0.2], "RMSE", mark_least=True),
        "latent": model_charts.latent_chart(points, [3, 1, 3], (0.6, 0.4)),
        "spread": model_charts.error_chart([0.1, 0.2, 0.2], "native fp32"),
        "tie": tie_pictures.tie_chart(stage, stage.ties[0], files, "two copies"),
    }


def texts(spec) -> str:
    root = ET.fromstring(charts.svg(spec, "x"))
    return " | ".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("text"))


@pytest.mark.parametrize("name", NAMES)
def test_a_chart_is_valid_vega_lite_with_a_text_in_its_place(specs, name):
    spec = specs[name]
    again = alt.Chart.from_dict({"$schema": alt.SCHEMA_URL, **spec}).to_dict()
    assert again["description"] == spec["description"]
    assert len(spec["description"]) > 8


@pytest.mark.parametrize("name", NAMES)
def test_a_still_drawing_is_one_svg_without_fixed_colours_or_size(specs, name):
    drawn = charts.svg(specs[name], name)
    root = ET.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "width" not in root.attrib
    assert "viewBox" in root.attrib
    assert "var(--ink)" in drawn or "var(--muted)" in drawn
    assert not any(colour in drawn for colour in charts.CSS_NAMES)
    ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert all(found.startswith(f"{name}-") for found in ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_live_chart_has_the_colours_of_the_page_and_cannot_end_its_script(specs, name):
    text = charts.live(specs[name])
    assert "<" not in text
    assert not any(colour in text for colour in charts.CSS_NAMES)
    assert json.loads(text)["description"] == specs[name]["description"]


def test_a_chart_is_the_same_bytes_every_time(specs):
    spec = specs["errors"]
    assert charts.png(spec) == charts.png(spec)
    assert charts.svg(spec, "a") == charts.svg(spec, "a")


def test_layers_have_bars_in_order_and_arcs_join_those_of_one_weight(specs):
    bars = values(specs["model"], 0)
    assert [bar["said"] for bar in bars] == ["8 → 6", "6 → 2", "2 → 6", "6 → 8"]
    arcs = values(specs["model"], 2)
    ends = [(point["arc"], point["y"]) for point in arcs if point["step"] in (0, 24)]
    assert ends == [("a 0", 0), ("a 0", 3), ("b 1", 1), ("b 1", 2)]


def test_layers_without_ties_have_no_arcs_and_too_many_are_not_drawn():
    alone = layers_chart.layers_chart(LAYERS[:3], {"a": (6, 8), "b": (2, 6)})
    assert len(alone["layer"]) == 2
    assert layers_chart.layers_chart(LAYERS * 9, {"a": (6, 8), "b": (2, 6)}) is None
    assert layers_chart.layers_chart((), {}) is None


def test_the_error_map_has_a_cell_for_each_comparison_that_ran(specs):
    shown = texts(specs["errors"])
    for words in ("onnxruntime fp32", "torch fp16", "encoder", "decoder", "autoencoder", "0.20"):
        assert words in shown
    assert "tensorrt" not in shown


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(2.5, "failed", "2.50"), (math.inf, "failed", "> 100"), (None, "failed", "failed")],
)
def test_a_failure_has_the_colour_of_failures_whatever_its_error(error, status, said):
    row = handmade.comparison("torch", "encoder", handmade.FP32, 0.5)
    failed = msgspec.structs.replace(row, error_in_bounds=error, status=status)
    spec = numbers_charts.error_map([row, msgspec.structs.replace(failed, runtime="other")])
    cells = {cell["who"]: cell for cell in values(spec)}
    assert cells["other fp32"]["colour"] == charts.BAD
    assert cells["other fp32"]["said"] == said
    assert cells["torch fp32"]["colour"] != charts.BAD


def test_the_latency_chart_has_a_line_a_contender_on_log_axes_and_the_limit(specs):
    spec = specs["latency"]
    assert {row["limit"] for row in values(spec, 0)} == {"limit fp32"}
    encoded = spec["layer"][-2]["encoding"]
    assert encoded["x"]["scale"]["type"] == encoded["y"]["scale"]["type"] == "log"
    rows = values(spec, -2)
    assert {row["who"] for row in rows} == {"onnxruntime fp32", "torch fp32"}
    assert rows[0]["latency_s"] == pytest.approx(4e-5)
    assert "limit fp32" in texts(spec)


def test_the_limit_of_throughput_is_samples_over_the_least_seconds(specs):
    assert [row["value"] for row in values(specs["throughput"], 0)] == pytest.approx([1e5, 3.2e5])


def test_limits_that_end_together_share_a_name():
    limits = {"fp32": {1: 1e-5, 64: 2e-4}, "fp16": {64: 1.9e-4}, "bf16": {64: 1e-6}}
    spec = speed_charts.latency_chart(handmade.bench_result(), "autoencoder", limits)
    assert [row["limit"] for row in values(spec, 1)] == ["limit bf16", "limit fp16, fp32"]


def test_there_is_no_limit_where_none_was_measured():
    spec = speed_charts.latency_chart(handmade.bench_result(), "autoencoder")
    assert "limit" not in json.dumps(spec)


def test_the_training_chart_names_the_best_epoch(specs):
    assert "best: 0.1000 at 2" in texts(specs["training"])


def test_codes_are_coloured_by_label_only_where_there_are_labels(specs):
    assert "color" in specs["latent"]["encoding"]
    assert [row["label"] for row in values(specs["latent"])] == ["3", "1", "3"]
    plain = model_charts.latent_chart([(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)], (), (0.6, 0.4))
    assert "field" not in plain["encoding"]["color"]


def test_the_histogram_counts_every_sample_and_marks_the_error_over_all(specs):
    assert sum(row["samples"] for row in values(specs["spread"], 0)) == 3
    assert values(specs["spread"], 1)[0]["at"] == pytest.approx(math.sqrt(0.09 / 3))


def test_bars_end_where_the_stored_bytes_end(specs):
    rows = values(specs["storage"], 0)
    assert [row["whole"] for row in rows[:2]] == ["fp32 files", "fp32 with one copy a use"]
    assert rows[1]["stored"] > rows[1]["needed"]
    assert rows[0]["opacity"] == 1.0 > rows[1]["opacity"]


def test_the_first_screen_has_all_bars_that_count_and_the_costliest_of_the_others():
    bars = [
        bytes_charts.Bar("a", 10, 11),
        bytes_charts.Bar("b", 10, 30, counts=False),
        bytes_charts.Bar("c", 10, 40, counts=False),
        bytes_charts.Bar("d", 10, 10),
    ]
    assert [bar.label for bar in bytes_charts.telling(bars)] == ["a", "c", "d"]


def test_a_name_with_angle_brackets_is_drawn_as_it_is():
    result = handmade.bench_result()
    rows = [msgspec.structs.replace(row, runtime="$<b>_x$") for row in result.latencies]
    spec = speed_charts.latency_chart(
        msgspec.structs.replace(result, latencies=tuple(rows)), "autoencoder"
    )
    assert "$<b>_x$" in texts(spec)


def test_there_is_no_chart_when_nothing_ran():
    verify, bench = handmade.verify_result(), handmade.bench_result()
    idle = [row for row in verify.comparisons if row.status == "not run"]
    assert numbers_charts.error_map(idle) is None
    empty = msgspec.structs.replace(bench, latencies=())
    assert speed_charts.latency_chart(empty, "encoder") is None
    assert speed_charts.throughput_chart(empty, "encoder") is None


def test_training_curves_survive_a_single_epoch_and_nan(tmp_path):
    training_curves(tmp_path / "one.png", [0.5], [math.nan])
    assert np.asarray(Image.open(tmp_path / "one.png")).std() > 0


@pytest.mark.parametrize("colour", [(), (3,)])
def test_a_reconstruction_grid_shows_every_row(tmp_path, colour):
    rows = {
        "originals": np.full((5, 8, 8, *colour), 1.0),
        "reconstructions": np.zeros((5, 8, 8, *colour)),
    }
    reconstruction_grid(tmp_path / "grid.png", rows)
    grid = np.asarray(Image.open(io.BytesIO((tmp_path / "grid.png").read_bytes())).convert("L"))
    middle = grid[:, grid.shape[1] // 2]
    assert (middle == 0).sum() > 100
    assert (middle == 255).sum() > 100
