"""Limits follow from what was measured; nothing is above one; a real run measures every library."""

from __future__ import annotations

import itertools
import threading
import time

import handmade
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiedexport import roofline as module
from tiedexport.results import Latency
from tiedexport.results.roofline import Kernel
from tiedexport.roofline import last_level_cache_bytes, place, roofline, working_set
from tiedexport.roofline.counting import Work
from tiedexport.roofline.jobs import WithNative, WithNumpy, WithTorch, measured
from tiedexport.roofline.turns import LEAST_TURNS, span_s, turns_s
from tiedexport.roofline.worker import kernels
from tiedexport.runtimes import runtime_named
from tiedexport.spec import Precision

FP32, FP16, BF16 = Precision
MIB = 1 << 20


def row(median_s: float, precision=FP32, batch=1, runtime="native", threads=1) -> Latency:
    return Latency(runtime, "autoencoder", precision, batch, threads, "passed", median_s=median_s)


def reading(per_s: float, size: int, name="read", threads=1) -> Kernel:
    return Kernel(name, "passed", threads, working_set_bytes=size, per_s=per_s)


def products(per_s: float, precision=FP32, name="multiply", threads=1) -> Kernel:
    return Kernel(name, "passed", threads, precision=precision, per_s=per_s)


def placed(rows, work, tried, cache_bytes=32 * MIB):
    works = {(one.stage, one.precision, one.batch): work for one in rows}
    return list(place(rows, works, tried, cache_bytes))


def test_the_limit_is_the_longer_of_moving_and_computing():
    work = Work(weight_bytes=100 * MIB, moved_bytes=100 * MIB, operations=50 * MIB)
    tried = [reading(10 * MIB, 100 * MIB), products(100 * MIB)]
    (found,) = placed([row(20.0)], work, tried)
    assert found.limit_s == pytest.approx(10.0)
    assert found.share == pytest.approx(0.5)
    assert (found.bound_by, found.bandwidth_by, found.peak_by) == ("memory", "read", "multiply")
    assert found.operations_per_byte == pytest.approx(0.5)
    (found,) = placed([row(20.0)], work, [tried[0], products(4 * MIB)])
    assert (found.limit_s, found.bound_by) == (pytest.approx(12.5), "arithmetic")
    (found,) = placed([row(20.0)], work, tried, cache_bytes=128 * MIB)
    assert found.bound_by == "cache"


def test_the_best_kernel_counts_of_those_with_the_same_threads_size_and_type():
    work = Work(weight_bytes=100 * MIB, moved_bytes=100 * MIB, operations=1)
    tried = [
        reading(10 * MIB, 100 * MIB, "slow"),
        reading(20 * MIB, 101 * MIB, "fast"),
        reading(900 * MIB, MIB, "in cache"),
        reading(800 * MIB, 100 * MIB, "in two threads", threads=2),
        products(1e3, FP32, "fp32"),
        products(1e9, BF16, "bf16"),
        products(1e8, FP16, "fp16"),
        products(1e12, FP32, "in two threads", threads=2),
        Kernel("torch", "not run", 1, "no module"),
    ]
    found = {}
    for precision in (FP32, FP16, BF16):
        (one,) = placed([row(99.0, precision)], work, tried)
        assert one.bandwidth_by == "fast"
        found[precision] = one.peak_by
    assert found == {FP32: "fp32", FP16: "fp16", BF16: "bf16"}
    (widened,) = placed([row(99.0, FP16)], work, [*tried, products(1e10, FP32, "wide")])
    assert widened.peak_by == "wide"


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.sampled_from([1, 8, 64])), min_size=1))
def test_nothing_is_above_its_limit_and_who_is_at_it_is_named(rows):
    latencies = [row(seconds, batch=batch) for seconds, batch in rows]
    works = {
        ("autoencoder", FP32, batch): Work(MIB, MIB + batch * 100, 2 * MIB * batch)
        for batch in (1, 8, 64)
    }
    found = list(place(latencies, works, [reading(1.0, MIB), products(1.0)], 1))
    assert all(one.share <= 1 + 1e-9 for one in found)
    best = max(found, key=lambda one: one.share)
    assert best.share == pytest.approx(1.0)
    assert best.bandwidth_by.startswith("native fp32 autoencoder, batch")


@given(st.integers(1, 1 << 50))
def test_working_sets_are_rounded_by_less_than_a_tenth(size):
    assert 0.9 < working_set(size) / size < 1.1 or size < 12


def test_the_last_level_cache_is_the_largest(tmp_path):
    assert last_level_cache_bytes(tmp_path) is None
    for index, size in enumerate(("32K", "1024K", "32M", "strange")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert last_level_cache_bytes(tmp_path) == 32 * MIB


def test_a_turn_lasts_from_the_first_thread_s_beginning_to_the_last_one_s_end():
    assert span_s([(5, 2_000_000_005), (1_000_000_005, 3_000_000_005)]) == 3.0


def test_turns_go_on_for_the_duration_and_the_first_does_not_count():
    clock, calls = itertools.count(0, 250_000_000), []
    seconds = turns_s([lambda: calls.append(1)], 4.0, lambda: next(clock))
    assert len(calls) == len(seconds) + 1
    assert seconds == [0.25] * 15


def test_threads_begin_each_turn_together_and_there_are_enough_turns():
    here, most, lock = [0], [0], threading.Lock()

    def part():
        with lock:
            here[0] += 1
            most[0] = max(most[0], here[0])
        time.sleep(0.002)
        with lock:
            here[0] -= 1

    seconds = turns_s([part, part], 0.0)
    assert len(seconds) == LEAST_TURNS
    assert most[0] == 2


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_thread_that_fails_stops_the_others_with_its_error(failing):
    def fails():
        raise ValueError("no memory")

    parts = [lambda: None] * 3
    parts[failing] = fails
    with pytest.raises(ValueError, match="no memory"):
        turns_s(parts, 0.0)


def here(job):
    """What the fresh process does, in this one."""
    return list(kernels(job))


@pytest.mark.parametrize(("threads", "measure"), [(1, here), (2, measured)])
def test_every_library_reads_and_multiplies(bundles, threads, measure):
    quick = 1e-3
    jobs = {
        "numpy": WithNumpy(threads, (1 << 12, 1 << 16), quick),
        "torch": WithTorch(threads, (1 << 12,), quick),
        "native": WithNative(str(bundles["dense"].path), (FP32, BF16), threads, quick),
    }
    if not runtime_named("native").availability().available:
        del jobs["native"]
    for library, job in jobs.items():
        found = measure(job)
        assert {kernel.status for kernel in found} == {"passed"}, found
        assert {kernel.threads for kernel in found} == {threads}
        assert all(kernel.name.startswith(library) for kernel in found)
        assert all(0 < kernel.per_s <= kernel.best_per_s for kernel in found)
        read = {kernel.working_set_bytes for kernel in found if kernel.precision is None}
        assert all(read)
        if library != "native":
            assert {working_set(size) for size in read} == set(job.working_sets)
        assert FP32 in {kernel.precision for kernel in found}


def test_a_process_that_dies_is_a_row_that_says_why(tmp_path):
    (kernel,) = measured(WithNative(str(tmp_path / "none.tied"), (FP32,), 1, 0.0))
    assert (kernel.name, kernel.status) == ("native", "not run")
    assert "exit code 1" in kernel.reason


def test_rows_of_a_gpu_and_rows_that_did_not_run_have_no_place(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    latencies = [
        row(1e-3, runtime="onnxruntime"),
        row(1e-3, FP16, threads=2, runtime="onnxruntime"),
        row(1e-3, runtime="torch-cuda"),
        Latency("torch", "autoencoder", FP32, 1, 1, "not run", "not here"),
    ]
    jobs = []

    def measure(job):
        jobs.append(job)
        return [Kernel("numpy", "not run", job.threads, "why not")]

    found = roofline(bundle, latencies, measure=measure)
    assert [(one.runtime, one.precision) for one in found.placements] == [
        ("onnxruntime", FP32),
        ("onnxruntime", FP16),
    ]
    assert {job.threads for job in jobs} == {1, 2}
    assert len(found.kernels) == len(jobs)
    (sizes,) = {job.working_sets for job in jobs if isinstance(job, WithNumpy)}
    weights = [sum(w.nbytes for w in bundle.weights(p).values()) for p in (FP16, FP32)]
    assert sizes == tuple(map(module.working_set, weights))
