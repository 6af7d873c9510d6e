"""Every call of the libraries fails in turn, memory ends anywhere: recorded, not run on a GPU.

Whatever happens, errors are ours, other sessions work on, and all memory is given back.
"""

from __future__ import annotations

import contextlib
import gc
import re
import threading
from itertools import product

import handmade
import numpy as np
import pytest
from handmade import images
from recorded_machine import recorded_machine, runnable_bundle

from tiedexport.bundle import open_bundle
from tiedexport.device import DeviceWeights
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import BundleError, RuntimeFailedError
from tiedexport.runtimes import Options, runtime_named
from tiedexport.session import open_session
from tiedexport.spec import Precision

pytestmark = pytest.mark.usefixtures("quick_collection")

KINDS = ("shared", "baked", "one-plan")


def machine_with(tmp_path, monkeypatch, weights, **changes):
    gpu = recorded_machine(monkeypatch)
    bundle = runnable_bundle(gpu, tmp_path / "model.tied", weights=weights, **changes)
    return gpu, bundle


def session_on(bundle):
    return open_session(bundle, runtime="tensorrt_rtx", precision="fp16")


def work(bundle) -> np.ndarray:
    """A session's whole life: what it computes by running and by a bound call."""
    x, y = images(3), np.zeros((3, handmade.SIDE, handmade.SIDE), np.float32)
    with session_on(bundle) as session:
        ran = session.reconstruct(x), session.decode(session.encode(x))
        session.bind("autoencoder", x, y)()
    return np.stack([*ran, y])


def all_is_given_back(gpu) -> bool:
    def given_back() -> bool:
        return gpu.memory.blocks == {} and not DeviceWeights._resident and not gpu.living()

    return given_back() or (gc.collect() > 0 and given_back())


def outcome(bundle) -> np.ndarray | RuntimeFailedError:
    """What a session computed, or the one kind of error that it may end with."""
    try:
        return work(bundle)
    except RuntimeFailedError as error:
        # Without the traceback, whose frames hold what failed.
        return RuntimeFailedError(
            error.what, got=str(error.got), expected=error.expected, hint=error.hint
        )


@pytest.mark.parametrize("weights", KINDS)
def test_recorded_failure_of_any_call_is_ours_and_frees_everything(tmp_path, monkeypatch, weights):
    gpu, bundle = machine_with(tmp_path, monkeypatch, weights)
    expected = work(bundle)
    calls, survived = gpu.calls, 0
    for number in range(1, calls + 1):
        gpu.calls, gpu.fail_at = 0, number
        got = outcome(bundle)
        gpu.fail_at = None
        if isinstance(got, RuntimeFailedError):
            assert "CUDA_ERROR_UNKNOWN" in str(got)
        else:  # no graph was recorded, which a warning tells
            np.testing.assert_array_equal(got, expected)
            survived += 1
        assert all_is_given_back(gpu), number
    assert 0 < survived < calls / 10
    np.testing.assert_array_equal(work(bundle), expected)


@pytest.mark.parametrize(
    ("weights", "places"),
    [
        ("shared", {"context", "image", "code", "reconstruction", "weight"}),
        ("baked", {"load", "context", "image", "code", "reconstruction"}),
        ("one-plan", {"load", "context", "image", "code", "reconstruction", "code_in"}),
    ],
)
def test_recorded_device_memory_may_end_anywhere(tmp_path, monkeypatch, weights, places):
    gpu, bundle = machine_with(tmp_path, monkeypatch, weights)
    expected = work(bundle)
    named, total = set(), 0
    while True:
        gpu.total = total
        got = outcome(bundle)
        assert all_is_given_back(gpu), total
        if not isinstance(got, RuntimeFailedError):
            break
        assert f"of the device's {total:,} bytes" in str(got)
        assert "nvidia-smi" in str(got.hint)
        asked = re.match(
            "no device memory for (\\w+)|TensorRT (?:does not|makes no) (\\w+)", got.what
        )
        named.update(asked.groups())
        total += 150
    np.testing.assert_array_equal(got, expected)
    assert named == {None, *places}


def test_recorded_memory_that_ends_says_for_what_and_how_much(tmp_path, monkeypatch):
    gpu, bundle = machine_with(tmp_path, monkeypatch, "shared")
    gpu.total = 100
    with pytest.raises(RuntimeFailedError) as weight:
        session_on(bundle)
    assert weight.value.what == (
        "no device memory for weight layers.0.weight (all weights take 442 bytes)"
    )
    assert weight.value.expected == "360 bytes; of the device's 100 bytes, 18 are free"
    assert gpu.memory.blocks == {}, "although the exception is still there"
    gpu.total = 500
    with pytest.raises(RuntimeFailedError) as staging:
        session_on(bundle)
    assert staging.value.what == (
        "no device memory for image of plans/rtx/encoder.fp16.plan, 16 rows"
    )
    gpu.total = gpu.memory.used() + 442 + 16 * 4 * (36 + 5) + 100
    with pytest.raises(RuntimeFailedError) as context:
        session_on(bundle)
    assert context.value.what == "TensorRT makes no context of plans/rtx/encoder.fp16.plan"
    assert "OutOfMemory: no activation memory" in str(context.value)
    assert "4,096 bytes; of the device's " in str(context.value)


def test_recorded_host_memory_that_ends_is_told_from_the_device_s(tmp_path, monkeypatch):
    gpu, bundle = machine_with(tmp_path, monkeypatch, "baked")

    def refuse(size: int) -> None:
        raise MemoryError(f"cuMemAllocHost of {size}")

    monkeypatch.setattr(gpu.core, "LegacyPinnedMemoryResource", lambda: Pinned)

    class Pinned:
        allocate = staticmethod(refuse)

    with pytest.raises(
        RuntimeFailedError, match="no pinned host memory for image of plans/rtx/enc"
    ):
        session_on(bundle)


def test_an_unanswered_question_for_free_memory_hides_nothing(tmp_path, monkeypatch):
    gpu, bundle = machine_with(tmp_path, monkeypatch, "shared")
    gpu.total = 100
    gpu.driver.cuMemGetInfo = lambda: (201, 0, 0)
    with pytest.raises(RuntimeFailedError, match=r"(?s)OUT_OF_MEMORY.*expected: 360 bytes\n"):
        session_on(bundle)


def test_recorded_session_that_finds_no_memory_leaves_another_alone(tmp_path, monkeypatch):
    gpu, bundle = machine_with(tmp_path, monkeypatch, "shared")
    with session_on(bundle) as session:
        expected = session.reconstruct(images(2))
        gpu.total = gpu.memory.used()
        with pytest.raises(RuntimeFailedError, match="no device memory"):
            session_on(bundle)
        with pytest.raises(RuntimeFailedError, match=r"no (device memory|context)"):
            session.bind("encoder", images(2), np.empty((2, handmade.CODE), np.float32))
        np.testing.assert_array_equal(session.reconstruct(images(2)), expected)
    assert all_is_given_back(gpu)


@pytest.mark.parametrize("weights", KINDS)
def test_recorded_call_that_failed_leaves_the_next_ones_right(tmp_path, monkeypatch, weights):
    gpu, bundle = machine_with(tmp_path, monkeypatch, weights)
    with session_on(bundle) as session:
        expected = {n: session.reconstruct(images(n)) for n in (5, 3)}
        gpu.calls = 0
        session.reconstruct(images(5))
        calls = gpu.calls
        for number, before, failing in product(range(1, calls + 1), (3, 5), (3, 5)):
            session.reconstruct(images(before))
            gpu.calls, gpu.fail_at = 0, number
            with contextlib.suppress(RuntimeFailedError):
                session.reconstruct(images(failing))
            gpu.fail_at = None
            got = session.reconstruct(2 * images(before))
            np.testing.assert_array_equal(got, 2 * expected[before])


@pytest.mark.parametrize("weights", KINDS)
def test_recorded_closed_backend_holds_nothing(tmp_path, monkeypatch, weights):
    gpu, bundle = machine_with(tmp_path, monkeypatch, weights)
    backend = runtime_named("tensorrt_rtx").open(bundle, Precision.FP16, Options())
    executions = list(backend._running.values())
    backend.close()
    assert all_is_given_back(gpu), "although backend and executions are still there"
    assert len(executions) == len(bundle.manifest.stages)
    for execution in executions:
        execution.close()  # once more


@pytest.mark.parametrize("weights", KINDS)
def test_recorded_sessions_close_in_any_order(tmp_path, monkeypatch, weights):
    gpu, bundle = machine_with(tmp_path, monkeypatch, weights)
    x = images(2)
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        sessions = [session_on(bundle) for _ in range(3)]
        y = np.zeros_like(x)
        calls = [session.bind("autoencoder", x, y) for session in sessions]
        for number, place in enumerate(order):
            for left in order[number:]:
                calls[left]()
                np.testing.assert_array_equal(y, sessions[left].reconstruct(x))
            sessions[place].close()
        del calls, sessions
        assert all_is_given_back(gpu), order


def test_recorded_threads_open_run_and_close_at_once(tmp_path, monkeypatch):
    gpu, bundle = machine_with(
        tmp_path,
        monkeypatch,
        "one-plan",
        options=EngineOptions(profiles=((0, 1, 1), (0, 2, 3), (0, 8, 16))),
    )
    expected = {n: work_on(bundle, n) for n in range(1, 5)}
    failures = []

    def thread(n: int) -> None:
        for _ in range(5):
            try:
                if not np.array_equal(work_on(bundle, n), expected[n]):
                    failures.append(n)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=thread, args=(n,)) for n in expected]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failures == []
    assert all_is_given_back(gpu)


def work_on(bundle, n: int) -> np.ndarray:
    with session_on(bundle) as session:
        return session.reconstruct(images(n))


def test_a_session_that_another_thread_opened_runs_in_this_one(tmp_path, monkeypatch):
    gpu, bundle = machine_with(tmp_path, monkeypatch, "shared")
    opened = []
    opener = threading.Thread(target=lambda: opened.append(session_on(bundle)))
    opener.start()
    opener.join()
    assert not gpu.is_current()
    with opened[0] as session:
        assert session.reconstruct(images(1)).any()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda plan: plan[:-1], "size"),
        (lambda plan: b"", "size"),
        (lambda plan: bytes(len(plan)), "altered"),
    ],
)
def test_a_plan_that_is_not_what_was_built_never_reaches_the_library(
    tmp_path, monkeypatch, damage, words
):
    gpu, bundle = machine_with(tmp_path, monkeypatch, "shared")
    file = bundle.path / bundle.manifest.plans[0].file
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BundleError, match=words):
        session_on(open_bundle(bundle.path))
    assert gpu.calls == 0


def test_a_plan_of_garbage_with_the_right_digest_is_the_library_s_to_refuse(tmp_path, monkeypatch):
    gpu, bundle = machine_with(tmp_path, monkeypatch, "shared")
    gpu.plans.clear()
    with pytest.raises(RuntimeFailedError) as caught:
        session_on(bundle)
    assert caught.value.what == "TensorRT does not load plans/rtx/encoder.fp16.plan"
    assert "no engine; Serialization assertion failed" in str(caught.value)
    assert "tiedexport build NAME.tied --force" in str(caught.value.hint)
