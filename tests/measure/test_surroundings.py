"""What bench measures beside latency: asked for, kept, shown in 80 columns, and told once."""

from __future__ import annotations

import io
from functools import partial

import handmade
import jsonschema
import msgspec
import pytest
from command_line import tiedexport
from msgspec.structs import replace
from rich.console import Console

from tiedexport import cold, roofline, surroundings
from tiedexport.report.bench_terminal import print_bench, print_suite
from tiedexport.results import BenchResult, to_json
from tiedexport.results.bench import Instability
from tiedexport.results.cold import ColdStart, Footprint, Held
from tiedexport.results.load import Load
from tiedexport.results.roofline import Kernel, Placement, Roofline
from tiedexport.results.schema import bench_schema
from tiedexport.results.suite import SuiteModel, SuiteResult
from tiedexport.spec import Precision

FP32, FP16, _ = Precision
QUICK = ("--warmUp", "0", "--duration", "0", "--iterations", "1", "-q", "--runtime", "onnxruntime")
BESIDE = ("--roofline", "--cold", "--memory-use", "--concurrency", "2")
EXIT_DONE, EXIT_CHECK_FAILED, EXIT_USAGE = 0, 1, 2
MIB = 1 << 20
WHY_NOT = "no <driver> & no GPU"


def surrounded() -> BenchResult:
    """A handmade result with everything beside it, contenders with long names."""
    long = ("onnxruntime-tensorrt", FP32, "packed", 1)
    placement = Placement(
        "onnxruntime-tensorrt", "autoencoder", FP32, 64, 1, "packed", 300 * MIB, 301 * MIB,
        10**10, 31.7, 2.5e10, "onnxruntime-tensorrt fp32 autoencoder, batch 64", 1e11,
        "torch mm 1024", 0.1, "arithmetic", 0.123, 0.81,
    )  # fmt: skip
    kernels = (
        Kernel("numpy max of int64", "passed", 1, "", 300 * MIB, None, 2.5e10, 2.6e10),
        Kernel("torch", "not run", 1, "No module named 'torch'"),
    )
    held = [Held(n * 100 * MIB, n * 90 * MIB) for n in (1, 5, 23)]
    parts = dict.fromkeys((*cold.PARTS, "least_s", "most_s"), 0.123)
    times = dict.fromkeys(("min", "mean", "p50", "p90", "p99", "max"), 1.23e-4)
    return replace(
        handmade.bench_result(reason=WHY_NOT),
        roofline=Roofline(kernels, (placement, replace(placement, batch=1)), 32 * MIB, 1.0),
        cold_starts=(
            ColdStart(*long, "passed", processes=7, total_s=1.23, **parts),
            ColdStart("tensorrt", FP16, "shared", 1, "not run", WHY_NOT),
        ),
        footprints=(
            Footprint(*long, "passed", "", 64, *held, 3000 * MIB, 1234 * MIB, 256 * MIB),
            Footprint("torch", FP32, "shared", 1, "failed", "exit code -9"),
        ),
        loads=(
            Load(*long[:1], "autoencoder", *long[1:], 8, 16, "passed", "", 99, times, 123456.7),
        ),
    )


def shown(result, show=print_bench) -> str:
    stream = io.StringIO()
    show(result, Console(file=stream, width=80))
    return stream.getvalue()


def test_everything_fits_eighty_columns_and_no_figure_is_cut():
    text = shown(surrounded())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for figure in ("81%", "arithmetic", "25.0 GB", "100.0 Gop", "1.23 s", "2,200.0", "123,457"):
        assert figure in text, figure
    # Above the base of 100 MiB: 400 loaded, 2,200 after a run, a peak of 2,900.
    row = next(line for line in text.splitlines() if "2,900.0" in line)
    assert row.split()[-6:] == ["400.0", "2,200.0", "1,980.0", "2,900.0", "1,234.0", "256.0"]


def test_a_reason_that_a_latency_told_is_not_told_again():
    text = shown(surrounded())
    assert text.count(WHY_NOT) == 1
    assert text.count("exit code -9") == 1
    assert text.count("No module named 'torch'") == 1


def test_a_failure_beside_latency_is_the_result_s():
    result = surrounded()
    assert result.failed
    assert not result.passed
    assert replace(result, footprints=()).passed
    wrong = replace(result.loads[0], status="failed", different=1)
    assert replace(result, footprints=(), loads=(wrong,)).failed


def test_json_holds_all_of_it_and_fits_its_schema():
    result = surrounded()
    text = to_json(result)
    jsonschema.validate(msgspec.json.decode(text), bench_schema())
    assert msgspec.json.decode(text, type=BenchResult) == result


def test_a_suite_names_each_model_and_tells_a_reason_once():
    unsteady = Instability("noise", 0.29, 0.1, "rounds vary by 29%")
    first, *others = surrounded().latencies
    bench = replace(surrounded(), latencies=(replace(first, warnings=(unsteady,)), *others))
    models = tuple(SuiteModel(name, (16384, 4096), 256 * MIB, bench) for name in ("one", "two"))
    result = SuiteResult(models, "untrained", "2026-01-01", "abc", bench.environment, 1.0)
    text = shown(result, print_suite)
    assert "one: 16384 - 4096, 256 MiB" in text
    assert text.count("the worst onnxruntime fp32, autoencoder") == 2
    assert text.count(WHY_NOT) == 1
    assert max(map(len, text.splitlines())) <= 80


@pytest.fixture
def quick(monkeypatch):
    """Limits and starts of no real process."""

    def measure(job):
        sizes = getattr(job, "working_sets", ())
        sized = [Kernel("reads", "passed", 1, "", n, None, 1e9, 1e9) for n in sizes]
        return [*sized, Kernel("multiplies", "passed", 1, "", 0, FP32, 1e9, 1e9)]

    def limits(*arguments, **options):
        return roofline.roofline(*arguments, **options, measure=measure)

    monkeypatch.setattr(surroundings, "limits", type("Limits", (), {"roofline": limits}))
    start = partial(cold.cold, started=lambda question: [0, 1, 2, 3, 4, 5])
    monkeypatch.setattr(surroundings, "starts", type("Starts", (), {"cold": start}))


def test_what_nobody_asked_for_is_not_measured(folder):
    done = tiedexport("bench", "model.tied", *QUICK, "--batch", "2", "--json", "-", cwd=folder)
    found = msgspec.json.decode(done.stdout, type=BenchResult)
    assert (found.roofline, found.cold_starts, found.footprints, found.loads) == (None, (), (), ())


def test_every_flag_reaches_its_measurement(folder, quick, tmp_path):
    json = tmp_path / "bench.json"
    done = tiedexport(
        *("bench", "model.tied", *QUICK, "--batch", "2,5", *BESIDE, "--json", json), cwd=folder
    )
    assert done.returncode == EXIT_DONE, done.stderr + done.stdout
    found = msgspec.json.decode(json.read_bytes(), type=BenchResult)
    ran = [row for row in found.latencies if row.status == "passed"]
    assert len(found.roofline.placements) == len(ran)
    assert {row.runtime for row in found.cold_starts} == {"onnxruntime"}
    assert {row.batch for row in found.footprints if row.status == "passed"} == {5}
    assert {(row.batch, row.callers) for row in found.loads if row.calls} == {(2, 1), (2, 2)}
    for words in ("share of this machine's limit", "Cold start", "Memory above", "callers of one"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--suite",), "no bench/results here"),
        (("--suite", "-o", "x", "model.tied"), "NAME.TIED does not go with --suite"),
        (("--suite", "-o", "x", "--stage", "encoder"), "--stage does not go with --suite"),
        (("--suite", "-o", "x", "--cold"), "--cold does not go with --suite"),
        (("--suite", "-o", "x", "--batch", "0"), "batch sizes must be positive"),
        (("--suite", "--acceptance"), "--suite does not go with --acceptance"),
        (("--acceptance", "--roofline"), "--roofline does not go with --acceptance"),
        (("model.tied", "--concurrency", "0"), "1<=x<=256"),
    ],
)
def test_what_does_not_go_together_is_told_at_once(folder, arguments, words):
    done = tiedexport("bench", *arguments, "-q", cwd=folder)
    assert done.returncode == EXIT_USAGE, done.stdout
    assert words in done.stderr
    assert not (folder / "x").exists()
