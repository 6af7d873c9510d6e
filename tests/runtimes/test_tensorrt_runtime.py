"""The device runner, recorded, not run on a GPU: see `recording_gpu` for what is refused."""

from __future__ import annotations

import gc
import logging
import threading

import handmade
import numpy as np
import pytest
import recording_gpu
from handmade import images
from recorded_machine import FP16, recorded_machine, runnable_bundle, session_on

from tiedexport.bundle import open_bundle
from tiedexport.device import DeviceWeights
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.session import open_session


@pytest.fixture
def gpu(monkeypatch):
    return recorded_machine(monkeypatch)


@pytest.fixture
def bundle(tmp_path, gpu):
    return runnable_bundle(gpu, tmp_path / "model.tied")


def expected(bundle, x, shape):
    """What the recorded engine computes."""
    scale = sum(float(w.astype(np.float64).sum()) for w in bundle.weights(FP16).values())
    total = x.astype(np.float64).sum(axis=tuple(range(1, x.ndim)))
    return np.broadcast_to((scale * total).reshape(len(x), *[1] * len(shape)), (len(x), *shape))


def weight_allocations(gpu, bundle) -> int:
    sizes = {array.nbytes for array in bundle.weights(FP16).values()}
    return sum(gpu.log.count(f"allocate {size}") for size in sizes)


@pytest.mark.parametrize("batch", [0, 1, 2, 16, 17, 40])
def test_recorded_run_computes_every_row_of_any_batch(gpu, bundle, batch):
    x = images(batch)
    with session_on(bundle) as session:
        y = session.reconstruct(x)
        out = np.empty_like(y)
        assert session.run("autoencoder", x, out=out) is out
    np.testing.assert_allclose(y, expected(bundle, x, x.shape[1:]), rtol=1e-6)
    np.testing.assert_array_equal(out, y)


def test_recorded_run_gives_results_that_later_calls_leave_alone(gpu, bundle):
    with session_on(bundle) as session:
        first = session.encode(images(3))
        kept = first.copy()
        session.encode(images(4))
    np.testing.assert_array_equal(first, kept)


def test_recorded_batches_below_the_profile_are_filled_up(tmp_path, gpu):
    bundle = runnable_bundle(
        gpu, tmp_path / "model.tied", options=EngineOptions(profiles=((4, 8, 16),))
    )
    x = images(2)
    with session_on(bundle) as session:
        y = session.reconstruct(x)
        bound_y = np.empty_like(y)
        session.bind("autoencoder", x, bound_y)()
    np.testing.assert_allclose(y, expected(bundle, x, x.shape[1:]), rtol=1e-6)
    np.testing.assert_array_equal(bound_y, y)


def test_recorded_weights_are_uploaded_once_for_all_stages_and_sessions(gpu, bundle):
    with session_on(bundle) as one, session_on(open_bundle(bundle.path)) as two:
        one.reconstruct(images(1)), two.encode(images(1))
        assert weight_allocations(gpu, bundle) == len(bundle.weights(FP16))
        addresses = {context.addresses["layers.0.weight"] for context in gpu.living()}
        assert len(addresses) == 1


def test_recorded_device_memory_is_all_freed_when_the_last_session_closes(gpu, bundle):
    first, second = session_on(bundle), session_on(bundle)
    bound = first.bind("encoder", images(2), np.empty((2, handmade.CODE), np.float32))
    bound()
    first.close()
    np.testing.assert_allclose(
        second.reconstruct(images(1)), expected(bundle, images(1), (6, 6)), rtol=1e-6
    )
    second.close()
    second.close()
    del bound
    gc.collect()
    assert gpu.memory.blocks == {}
    assert not DeviceWeights._resident


def test_recorded_executions_are_all_closed_after_one_of_them_failed(gpu, bundle):
    session = session_on(bundle)
    kept = session.bind("encoder", images(2), np.empty((2, handmade.CODE), np.float32))
    broken = gpu.streams[-1]
    broken.capturing = []  # its wait is refused
    with pytest.raises(RuntimeFailedError, match="STREAM_CAPTURE_UNSUPPORTED"):
        session.close()
    del kept
    _of_the_upload, *executions = gpu.streams
    assert len(executions) == 4
    assert [stream for stream in executions if not stream.closed] == [broken]


def test_recorded_sessions_that_nobody_closed_are_freed_too(gpu, bundle):
    session_on(bundle).encode(images(1))
    gc.collect()
    assert gpu.memory.blocks == {}


def test_recorded_baked_plans_put_no_weights_on_the_device(tmp_path, gpu):
    bundle = runnable_bundle(gpu, tmp_path / "model.tied", weights="baked")
    x = images(2)
    with session_on(bundle) as session:
        y = session.reconstruct(x)
    np.testing.assert_allclose(y[:, 0, 0], x.sum(axis=(1, 2)), rtol=1e-6)
    assert weight_allocations(gpu, bundle) == 0


def test_recorded_bind_replays_a_graph_and_reads_the_array_each_time(gpu, bundle):
    x, y = images(4), np.zeros((4, 6, 6), np.float32)
    with session_on(bundle) as session:
        call = session.bind("autoencoder", x, y)
        assert not y.any(), "binding must not compute"
        gpu.log.clear()
        for factor in (1, 3):
            x *= factor
            call()
            np.testing.assert_allclose(y, expected(bundle, x, (6, 6)), rtol=1e-6)
        assert gpu.log == ["graph", "graph"]


def test_recorded_bound_contexts_wait_for_the_kernels_of_their_shape(gpu, bundle):
    with session_on(bundle) as session:
        session.bind("encoder", images(2), np.empty((2, handmade.CODE), np.float32))
    assert gpu.strategies == [None, None, None, "EAGER"]


def test_recorded_bind_and_run_do_not_disturb_each_other(gpu, bundle):
    x, y = images(4), np.zeros((4, 6, 6), np.float32)
    with session_on(bundle) as session:
        call = session.bind("autoencoder", x, y)
        session.reconstruct(images(9))
        call()
        np.testing.assert_allclose(y, expected(bundle, x, (6, 6)), rtol=1e-6)


@pytest.mark.parametrize(
    ("batch", "capturable", "reason"),
    [(4, False, "cannot be captured"), (17, True, "largest profile ends at 16")],
)
def test_recorded_bind_without_a_graph_says_why(gpu, bundle, caplog, batch, capturable, reason):
    gpu.capturable = capturable
    x, y = images(batch), np.zeros((batch, 6, 6), np.float32)
    with session_on(bundle) as session, caplog.at_level(logging.WARNING):
        session.bind("autoencoder", x, y)()
    assert reason in caplog.text
    assert "graph" not in gpu.log
    np.testing.assert_allclose(y, expected(bundle, x, (6, 6)), rtol=1e-6)


def test_recorded_capture_that_breaks_leaves_the_stream_usable(gpu, bundle, caplog, monkeypatch):
    def broken(builder):
        raise recording_gpu.FakeCudaError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")

    monkeypatch.setattr(recording_gpu.GraphBuilder, "end_building", broken)
    x, y = images(4), np.zeros((4, 6, 6), np.float32)
    with session_on(bundle) as session, caplog.at_level(logging.WARNING):
        session.bind("autoencoder", x, y)()
    assert "CAPTURE_INVALIDATED" in caplog.text
    np.testing.assert_allclose(y, expected(bundle, x, (6, 6)), rtol=1e-6)


def test_recorded_tensorrt_itself_needs_no_strategy_and_captures(tmp_path, monkeypatch):
    gpu = recorded_machine(monkeypatch, "tensorrt")
    bundle = runnable_bundle(gpu, tmp_path / "model.tied", package="tensorrt")
    x, y = images(4), np.zeros((4, 6, 6), np.float32)
    with open_session(bundle, runtime="tensorrt") as session:
        session.bind("autoencoder", x, y)()
    np.testing.assert_allclose(y, expected(bundle, x, (6, 6)), rtol=1e-6)
    assert set(gpu.strategies) == {None}
    assert gpu.log[-1] == "graph"


def test_recorded_threads_share_a_session(gpu, bundle):
    failures = []
    with session_on(bundle) as session:

        def work(n: int) -> None:
            for _ in range(20):
                x = images(n)
                if not np.allclose(session.reconstruct(x), expected(bundle, x, (6, 6)), rtol=1e-6):
                    failures.append(n)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_recorded_use_after_close_is_refused(gpu, bundle):
    session = session_on(bundle)
    x, y = images(2), np.zeros((2, 6, 6), np.float32)
    call = session.bind("autoencoder", x, y)
    session.close()
    for use in (
        call,
        lambda: session.reconstruct(x),
        lambda: session.bind("autoencoder", x, y),
    ):
        with pytest.raises(UsageError, match="the session is closed"):
            use()


def test_recorded_refusal_of_the_device_comes_in_the_library_s_words(gpu, bundle):
    with session_on(bundle) as session:
        gpu.fail_next = True
        with pytest.raises(RuntimeFailedError, match="enqueueV3: refused"):
            session.reconstruct(images(1))
