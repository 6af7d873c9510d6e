"""Each section on a machine whose GPU is a double that computes, and on one that gets it wrong."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import needs_rtx
from model_machine import STEP_MS, ModelGpu, model_machine
from recorded_machine import CAPABILITY

from tiedexport import trt
from tiedexport.acceptance import builds, failures, machine, models, numerics, sharing, speed
from tiedexport.acceptance.job import Job, Settings, view
from tiedexport.measure import turns
from tiedexport.progress import Progress
from tiedexport.results import Availability
from tiedexport.results.acceptance import Check, judged
from tiedexport.runtimes import tensorrt as runner
from tiedexport.spec import Precision

torch.set_num_threads(1)
pytestmark = needs_rtx

SETTINGS = Settings(batch=(1, 8), warmup_ms=0.0, duration_s=1e-4, iterations=5)


@pytest.fixture(scope="module")
def accepted(tmp_path_factory, quick_export, quick_collection):
    """A machine, and a job on it after its builds, with what those found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "SMALL_WIDTHS", (20, 13, 7))
        patch.setattr(models, "LARGE_WIDTHS", (1024, 1024))
        patch.setattr(turns, "TURN_S", 1e-4)
        gpu = model_machine(patch)
        real = builds.with_engines

        def with_engines(*arguments, **named):
            bundle, outcomes = real(*arguments, **named)
            if named.get("target", "") in ("", builds.target_of("tensorrt_rtx")):
                gpu.learn(bundle)
            return bundle, outcomes

        patch.setattr(builds, "with_engines", with_engines)
        job = Job(None, tmp_path_factory.mktemp("job"), SETTINGS, Progress(quiet=True))
        found = list(builds.run(job))
        yield gpu, job, found
        job.close()


@pytest.fixture
def gpu(accepted) -> ModelGpu:
    found = accepted[0]
    found.fault = ""
    found.set_current()
    return found


@pytest.fixture
def job(accepted) -> Job:
    return accepted[1]


@pytest.fixture(scope="module")
def timed(accepted):
    """The section on speed, and the device memory that it left behind."""
    gpu, job, _ = accepted
    before = gpu.memory.used()
    return verdict_of(speed.run(job)), gpu.memory.used() - before


def verdict_of(findings):
    return judged("any", "?", findings, 0.0)


def test_the_machine_names_its_device_and_what_is_missing(gpu, job):
    rows = {row.what: row for row in machine.run(job)}
    assert rows["device"].figures["compute_capability"] == CAPABILITY
    assert rows["device"].figures["total_bytes"] == gpu.total
    assert rows["tensorrt_rtx"].status == "passed"
    assert rows["tensorrt"].status == "not run"
    assert "no such Python package" in rows["tensorrt"].reason


def test_every_mode_and_precision_is_built_and_trtexecs_way_too(accepted):
    _, job, found = accepted
    built = {(one.way, one.precision.value) for one in job.built}
    modes = {(way, p) for way in builds.MODES for p in ("fp16", "bf16", "fp32")}
    assert built == modes | {(builds.TRTEXEC, "fp16")}
    assert {row.status for row in found if isinstance(row, Check)} == {"passed", "not run"}
    (absent,) = [row for row in found if row.status == "not run"]
    assert absent.what == "tensorrt: every engine"


def test_plans_that_compute_the_model_pass_at_every_batch(gpu, job):
    section = verdict_of(numerics.run(job))
    assert section.status == "passed", section.checks
    assert len(section.checks) == 3 * 3 * 3 + 2  # trtexec's way has no autoencoder


def test_plans_that_compute_something_else_fail(gpu, job):
    gpu.fault = "wrong numbers"
    section = verdict_of(numerics.run(job))
    assert {row.status for row in section.checks} == {"failed"}
    assert "batch 1 by run" in section.reason


def test_one_weight_for_shared_engines_and_one_each_for_baked_ones(gpu, job):
    section = verdict_of(sharing.run(job))
    assert section.status == "passed", section.checks
    rows = {row.what: row.figures for row in section.checks}
    shared, baked = (
        [*rows[f"tensorrt_rtx {mode}: memory"].values()] for mode in ("shared", "baked")
    )
    assert shared[2] < 1.25
    assert baked[2] > 2.75
    rebound = [row for row in section.checks if "rebound" in row.what]
    assert len(rebound) == 3
    assert all(row.figures["old_output_in_bounds"] > 1 for row in rebound)


def test_engines_that_hold_weights_of_their_own_fail(gpu, job):
    large = [bundle for path, (bundle, _) in job.made.items() if path.name.startswith("large")]
    gpu.fault = "a second copy"
    for bundle in large:
        gpu.learn(bundle)
    try:
        section = verdict_of(sharing.run(job))
    finally:
        gpu.fault = ""
        for bundle in large:
            gpu.learn(bundle)
    failed = {row.what: row.reason for row in section.checks if row.status == "failed"}
    assert list(failed) == ["tensorrt_rtx shared: memory"]
    assert "one weight for all expected, grown by 2." in failed["tensorrt_rtx shared: memory"]


def test_engines_that_do_not_read_the_one_buffer_fail(gpu, job):
    gpu.fault = "stale weights"
    section = verdict_of(sharing.run(job))
    failed = [row for row in section.checks if row.status == "failed"]
    assert [row.what for row in failed] == [
        f"tensorrt_rtx: layers.0.weight rebound, {stage}"
        for stage in ("encoder", "decoder", "autoencoder")
    ]


def test_every_way_is_timed_with_and_without_a_graph(timed):
    section, _ = timed
    rows = [row for row in section.latencies if row.status == "passed"]
    ways = {row.runtime for row in rows}
    plans = {f"tensorrt_rtx {way}" for way in (*builds.MODES, builds.TRTEXEC)}
    copies = {"copy to the device", "copy from the device"}
    assert ways == plans | {f"{name}, graph" for name in plans} | copies
    assert len(rows) == len(ways) * 3 * len(SETTINGS.batch)
    steps = {(row.runtime, row.stage): round(row.median_s * 1e5) for row in rows}
    assert steps["tensorrt_rtx shared", "autoencoder"] == 1
    assert steps["tensorrt_rtx one-plan, graph", "autoencoder"] == 2
    assert steps["tensorrt_rtx trtexec's way", "autoencoder"] == 2
    judgements = [row for row in section.checks if row.what.endswith("outputs after timing")]
    assert {row.status for row in judgements} == {"passed"}
    assert len(judgements) == len(ways - copies)


def test_who_cannot_run_is_a_row_for_each_stage_and_batch(timed):
    section, _ = timed
    absent = [row for row in section.latencies if row.status == "not run"]
    assert {row.runtime.removesuffix(", graph") for row in absent} == {
        "onnxruntime-cuda",
        "onnxruntime-tensorrt",
        "torch eager",
        "torch compiled",
    }
    assert all(row.reason for row in absent)
    assert section.status == "not run"


def test_a_fast_contender_that_computes_something_else_fails(gpu, job):
    gpu.fault = "wrong numbers"
    section = verdict_of(speed.run(job))
    assert section.status == "failed"
    assert "times its bound" in section.reason


def test_nothing_is_left_on_the_device(gpu, timed):
    _, left_bytes = timed
    assert left_bytes == 0
    assert not gpu.driver.graphs


def test_foreign_plans_and_a_full_device_are_refused(gpu, job):
    section = verdict_of(failures.run(job))
    assert section.status == "passed", section.checks
    messages = [str(row.figures.get("message", "")) for row in section.checks]
    assert any("GeForce Test is sm89" in message for message in messages)
    assert any("no device memory" in message for message in messages)


@pytest.mark.parametrize("section", [numerics, sharing, failures])
def test_plans_without_cuda_core_to_run_them_are_not_run(gpu, job, monkeypatch, section):
    monkeypatch.setattr(runner, "find_spec", lambda name: None if "cuda" in name else name)
    found = verdict_of(section.run(job))
    assert {row.status for row in found.checks} == {"not run"}
    assert "cuda-core is not installed" in found.reason


def test_a_mode_that_was_not_built_is_not_run(gpu, job, tmp_path):
    (shared,) = [b for b in job.built if (b.way, b.precision.value) == ("shared", "fp16")]
    half = Job(None, job.folder, SETTINGS, Progress(quiet=True), [shared], job.made)
    found = {row.what: row for row in sharing.run(half)}
    assert found["tensorrt_rtx: memory"].status == "not run"
    assert "with weights baked" in found["tensorrt_rtx: memory"].reason
    half.close()


def test_what_should_be_refused_but_runs_has_failed(dense_bundle):
    check = failures.refused("it", "onnxruntime", Precision.FP32, dense_bundle, "")
    assert (check.status, check.reason) == ("failed", "it was opened and run")


def test_a_refusal_that_does_not_name_its_reason_has_failed(gpu, dense_bundle):
    check = failures.refused("it", "tensorrt_rtx", Precision.FP16, dense_bundle, "sm75")
    assert check.status == "failed"
    assert "does not speak of 'sm75'" in check.reason


def test_without_plans_the_sections_that_need_them_do_not_run(gpu, tmp_path):
    bare = Job(None, tmp_path, SETTINGS, Progress(quiet=True))
    for section in (numerics, sharing, failures):
        with pytest.raises(models.MissingRuntimeError, match="no plan was built"):
            list(section.run(bare))


def test_what_was_built_has_a_size_and_took_time(accepted):
    _, job, found = accepted
    built = [row.figures for row in found if row.status == "passed"]
    assert len(built) == len(job.built)
    assert all(figures["plan_bytes"] > 0 and figures["build_s"] > 0 for figures in built)
    baked = [row.figures for row in found if " baked fp16" in row.what]
    assert all(figures["plan_bytes"] > figures["parameter_bytes"] for figures in baked)


def torch_finds_the_device(monkeypatch) -> None:
    real = speed.runtime_named
    there = SimpleNamespace(
        availability=lambda: Availability(True, "2.13"), refusal=lambda bundle, precision: None
    )
    monkeypatch.setattr(
        speed, "runtime_named", lambda name: there if name == "torch-cuda" else real(name)
    )


@pytest.mark.parametrize("kept", [{}, {"layers.0.weight": Precision.FP32}])
def test_torch_alone_does_not_take_part_where_some_weights_are_kept_in_another_type(
    job, dense_bundle, monkeypatch, kept
):
    torch_finds_the_device(monkeypatch)
    bundle = view(dense_bundle, kept={Precision.FP16: kept})
    reasons = {one.row.reason for one in speed.entrants(job, bundle) if "torch" in one.row.runtime}
    assert len(reasons) == 1
    assert ("kept in another" in reasons.pop()) == bool(kept)


def test_with_torch_alone_torch_is_timed_and_the_rest_says_why_not(
    dense_bundle, tmp_path, monkeypatch
):
    """As on a GPU without any TensorRT; torch computes on the CPU here and cannot make graphs."""
    model_machine(monkeypatch).driver.idle_ms = STEP_MS  # of what torch does it sees nothing
    monkeypatch.setattr(trt, "load", _nothing_installed)
    monkeypatch.setattr(turns, "TURN_S", 1e-4)
    monkeypatch.setattr(speed.torch, "Torch", partial(speed.torch.Torch, device="cpu"))
    monkeypatch.setattr(torch, "compile", lambda call, **_: call)
    torch_finds_the_device(monkeypatch)
    job = Job(dense_bundle.path, tmp_path, SETTINGS, Progress(quiet=True))
    built = verdict_of(builds.run(job))
    assert (built.status, len(built.checks)) == ("not run", 2)
    section = verdict_of(speed.run(job))
    status = {(row.runtime, row.status) for row in section.latencies}
    assert {name for name, found in status if found == "passed"} == {
        "torch eager",
        "torch compiled",
        "copy to the device",
        "copy from the device",
    }
    assert ("torch eager, graph", "failed") in status
    assert ("onnxruntime-cuda", "not run") in status
    judgements = {row.what: row.status for row in section.checks}
    assert judgements["torch eager: outputs after timing"] == "passed"
    assert judgements["plans"] == "not run"
    job.close()


def _nothing_installed(package: str):
    raise models.MissingRuntimeError(f"{package} is missing", got="no such Python package")
