"""A call on a GPU part by part, on the recording double: arithmetic and order, no real GPU."""

from __future__ import annotations

import io
from contextlib import closing
from itertools import groupby
from pathlib import Path

import jsonschema
import msgspec
import numpy as np
import pytest
from model_machine import STEP_MS, ModelGpu, machine_of_plans
from recorded_machine import FP16, PROFILE, runnable_bundle
from rich.console import Console

from tiedexport.contender import SessionContender
from tiedexport.errors import MissingRuntimeError, RuntimeFailedError
from tiedexport.measure import bench, turns
from tiedexport.on_device.cuda import Cuda
from tiedexport.on_device.parts import PartsContender
from tiedexport.report import speed_section
from tiedexport.report.bench_terminal import print_bench
from tiedexport.report.tables import Table
from tiedexport.results import to_json
from tiedexport.results.device import PARTS
from tiedexport.results.schema import bench_schema

STEP_NS = round(1e6 * STEP_MS)


@pytest.fixture
def machine(monkeypatch) -> ModelGpu:
    monkeypatch.setattr(turns, "TURN_S", 1e-4)
    return machine_of_plans(monkeypatch)


@pytest.fixture
def bundle(machine, tmp_path):
    return runnable_bundle(machine, tmp_path / "m.tied")


@pytest.mark.parametrize("graph", [False, True])
def test_a_call_copies_in_computes_and_copies_out(machine, bundle, graph):
    with closing(PartsContender(bundle, "tensorrt_rtx", FP16, "shared", graph)) as contender:
        contender.prepare("encoder", 3, 0.0)
        assert len(machine.driver.graphs) == graph
        machine.log.clear()
        assert contender.take_turn(4).tolist() == [3 * STEP_NS] * 4
        done = [name for name in machine.log if name in ("copy", "execute", "graph", "event")]
        work = "graph" if graph else "execute"
        assert done == ["event", "copy", "event", work, "event", "copy", "event"] * 4
        assert contender.turns_ns[-1].tolist() == [[3 * STEP_NS, *[STEP_NS] * 3, 0]] * 4
        contender.prepare("decoder", 1, 0.0)
        assert contender.turns_ns == []
        assert len(machine.driver.graphs) == graph
    assert not machine.driver.graphs
    assert not machine.driver.events
    assert machine.memory.used() == 0


def test_the_copies_are_as_large_as_input_and_output(machine, bundle):
    sizes = []
    real = machine.driver._copy
    machine.driver._copy = lambda t, s, size, *rest: sizes.append(size) or real(t, s, size, *rest)
    with closing(PartsContender(bundle, "tensorrt_rtx", FP16, "shared", True)) as contender:
        contender.prepare("encoder", 5, 0.0)
        sizes.clear()
        contender.take_turn(1)
    sides = (*bundle.manifest.stage("encoder").inputs, *bundle.manifest.stage("encoder").outputs)
    assert sizes == [5 * int(np.prod(side.element_shape)) * side.dtype.itemsize for side in sides]


def measured(bundle, **options):
    named = {"batch": (1, 2), "warmup_ms": 0.0, "duration_s": 2e-3, "iterations": 3}
    return bench(bundle, **(named | {"runtime": ("tensorrt_rtx", "onnxruntime-cuda")} | options))


def test_bench_has_the_parts_of_every_row_on_a_gpu(machine, bundle):
    before = machine.memory.used()
    result = measured(bundle)
    assert not result.failed
    ran = [row for row in result.latencies if row.status == "passed"]
    assert {(row.runtime, row.precision, row.batch) for row in ran} == {
        ("tensorrt_rtx", FP16, 1),
        ("tensorrt_rtx", FP16, 2),
    }
    for row in ran:
        assert [(one.graph, one.status) for one in row.device] == [
            (False, "passed"),
            (True, "passed"),
        ]
        for one in row.device:
            assert tuple(one.parts) == PARTS
            assert one.iterations >= 3
            medians_s = [one.parts[name].median_s for name in PARTS]
            assert medians_s == pytest.approx([3e-5, 1e-5, 1e-5, 1e-5, 0.0])
            assert set(one.parts["compute"].percentiles_s) == {"p90", "p95", "p99"}
    for row in result.latencies:
        if row.status == "not run":
            assert [(one.status, one.reason) for one in row.device] == [("not run", row.reason)] * 2
    assert machine.memory.used() == before
    assert not machine.driver.graphs
    schema = bench_schema()
    jsonschema.validate(msgspec.json.decode(to_json(result)), schema)


def test_all_take_turns_round_by_round(machine, bundle, monkeypatch):
    took = []
    for kind in (SessionContender, PartsContender):
        monkeypatch.setattr(kind, "take_turn", noted(kind.take_turn, took))
    measured(bundle, batch=(1,), runtime=("tensorrt_rtx",), duration_s=5e-3)
    order = [who for who, calls in took if calls > 1]
    assert len(set(order)) == 3
    assert max(len(list(run)) for _, run in groupby(order)) <= 2  # where the order turns round


def test_the_first_call_of_a_turn_is_not_counted_as_it_finds_caches_full_of_others(
    machine, bundle, monkeypatch
):
    real = Cuda.time_parts

    def time_parts(self, parts, calls):
        device_ns, host_ns = real(self, parts, calls)
        device_ns[0] *= 100
        return device_ns, host_ns

    monkeypatch.setattr(Cuda, "time_parts", time_parts)
    result = measured(bundle, batch=(1,), runtime=("tensorrt_rtx",))
    (row,) = [row for row in result.latencies if row.status == "passed"]
    for one in row.device:
        assert one.parts["compute"].max_s == pytest.approx(1e-5)


def noted(real, took):
    """Who took a turn; all are equally fast, however busy the machine is."""

    def take_turn(self, calls):
        took.append((id(self), calls))
        return np.full_like(real(self, calls), 3 * STEP_NS)

    return take_turn


def test_a_batch_beyond_the_plan_is_not_run_on_the_device_and_nothing_fails(machine, bundle):
    largest = PROFILE[-1]
    result = measured(bundle, batch=(largest, largest + 1), runtime=("tensorrt_rtx",))
    assert not result.failed
    held = {row.batch: row for row in result.latencies if row.precision == FP16}
    assert {one.status for one in held[largest].device} == {"passed"}
    for one in held[largest + 1].device:
        assert one.status == "not run"
        assert f"a batch of {largest + 1}" in one.reason
        assert "--maxShapes" in one.reason


def test_without_bindings_the_session_is_measured_and_the_device_is_not(
    machine, bundle, monkeypatch
):
    def no_driver(self):
        raise MissingRuntimeError("no bindings", got="here", hint="pip install them")

    monkeypatch.setattr(Cuda, "__init__", no_driver)
    result = measured(bundle, batch=(1,), runtime=("tensorrt_rtx",))
    (row,) = [row for row in result.latencies if row.status == "passed"]
    assert {one.status for one in row.device} == {"not run"}
    assert not result.failed
    assert "pip install them" in shown(result)


def test_what_fails_on_the_device_fails_the_run(machine, bundle, monkeypatch):
    def refused(self, *_):
        raise RuntimeFailedError("it cannot be captured", got="CUDA_ERROR")

    monkeypatch.setattr(Cuda, "capture", refused)
    result = measured(bundle, batch=(1,), runtime=("tensorrt_rtx",))
    (row,) = [row for row in result.latencies if row.status == "passed"]
    assert [one.status for one in row.device] == ["passed", "failed"]
    assert result.failed
    assert "tensorrt_rtx fp16 on the GPU, CUDA graph on" in " ".join(shown(result).split())


def test_a_runtime_that_nobody_can_enqueue_says_so(bundle):
    with pytest.raises(MissingRuntimeError, match="stranger"):
        PartsContender(bundle, "stranger", FP16, "shared", False)


def shown(result, **options) -> str:
    stream = io.StringIO()
    print_bench(result, Console(file=stream, width=80, highlight=False), **options)
    return stream.getvalue()


def test_the_lines_are_trtexec_s_and_the_table_has_a_row_for_each_way(machine, bundle):
    result = measured(bundle, batch=(1,))
    lines = shown(result, details=True).splitlines()
    for name in ("H2D Latency", "GPU Compute Time", "D2H Latency"):
        for graph in ("off", "on"):
            (line,) = [
                line for line in lines if line.startswith(f"  {name} (CUDA graph {graph}): ")
            ]
            assert "min = 0.01 ms, max = 0.01 ms, mean = 0.01 ms, median = 0.01 ms" in line
    text = shown(result)
    assert max(map(len, text.splitlines())) <= 80
    rows = [line.split() for line in text.splitlines()]
    assert ["tensorrt_rtx", "fp16", "off", "1", *["10.0", "µs"] * 3] == rows_of(rows, "off")[:10]
    assert rows_of(rows, "on")[:4] == ["tensorrt_rtx", "fp16", "on", "1"]
    assert ["onnxruntime-cuda", "off,", "on", "not", "run"] in rows
    tables = [block for block in speed_section.section(result).blocks if isinstance(block, Table)]
    (table,) = [table for table in tables if "on the GPU" in table.title]
    assert [row[:3] for row in table.rows] == [
        ("tensorrt_rtx fp16", "off", "1"),
        ("tensorrt_rtx fp16", "on", "1"),
        ("onnxruntime-cuda", "off, on", ""),
    ]


def rows_of(rows, graph):
    (found,) = [row for row in rows if row[:1] == ["tensorrt_rtx"] and row[2:3] == [graph]]
    return found


def test_what_bounds_a_row_is_said_of_the_way_that_it_was_launched(machine, bundle, monkeypatch):
    real = Cuda.time_parts

    def time_parts(self, parts, calls):
        device_ns, host_ns = real(self, parts, calls)
        host_ns[:, 1] += STEP_NS + STEP_NS // 2  # longer than the device computes
        return device_ns, host_ns

    monkeypatch.setattr(Cuda, "time_parts", time_parts)
    result = measured(bundle, batch=(1,), runtime=("tensorrt_rtx",))
    (row,) = [row for row in result.latencies if row.status == "passed"]
    reasons = [one.reason for one in row.warnings if one.kind == "enqueue-bound"]
    assert ["a CUDA graph takes less" in reason for reason in reasons] == [True, False]
    for one in row.device:
        assert one.parts["enqueue"].median_s == pytest.approx(1.5e-5)
    text = " ".join(shown(result).split())
    assert "enqueue-bound may not repeat 1 of 1 rows" in text
    assert "transfer-bound" not in text


def test_nothing_on_a_gpu_takes_part_where_only_a_cpu_is_asked_for():
    kept = Path(__file__).parent.parent / "data/schema-1.tied"
    result = measured(kept, batch=(1,), runtime=("onnxruntime",))
    assert all(row.device == () for row in result.latencies)
    assert "on the GPU" not in shown(result, details=True)
