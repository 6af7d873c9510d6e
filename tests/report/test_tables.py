"""Figures become text that says neither more nor less."""

from __future__ import annotations

import handmade
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiedexport.report import origin_tables, tables
from tiedexport.results import Comparison

SCALES = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


@given(st.floats(1e-9, 1e4))
def test_seconds_keep_three_significant_digits_in_the_unit_that_suits(value):
    digits, unit = tables.seconds(value).split(" ")
    assert float(digits) * SCALES[unit] == pytest.approx(value, rel=6e-3)
    assert 1 <= float(digits) < 1000 or unit == "s"


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.82e-5, "38.2 µs"), (1.237e-3, "1.24 ms"), (2.1, "2.10 s"), (0.9996e-3, "1.00 ms"),
     (None, "–"), (123.4, "123 s")],
)  # fmt: skip
def test_seconds_read_naturally(value, text):
    assert tables.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1023 * 1024, "0.999 MiB"),
     (3_565_158, "3.40 MiB"), (1 << 41, "2.00 TiB"), (1 << 60, "1048576 TiB")],
)  # fmt: skip
def test_sizes_read_naturally(value, text):
    assert tables.size(value) == text


def test_comparisons_are_errors_by_contender_and_stage_and_leave_out_what_did_not_run():
    table = tables.comparisons(handmade.verify_result())
    assert table.headers == ("runtime", "encoder", "decoder", "autoencoder", "status")
    assert table.rows == (
        ("onnxruntime fp32", "0.100", "0.200", "0.300", "passed"),
        ("torch fp16", "0.300", "0.300", "0.300", "passed"),
    )


def test_one_failed_stage_fails_its_row_and_a_runtime_that_did_not_open_has_a_row():
    result = handmade.verify_result()
    broken = Comparison("torch", "", handmade.FP32, "failed", "cannot open")
    over = handmade.comparison("onnxruntime", "decoder", handmade.FP16, 1.5)
    table = tables.comparisons(msgspec.structs.replace(result, comparisons=(broken, over)))
    assert table.rows == (
        ("torch fp32", "–", "failed"),
        ("onnxruntime fp16", "1.500", "failed"),
    )
    assert table.marks == ("failed", "failed")


def test_equal_reasons_of_a_runtime_are_told_once_with_all_its_precisions():
    rows = [
        Comparison("a", stage, precision, "not run", "no driver")
        for stage in ("encoder", "decoder")
        for precision in (handmade.FP32, handmade.FP16)
    ]
    rows.append(Comparison("b", "", None, "not run", "not installed"))
    rows.append(handmade.comparison("c", "encoder", handmade.FP32, 2.0))
    assert tables.not_run(rows) == [
        ("not run", "a fp32, fp16", "no driver"),
        ("not run", "b", "not installed"),
        ("failed", "c fp32", "error above its bound"),
    ]


def test_latencies_are_split_into_tables_of_a_few_batch_sizes():
    result = handmade.bench_result()
    first, second = tables.latencies(result, columns=2)
    assert first.headers == ("runtime", "batch 1", "batch 8")
    assert second.headers == ("runtime", "batch 64")
    assert first.title == "autoencoder: latency, median/p99, 1 thread"
    assert first.rows[0][:2] == ("onnxruntime fp32", "40.0/80.0 µs")


def test_a_batch_size_that_a_contender_did_not_run_is_a_dash():
    result = handmade.bench_result()
    fewer = tuple(r for r in result.latencies if (r.runtime, r.batch) != ("torch", 8))
    (table,) = tables.latencies(msgspec.structs.replace(result, latencies=fewer))
    assert table.rows[1][2] == "–"


def test_without_percentiles_only_the_median_is_shown():
    result = handmade.bench_result()
    bare = tuple(msgspec.structs.replace(r, percentiles_s={}) for r in result.latencies)
    (table,) = tables.latencies(msgspec.structs.replace(result, latencies=bare))
    assert table.rows[0][1] == "40.0 µs"


def test_details_have_a_cell_for_every_header():
    verify, bench = handmade.verify_result(), handmade.bench_result()
    every = (
        tables.comparison_details(verify),
        tables.quality(verify),
        tables.latency_details(bench),
        origin_tables.environment(handmade.ENVIRONMENT),
        origin_tables.training(handmade.training_record()),
    )
    for table in every:
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.headers)}
