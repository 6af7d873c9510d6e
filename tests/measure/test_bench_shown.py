"""What bench found, on a terminal and as JSON: whole, in 80 columns, and as its schema says."""

from __future__ import annotations

import io
import re
from functools import cache

import handmade
import jsonschema
import msgspec
import numpy as np
import pytest
from msgspec import structs
from rich.console import Console

from tiedexport.measure.against import compared
from tiedexport.measure.baseline import baseline_from, ratios
from tiedexport.measure.stability import warned
from tiedexport.measure.statistics import filled
from tiedexport.report import bench_tables, speed_section
from tiedexport.report.bench_terminal import print_bench
from tiedexport.report.page import Reasons
from tiedexport.results import BenchResult, Latency, to_json
from tiedexport.results.bench import Timer, WarmUp
from tiedexport.results.device import DeviceTimes
from tiedexport.results.load import Load
from tiedexport.results.schema import bench_schema
from tiedexport.spec import Precision

SPEEDS = {"onnxruntime": 1.0, "native": 0.5, "torch": 1.001, "tensorrt_network": 30.0}
DRIVER = "no CUDA driver; install the NVIDIA display driver on a machine with an NVIDIA GPU"


def measured(runtime: str, batch: int, scatter: float, factor: float = 1.0) -> Latency:
    rng = np.random.default_rng([batch, list(SPEEDS).index(runtime)])
    call_ns = 1e5 * batch * SPEEDS[runtime] * factor
    turns = [call_ns * np.exp(scatter * rng.normal() + rng.normal(size=9) / 50) for _ in range(60)]
    remark = "network, simulated" if runtime == "tensorrt_network" else ""
    row = Latency(runtime, "autoencoder", Precision.FP32, batch, 1, "passed", remark=remark)
    warm_up = WarmUp(call_ns / 1e9, 0.2, 2000, 0.01, stable=True)
    return warned(filled(row, [turn.astype(np.int64) for turn in turns], (90, 99), warm_up), 8e-8)


@cache
def whole(scatter: float = 0.01, factor: float = 1.0) -> BenchResult:
    """A result with something in every field."""
    rows = [measured(name, batch, scatter, factor) for batch in (1, 8, 64) for name in SPEEDS]
    device = tuple(DeviceTimes(graph, "not run", DRIVER) for graph in (False, True))
    absent = Latency("tensorrt", "autoencoder", Precision.FP16, 1, 1, "not run", DRIVER)
    rows.append(structs.replace(absent, device=device))
    name, speeds = ratios(rows, baseline_from("onnxruntime"))
    result = BenchResult(
        "m.tied",
        tuple(rows),
        handmade.ENVIRONMENT,
        9.0,
        {"warmUp": 200.0, "duration": 1.0, "iterations": 10.0, "threads": 1.0},
        timer=Timer(8e-8, 2e-7, 50_000, 1e-9),
        baseline=name,
        ratios=speeds,
        confidence=0.99,
        references=tuple(measured("onnxruntime", batch, 0.001) for batch in (1, 8, 64)),
    )
    later = structs.replace(result, latencies=result.latencies[1:])
    return structs.replace(result, against=compared(later, {"then [1].json": result}, 10))


def printed(result: BenchResult, *, details: bool = False, tty: bool = False, **options) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=tty, highlight=False, **options)
    print_bench(result, console, details=details)
    return stream.getvalue()


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_all_of_it_fits_80_columns_and_is_plain_in_a_pipe():
    text = printed(whole(scatter=0.3))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text


def test_on_a_terminal_even_the_details_fit_80_columns_and_no_color_is_honoured():
    text = printed(whole(), details=True, tty=True, no_color=True, color_system=None)
    assert max(map(len, text.splitlines())) <= 80
    coloured = printed(whole(factor=2.0), tty=True, color_system="standard")
    assert "\x1b[3" in coloured


def test_a_ratio_has_its_interval_and_none_is_claimed_between_equals():
    (first, second) = bench_tables.ratios(whole())
    assert "onnxruntime fp32" in first.title
    assert "99 %" in first.title
    assert first.headers == ("runtime", "batch 1", "batch 8")
    assert second.headers == ("runtime", "batch 64")
    cells = {row[0]: row[1] for row in first.rows}
    assert re.fullmatch(r"(1\.99|2\.0\d) × \[[12]\.\d\d, 2\.\d\d\]", cells["native fp32"])
    assert cells["torch fp32"].startswith("– [")
    assert cells["tensorrt_network fp32 (network, simulated)"].startswith("0.03 ×")


def test_rows_without_enough_independent_rounds_have_no_interval_and_say_so():
    rows = [measured(name, 1, 0.01) for name in ("onnxruntime", "native")]
    drifting = tuple(100_000 + 1000 * n for n in range(60))
    rows[1] = structs.replace(rows[1], rounds_ns=drifting)
    _, speeds = ratios(rows, baseline_from("onnxruntime"))
    result = structs.replace(whole(), ratios=speeds, against=None)
    text = one_line(printed(result))
    assert "– (1 of 60 rounds)" in text
    assert "1 of 1 rows have not enough independent rounds" in text
    assert "no interval" not in printed(whole())
    (told,) = bench_tables.few_rounds(speeds)
    assert told in bench_tables.against_remarks(structs.replace(whole().against, changes=speeds))
    (why,) = (b for b in speed_section.section(result).blocks if isinstance(b, Reasons))
    assert told in why.rows


def test_details_are_trtexec_s_lines_unbroken_in_a_pipe():
    lines = printed(whole(), details=True).splitlines()
    (latency, *_) = [line for line in lines if line.startswith("  Latency: ")]
    for name in ("min", "max", "mean", "median", "percentile(90%)", "percentile(99%)"):
        assert f"{name} = " in latency
    row = whole().latencies[0]
    assert f"median = {1e3 * row.median_s:.6g} ms" in latency
    assert f"  Throughput: {1 / row.mean_s:.6g} qps of 1 each" in lines


def test_what_may_not_repeat_is_said_once_a_kind_with_the_worst_row():
    noisy = whole(scatter=0.3)
    text = one_line(printed(noisy))
    assert text.count("noise may not repeat") == 1
    every = [one for row in noisy.latencies for one in row.warnings if one.kind == "noise"]
    assert max(every, key=lambda one: one.value).reason in text
    assert min(every, key=lambda one: one.value).reason not in text
    assert "12 of 12 rows" in text
    assert "limit 10%" in text
    assert "may not repeat" not in printed(whole())


def test_a_runtime_without_a_gpu_has_its_row_and_its_reason_once():
    text = one_line(printed(whole()))
    assert "tensorrt off, on not run" in text
    assert text.count(DRIVER) == 1
    lines = printed(whole(), details=True).splitlines()
    for graph in ("off", "on"):
        (line,) = [line for line in lines if f"(CUDA graph {graph})" in line]
        assert "GPU Compute Time" in line
        assert line.endswith(f": not run: {DRIVER}")
    assert "timing adds 0.08 µs to a call" in text


def test_a_percentile_of_too_few_calls_to_have_one_says_so():
    turns = [np.full(10, 100_000)] * 9
    few = filled(whole().latencies[0], turns, (90, 99), whole().latencies[0].warm_up)
    result = structs.replace(whole(), latencies=(few, *whole().latencies[1:]))
    text = one_line(printed(result))
    assert "p99 may not repeat of so few calls little but their maximum: 1 rows" in text
    assert "the fewest 90 calls of onnxruntime fp32, autoencoder, batch 1;" in text
    assert "p90 may not repeat" not in text
    (said,) = bench_tables.few_calls(structs.replace(result, loads=(handmade_load(calls=99),)))
    assert "2 rows" in said[2]
    enough = structs.replace(whole(), loads=(handmade_load(calls=100),))
    assert bench_tables.few_calls(enough) == []


def handmade_load(calls: int) -> Load:
    figures = {"min": 1e-4, "p50": 1e-4, "p90": 1e-4, "p99": 1e-4, "max": 1e-4}
    named = ("native", "autoencoder", Precision.FP32, "shared", 1, 1)
    return Load(*named, callers=2, status="passed", calls=calls, latencies_s=figures)


def test_changes_are_shown_where_chance_does_not_explain_them_and_rows_are_named():
    then = whole()
    rows = [measured(name, 8, 0.01, 1.5 if name == "native" else 1.0) for name in SPEEDS]
    now = structs.replace(then, latencies=tuple(rows))
    result = structs.replace(now, against=compared(now, {"then.json": then}, 10))
    (row,) = bench_tables.changes(result.against).rows
    assert row[0] == "native fp32"
    assert row[3] == "+50.0 %"
    text = one_line(printed(result))
    assert "4 rows compared with then.json: 1 slower, 0 faster, 3 no difference shown" in text
    assert "1 slower by more than 10 %" in text
    assert "the machine itself: ×1.00 of the earlier time, taken out; runs of the same" in text
    assert "only in then.json" in text
    assert result.failed


def test_a_baseline_without_figures_is_said():
    result = structs.replace(whole(), ratios=(), baseline="torch/fp16", against=None)
    assert "speed over torch/fp16 not run" in printed(result)


def test_the_json_is_what_its_schema_says():
    schema = bench_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    found = msgspec.json.decode(to_json(whole()))
    jsonschema.validate(found, schema)
    assert set(schema["required"]) <= set(found)
    assert found["schema"] == schema["properties"]["schema"]["const"]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 1},
        {"seconds": "9"},
        {"passed": None},
        {"latencies": [{"runtime": "a"}]},
        {"timer": {"median_s": 1e-7}},
    ],
)
def test_the_schema_refuses_what_bench_does_not_write(change):
    found = msgspec.json.decode(to_json(whole())) | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, bench_schema())


def test_a_field_that_the_schema_does_not_describe_is_not_written():
    parts = {"BenchResult": bench_schema()} | bench_schema()["$defs"]
    written = msgspec.json.decode(to_json(whole()))
    for name, value in (
        ("BenchResult", written),
        ("Latency", written["latencies"][0]),
        ("Ratio", written["ratios"][0]),
        ("Against", written["against"]),
        ("Scatter", written["against"]["scatters"][0]),
    ):
        assert set(value) == set(parts[name]["properties"])
        assert parts[name]["description"]


def test_numbers_of_a_row_stand_on_one_line():
    text = to_json(whole()).decode()
    lines = [line for line in text.splitlines() if '"rounds_ns": [' in line]
    assert len(lines) == len(whole().latencies) + len(whole().references)
    assert sum(line.count(",") > 50 for line in lines) == 15
    assert msgspec.json.decode(text, type=BenchResult) == whole()
