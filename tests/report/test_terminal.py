"""Terminal tables fit 80 columns, are plain in a pipe, and cut no reason."""

from __future__ import annotations

import io

import handmade
import handmade_ties
import pytest
from msgspec import structs
from rich.console import Console

from tiedexport.manifest import Binding, PlanRecord
from tiedexport.report import bench_terminal, terminal
from tiedexport.results import (
    Availability,
    BuildResult,
    Component,
    DoctorResult,
    EngineOutcome,
    TrainResult,
)
from tiedexport.results.demo import DemoResult

REASON = (
    "no CUDA driver [Errno 2] libcuda.so.1: cannot open shared object file; "
    "install the NVIDIA driver on a machine with an NVIDIA GPU, then pip install 'tiedexport[gpu]'"
)
BUILD = BuildResult(
    bundle="m.tied",
    precisions=(handmade.FP32, handmade.FP16),
    parameter_bytes=1000,
    file_bytes=1010,
    engine_bytes=2048,
    engines=(
        EngineOutcome("rtx:sm89", "encoder", handmade.FP16, "passed", "", "e.plan", 2048, 1.5),
        EngineOutcome("tensorrt", "encoder", handmade.FP16, "not run", REASON),
        EngineOutcome("rtx:sm75", "decoder", handmade.FP16, "failed", "parser: bad [node]"),
    ),
    seconds=3.0,
)
BENCH = handmade.bench_result(reason=REASON)
DOCTOR = DoctorResult(
    components=(
        Component("runtime", "onnxruntime", Availability(True, "1.31.1")),
        Component("runtime", "tensorrt", Availability(False, "", REASON, "apt install [driver]")),
    ),
    environment=handmade.ENVIRONMENT,
    warnings=("both onnxruntime packages are installed",),
)
DEMO = DemoResult(
    TrainResult("m.pt", handmade.training_record(), (), 1.0),
    BUILD,
    handmade_ties.healthy(),
    handmade.verify_result(reason=REASON),
    handmade.bench_result(reason=REASON),
    "out/a very long folder name that must not be broken over lines/with [brackets]/report.html",
    60.0,
)
PRINTERS = {
    "verify": lambda console: terminal.print_verify(handmade.verify_result(reason=REASON), console),
    "bench": lambda console: bench_terminal.print_bench(BENCH, console),
    "doctor": lambda console: terminal.print_doctor(DOCTOR, console),
    "build": lambda console: terminal.print_build(BUILD, console),
    "demo": lambda console: terminal.print_demo(DEMO, console),
}


def printed(name: str, *, tty: bool = False, **options) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=tty, highlight=False, **options)
    PRINTERS[name](console)
    return stream.getvalue()


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", PRINTERS)
def test_every_table_fits_80_columns(name):
    lines = [line for line in printed(name).splitlines() if not line.startswith("report: ")]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", PRINTERS)
def test_in_a_pipe_the_text_is_plain(name):
    text = printed(name)
    assert "\x1b" not in text
    assert not set(text) & set("─│┃━╭╰")


@pytest.mark.parametrize("name", PRINTERS)
def test_on_a_terminal_there_are_colours_unless_no_color_is_set(name):
    assert "\x1b[3" in printed(name, tty=True, color_system="standard")
    plain = printed(name, tty=True, no_color=True, color_system="standard")
    assert "\x1b[3" not in plain


@pytest.mark.parametrize("name", ["verify", "bench", "doctor", "build", "demo"])
def test_the_reason_of_a_row_that_did_not_run_is_told_in_full(name):
    assert REASON in one_line(printed(name))


def test_doctor_tells_the_remedy_and_the_contradictions():
    text = printed("doctor")
    assert "apt install [driver]" in text
    assert "both onnxruntime packages are installed" in text
    assert "1.31.1" in text


def test_a_reason_of_several_engines_is_said_once_and_what_was_not_built_did_not_run():
    rows = tuple(
        EngineOutcome("rtx:sm75", stage, handmade.FP16, "not run", "no bf16")
        for stage in ("encoder", "decoder")
    )
    stream = io.StringIO()
    terminal.print_build(structs.replace(BUILD, engines=rows), Console(file=stream, width=80))
    said = one_line(stream.getvalue())
    assert "rtx:sm75 encoder fp16, rtx:sm75 decoder fp16 not built no bf16" in said
    assert "not run" not in said


def test_weights_that_are_kept_in_another_type_are_named():
    kept = {handmade.FP16: {"layers.1.weight": handmade.FP32}}
    stream = io.StringIO()
    terminal.print_build(structs.replace(BUILD, kept=kept), Console(file=stream, width=80))
    assert "layers.1.weight fp16 fp32" in one_line(stream.getvalue())


def test_build_tells_sizes_and_each_engine_once():
    text = printed("build")
    assert "1.0100 x" in text
    assert text.count("rtx:sm89") == 1
    assert "parser: bad [node]" in text


def test_demo_ends_with_the_path_of_the_report_on_one_line():
    assert printed("demo").splitlines()[-1] == f"report: {DEMO.report}"
    assert "6 of 6 within bounds" in printed("demo")
    assert one_line("ties one copy at every stage that ran") in one_line(printed("demo"))


def test_a_demo_passes_only_if_its_audit_does():
    assert DEMO.passed
    lost = structs.replace(DEMO, audit=handmade_ties.untied())
    assert lost.failed
    assert not lost.passed
    idle = structs.replace(DEMO, audit=handmade_ties.audit(handmade_ties.not_run("ONNX files")))
    assert not idle.failed
    assert not idle.passed


def test_a_manifest_is_shown_with_stages_ties_files_and_engines(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied", name="na[m]e")
    plan = PlanRecord(
        file="plans/e.plan",
        stage="encoder",
        precision=handmade.FP16,
        target="rtx:sm89",
        package="tensorrt_rtx",
        package_version="1.7.1",
        compute_capabilities=(89,),
        weights="shared",
        bindings=(Binding("image", "input", handmade.FP32, (-1, 6, 6)),),
        graph_sha256="0" * 64,
    )
    fields = {name: getattr(bundle.manifest, name) for name in bundle.manifest.__struct_fields__}
    manifest = type(bundle.manifest)(**(fields | {"plans": (plan,)}))
    stream = io.StringIO()
    terminal.print_manifest(manifest, Console(file=stream, width=80))
    for shown in (
        "na[m]e",
        "image: fp32[batch, 6, 6]",
        "layers.0.weight",
        "encoder.0, decoder.0",
        "weights.fp16.safetensors",
        "tensorrt_rtx 1.7.1",
        "test RMSE",
    ):
        assert shown in stream.getvalue()


def test_nothing_measured_prints_no_empty_table():
    stream = io.StringIO()
    result = handmade.bench_result()
    idle = tuple(row for row in result.latencies if row.status == "not run")
    fields = {name: getattr(result, name) for name in result.__struct_fields__}
    bench_terminal.print_bench(type(result)(**(fields | {"latencies": idle})), Console(file=stream))
    assert "runtime" not in stream.getvalue()
    assert "tensorrt fp16 not run" in stream.getvalue()
