"""Charts show what they are given, take their colours from the page, and are reproducible."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import handmade
import msgspec
import numpy as np
import pytest
from matplotlib import image

from tiedexport.report import pictures, reconstruction_grid, training_curves
from tiedexport.report.storage import storage


@pytest.fixture(scope="module")
def charts(tmp_path_factory):
    bundle = handmade.bundle(tmp_path_factory.mktemp("charts") / "m.tied")
    return {
        "storage": pictures.storage_chart(storage(bundle)),
        "errors": pictures.error_chart(handmade.verify_result()),
        "latency": pictures.latency_chart(handmade.bench_result(), "autoencoder"),
        "training": pictures.training_chart([1.0, 0.5, 0.4], [0.3, 0.1, 0.2]),
    }


NAMES = ("storage", "errors", "latency", "training")


def texts(figure) -> str:
    root = ET.fromstring(pictures.svg(figure, "x"))
    return " | ".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("text"))


@pytest.mark.parametrize("name", NAMES)
def test_a_chart_is_one_well_formed_svg_without_fixed_colours_or_size(charts, name):
    drawn = pictures.svg(charts[name], name)
    root = ET.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "width" not in root.attrib
    assert "viewBox" in root.attrib
    assert "var(--ink)" in drawn or "var(--muted)" in drawn
    assert not any(colour in drawn for colour in pictures.CSS_NAMES)
    assert "<style" not in drawn
    assert "<metadata" not in drawn


@pytest.mark.parametrize("name", NAMES)
def test_ids_carry_the_name_so_that_charts_can_share_a_page(charts, name):
    root = ET.fromstring(pictures.svg(charts[name], name))
    ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    used = [v for node in root.iter() for k, v in node.attrib.items() if k.endswith("href")]
    assert all(found.startswith(f"{name}-") for found in ids)
    assert {reference.removeprefix("#") for reference in used} <= set(ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_chart_is_the_same_bytes_every_time(charts, name):
    assert pictures.png(charts[name]) == pictures.png(charts[name])
    assert pictures.svg(charts[name], "a") == pictures.svg(charts[name], "a")


def test_the_error_chart_has_a_row_for_each_contender_that_ran_and_the_line_of_the_bound(charts):
    shown = texts(charts["errors"])
    for name in ("onnxruntime fp32", "torch fp16", "encoder", "decoder", "autoencoder"):
        assert name in shown
    assert "tensorrt" not in shown
    (axes,) = charts["errors"].axes
    assert any(list(line.get_xdata()) == [1.0, 1.0] for line in axes.lines)
    low, high = axes.get_xlim()
    assert low < 0.1 < 1.0 < high


def test_the_latency_chart_has_a_line_for_each_contender_on_log_axes(charts):
    (axes,) = charts["latency"].axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert set(lines) == {"onnxruntime fp32", "torch fp32"}
    np.testing.assert_allclose(lines["onnxruntime fp32"][0], [1, 4e-5])


def test_the_training_chart_names_the_best_epoch(charts):
    assert "best: 0.1000 at 2" in texts(charts["training"])


def test_training_curves_survive_a_single_epoch_and_nan(tmp_path):
    training_curves(tmp_path / "one.png", [0.5], [math.nan])
    assert image.imread(tmp_path / "one.png").std() > 0


def test_a_name_with_dollar_signs_and_angle_brackets_is_drawn_as_it_is():
    result = handmade.bench_result()
    rows = [msgspec.structs.replace(row, runtime="$<b>_x$") for row in result.latencies]
    figure = pictures.latency_chart(
        msgspec.structs.replace(result, latencies=tuple(rows)), "autoencoder"
    )
    assert "$<b>_x$ fp32" in texts(figure)


def test_there_is_no_chart_when_nothing_ran():
    verify, bench = handmade.verify_result(), handmade.bench_result()
    idle = tuple(row for row in verify.comparisons if row.status == "not run")
    assert pictures.error_chart(msgspec.structs.replace(verify, comparisons=idle)) is None
    assert pictures.latency_chart(msgspec.structs.replace(bench, latencies=()), "encoder") is None


def test_an_infinite_error_does_not_break_the_chart():
    verify = handmade.verify_result()
    first = msgspec.structs.replace(verify.comparisons[0], error_in_bounds=math.inf)
    figure = pictures.error_chart(
        msgspec.structs.replace(verify, comparisons=(first, *verify.comparisons[1:]))
    )
    (axes,) = figure.axes
    assert np.isfinite(axes.get_xlim()).all()


@pytest.mark.parametrize("colour", [(), (3,)])
def test_a_reconstruction_grid_shows_every_row_with_its_label(tmp_path, colour):
    rows = {
        "originals": np.random.default_rng(0).random((5, 8, 8, *colour)),
        "reconstructions": np.zeros((5, 8, 8, *colour)),
    }
    figure = pictures.grid_chart(rows)
    assert "originals" in texts(figure)
    assert len(figure.axes) == 2
    reconstruction_grid(tmp_path / "grid.png", rows)
    assert image.imread(tmp_path / "grid.png").shape[1] > 5 * 8
