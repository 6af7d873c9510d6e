"""Ratios are over the baseline that was named, round by round; changes over an earlier file."""

from __future__ import annotations

import handmade
import msgspec
import numpy as np
import pytest
from msgspec import structs

from tiedexport.errors import BadInputError, UsageError
from tiedexport.measure.against import compared, refuse_what_cannot_be_compared
from tiedexport.measure.baseline import baseline_from, ratios
from tiedexport.results import BenchResult, Latency, to_json
from tiedexport.results.bench import BENCH_SCHEMA
from tiedexport.results.reading import read_bench
from tiedexport.spec import Precision

FP32, FP16 = Precision.FP32, Precision.FP16


def row(runtime="a", precision=FP32, memory="shared", batch=1, ns=1000, scatter=0.01) -> Latency:
    rng = np.random.default_rng([*runtime.encode(), batch, ns])
    rounds = tuple(round(ns * one) for one in np.exp(scatter * rng.normal(size=60)))
    return Latency(
        runtime, "autoencoder", precision, batch, 1, "passed", memory=memory, rounds_ns=rounds
    )


def result(*rows: Latency, **fields) -> BenchResult:
    loops = tuple(row("reference loop", batch=one, scatter=0.0) for one in (1, 2, 8, 64))
    loops += tuple(structs.replace(loop, stage="encoder") for loop in loops)
    return BenchResult("m.tied", rows, handmade.ENVIRONMENT, 1.0, references=loops, **fields)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("onnxruntime", "onnxruntime"),
        ("onnxruntime/fp16", "onnxruntime/fp16"),
        ("onnxruntime/fp32/packed", "onnxruntime/fp32/packed"),
        ("onnxruntime/fp32/shared", "onnxruntime/fp32"),
    ],
)
def test_a_baseline_is_named_by_runtime_precision_and_memory(text, shown):
    assert str(baseline_from(text)) == shown


@pytest.mark.parametrize(
    "text", ["abacus", "onnxruntime/fp31", "onnxruntime/fp32/half", "onnxruntime/fp32/packed/x", ""]
)
def test_a_baseline_that_cannot_be_is_refused_with_what_can(text):
    with pytest.raises(UsageError) as caught:
        baseline_from(text)
    assert caught.value.expected


def test_every_row_has_a_speed_over_the_baseline_of_its_own_batch_and_the_baseline_has_none():
    rows = [
        row("onnxruntime", ns=1000),
        row("native", ns=500),
        row("native", FP16, ns=2000),
        row("onnxruntime", batch=8, ns=8000),
        row("native", batch=8, ns=4000),
        Latency("torch", "autoencoder", FP32, 8, 1, "not run", "no torch"),
    ]
    name, found = ratios(rows, baseline_from("onnxruntime"))
    assert name == "onnxruntime/fp32"
    told = {(one.runtime, one.precision, one.batch): one for one in found}
    assert len(told) == len(found) == 3
    assert told["native", FP32, 1].speed == pytest.approx(2, rel=0.02)
    assert told["native", FP32, 1].verdict == "faster"
    assert told["native", FP16, 1].speed == pytest.approx(0.5, rel=0.02)
    assert told["native", FP16, 1].verdict == "slower"
    assert told["native", FP32, 8].speed == pytest.approx(2, rel=0.02)


def test_a_baseline_that_differs_by_batch_size_stays_as_it_was_asked_for():
    rows = [row("onnxruntime"), row("native"), row("onnxruntime", FP16, batch=8)]
    name, (only,) = ratios(rows, baseline_from("onnxruntime"))
    assert (name, only.runtime) == ("onnxruntime", "native")


def test_without_a_precision_the_first_that_ran_in_shared_memory_is_the_baseline():
    rows = [
        Latency("onnxruntime", "autoencoder", FP32, 1, 1, "failed", "out of memory"),
        row("onnxruntime", FP16, "packed", ns=100),
        row("onnxruntime", FP16, "shared", ns=1000),
    ]
    name, (packed,) = ratios(rows, baseline_from("onnxruntime"))
    assert name == "onnxruntime/fp16"
    assert (packed.memory, packed.verdict) == ("packed", "faster")
    name, (shared,) = ratios(rows, baseline_from("onnxruntime/fp16/packed"))
    assert name == "onnxruntime/fp16/packed"
    assert (shared.memory, shared.verdict) == ("shared", "slower")
    assert ratios(rows, baseline_from("onnxruntime/fp32")) == ("onnxruntime/fp32", ())


def test_a_change_is_over_the_same_row_of_the_earlier_result_and_missing_rows_are_named():
    then = result(row("same"), row("slow", ns=1000), row("gone"), row("quick", ns=2000))
    now = result(row("same"), row("slow", ns=1500), row("new"), row("quick", ns=1000))
    found = compared(now, {"then.json": then}, max_regression_percent=20)
    told = {one.runtime: one for one in found.changes}
    assert list(told) == ["same", "slow", "quick"]
    assert told["same"].verdict == "no difference shown"
    assert told["slow"].verdict == "slower"
    assert told["quick"].verdict == "faster"
    assert [one.runtime for one in found.regressions] == ["slow"]
    assert "gone" in found.gone[0]
    assert "new" in found.new[0]
    assert found.warnings == ()


@pytest.mark.parametrize(("percent", "regressed"), [(None, 0), (0, 1), (20, 1), (40, 0)])
def test_only_a_slowdown_above_the_limit_is_a_regression(percent, regressed):
    then, now = result(row(ns=1000)), result(row(ns=1300))
    against = compared(now, {"then.json": then}, percent)
    assert len(against.regressions) == regressed
    whole = structs.replace(now, against=against)
    assert whole.failed == bool(regressed)
    assert whole.passed == (not regressed)


def test_a_slowdown_that_chance_explains_is_no_regression():
    then, now = result(row(ns=1000, scatter=0.5)), result(row(ns=1100, scatter=0.5))
    found = compared(now, {"then.json": then}, 0)
    assert found.changes[0].speed < 1
    assert found.changes[0].verdict == "no difference shown"
    assert found.regressions == ()


def test_rows_of_other_threads_batch_memory_or_precision_are_not_the_same():
    other = [
        row(batch=2),
        row(memory="packed"),
        row(precision=FP16),
        structs.replace(row(), threads=2),
        structs.replace(row(), stage="encoder"),
    ]
    found = compared(result(row()), {"then.json": result(*other)})
    assert (len(found.changes), len(found.gone), len(found.new)) == (0, 5, 1)
    many = [row(batch=batch) for batch in (1, 8, 64)]
    (gone,) = compared(result(), {"then.json": result(*many)}).gone
    assert gone.endswith("batch 1 8 64")


def test_another_machine_bundle_or_pause_is_said():
    then = result(row(), options={"idleTime": 5.0})
    elsewhere = structs.replace(handmade.ENVIRONMENT, cpu="abacus")
    then = structs.replace(then, environment=elsewhere, bundle="other.tied")
    said = compared(result(row()), {"then.json": then}).warnings
    assert len(said) == 3
    assert "abacus" in said[0]
    assert "other.tied" in said[1]
    assert "idleTime" in said[2]
    moved = structs.replace(result(row()), bundle="elsewhere/m.tied")
    assert compared(moved, {"then.json": result(row())}).warnings == ()


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ((1200, 1100), "% more time"),
        ((800, 900), "% less time"),
        ((1200, 1000), ""),
        ((800, 1000), ""),
        ((800, 1200), ""),
        ((1200,), ""),
    ],
)
def test_what_befell_every_runtime_alike_is_said_not_to_be_of_one(times, words):
    names = ("a", "b")[: len(times)]
    then = result(*(row(name) for name in names))
    now = result(*(row(name, ns=ns) for name, ns in zip(names, times, strict=True)))
    warnings = compared(now, {"then.json": then}).warnings
    assert len(warnings) == bool(words)
    assert words in "".join(warnings)


def test_what_was_written_is_read_again(tmp_path):
    written = result(row(), options={"duration": 1.0})
    (tmp_path / "r.json").write_bytes(to_json(written))
    assert read_bench(tmp_path / "r.json") == written


def test_a_result_of_schema_1_is_read_and_cannot_be_compared_with(tmp_path):
    fields = msgspec.to_builtins(handmade.bench_result())
    later = {"timer", "baseline", "ratios", "confidence", "against"}
    first = {name: value for name, value in fields.items() if name not in later}
    for latency in first["latencies"]:
        for name in ("cv", "rounds_ns", "warm_up", "warnings", "device"):
            del latency[name]
    (tmp_path / "old.json").write_bytes(msgspec.json.encode(first | {"schema": 1, "passed": True}))
    found = read_bench(tmp_path / "old.json")
    assert found.schema == 1
    assert [one.median_s for one in found.latencies] == [
        one.median_s for one in handmade.bench_result().latencies
    ]
    with pytest.raises(BadInputError, match="no rounds"):
        refuse_what_cannot_be_compared(found, "old.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "no JSON"),
        (b"[1]", "JSON of a list"),
        (b'{"comparisons": []}', "no latencies"),
        (b'{"latencies": []}', "schema None"),
        (b'{"latencies": [], "schema": 2}', "missing required field"),
        (b'{"latencies": [], "schema": %d}' % (BENCH_SCHEMA + 1), "pip install"),
    ],
)
def test_a_file_that_is_no_result_of_bench_says_so(tmp_path, content, words):
    if content is not None:
        (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(BadInputError, match=words) as caught:
        read_bench(tmp_path / "r.json")
    assert "r.json" in str(caught.value)
