"""What every runtime owes its callers, whatever the library behind it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from conftest import MODELS, make_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, SimpleCompareFunc

from tiedexport import rounding
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import (
    ArrayError,
    MissingRuntimeError,
    RuntimeFailedError,
    TiedExportError,
    UsageError,
)
from tiedexport.export import build
from tiedexport.runtimes import all_runtimes, choose_precision, runtime_named
from tiedexport.session import Session, open_session
from tiedexport.spec import ACTIVATIONS, Precision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FP32, FP16, BF16 = Precision
VERBS = {"encode": "encoder", "decode": "decoder", "reconstruct": "autoencoder"}


@pytest.fixture(params=[r.name for r in all_runtimes().values() if r.availability().available])
def runtime(request: pytest.FixtureRequest) -> str:
    """Every runtime that can work on this machine."""
    return str(request.param)


@pytest.mark.parametrize("name", all_runtimes())
def test_the_contract_below_is_held_to_every_runtime_unless_it_cannot_work_here(name: str):
    availability = runtime_named(name).availability()
    if not availability.available:
        pytest.skip(f"{name}: {availability.reason}; {availability.remedy}")
    assert availability.version


def session_of(bundle: Bundle, runtime: str, precision: Precision | None = None) -> Session:
    chosen, reason = choose_precision(runtime_named(runtime), bundle, precision)
    if chosen is None:
        pytest.skip(f"{runtime}: {reason}")
    return open_session(bundle, runtime=runtime, precision=chosen, threads=1)


@pytest.fixture
def session(dense_bundle: Bundle, runtime: str) -> Iterator[Session]:
    with session_of(dense_bundle, runtime) as opened:
        yield opened


def bound_of(session: Session, stage: str, x: np.ndarray) -> np.ndarray:
    return rounding.forward_bound(
        session.bundle.manifest.stage(stage).layers,
        session.bundle.weights(FP32),
        x.astype(np.float64),
        precision=session.precision,
        accumulation=runtime_named(session.runtime).accumulation[session.precision],
        io=session.bundle.manifest.io_dtype,
    ).bound


def inputs_of(session: Session, stage: str, batch: int, seed: int = 0) -> np.ndarray:
    spec = session.bundle.manifest.stage(stage).inputs[0]
    shape = (batch, *spec.element_shape)
    return np.random.default_rng(seed).random(shape).astype(spec.dtype.dtype)


# Numbers.


@pytest.mark.parametrize("precision", Precision)
def test_every_verb_agrees_with_float64_within_the_derived_bound(
    bundle: Bundle, runtime: str, precision: Precision
):
    with session_of(bundle, runtime, precision) as session:
        assert session.precision is precision
        for verb, stage in VERBS.items():
            spec = bundle.manifest.stage(stage)
            x = bundle.golden[spec.inputs[0].name]
            output = getattr(session, verb)(x.astype(np.float32))
            error = np.abs(output.astype(np.float64) - bundle.golden[spec.outputs[0].name])
            assert output.dtype == np.float32
            assert np.max(error / bound_of(session, stage, x)) <= 1.0


@pytest.mark.parametrize("memory", ["shared", "packed"])
def test_both_memory_modes_give_the_same_answer(dense_bundle: Bundle, runtime: str, memory: Any):
    golden = dense_bundle.golden
    with open_session(dense_bundle, runtime=runtime, precision="fp32", memory=memory) as session:
        error = np.abs(session.reconstruct(golden["input"]) - golden["reconstruction"])
        assert np.max(error / bound_of(session, "autoencoder", golden["input"])) <= 1.0


@pytest.mark.parametrize("batch", [0, 1, 3, 17])
def test_a_batch_of_any_size_gives_each_sample_its_answer(bundle: Bundle, runtime: str, batch: int):
    with session_of(bundle, runtime, FP32) as session:
        for stage in VERBS.values():
            spec = bundle.manifest.stage(stage).outputs[0]
            x = inputs_of(session, stage, batch)
            output = session.run(stage, x)
            assert output.shape == (batch, *spec.element_shape)
            assert output.flags.c_contiguous
            assert output.dtype == np.float32
            session.bind(stage, x, bound := np.empty_like(output))()
            np.testing.assert_array_equal(bound, output)
            single = [session.run(stage, sample[None])[0] for sample in x]
            # Another batch may be summed in another order: each is within the bound.
            difference = np.abs(output - np.reshape(single, output.shape))
            assert np.all(difference <= 2 * bound_of(session, stage, x))


# Arrays.


def test_an_output_array_is_filled_and_returned(session: Session):
    for stage in VERBS.values():
        x = inputs_of(session, stage, 5)
        expected = session.run(stage, x)
        out = np.full_like(expected, np.nan)
        assert session.run(stage, x, out) is out
        np.testing.assert_array_equal(out, expected)


def test_a_bound_call_reads_and_writes_in_place_each_time(session: Session):
    for stage in VERBS.values():
        x = inputs_of(session, stage, 4)
        out = np.full_like(session.run(stage, x), np.nan)
        call = session.bind(stage, x, out)
        for seed in (1, 2):
            x[...] = inputs_of(session, stage, 4, seed)
            assert call() is None
            np.testing.assert_array_equal(out, session.run(stage, x))


def test_results_do_not_share_memory_with_each_other_or_the_input(session: Session):
    x = inputs_of(session, "encoder", 3)
    first = session.encode(x)
    kept = first.copy()
    second = session.encode(inputs_of(session, "encoder", 3, seed=5))
    assert not np.shares_memory(first, second)
    assert not np.shares_memory(first, x)
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(first, second)


def test_strided_and_read_only_inputs_give_the_same_answer(session: Session):
    x = inputs_of(session, "autoencoder", 6)
    expected = session.reconstruct(x)
    reversed_twice = np.ascontiguousarray(x[::-1])[::-1]
    transposed = np.ascontiguousarray(x.T).T
    read_only = x.copy()
    read_only.flags.writeable = False
    for array in (reversed_twice, transposed, read_only):
        np.testing.assert_array_equal(session.reconstruct(array), expected)


@pytest.mark.parametrize("stage", VERBS.values())
def test_four_threads_get_bit_for_bit_what_one_gets(session: Session, stage: str):
    inputs = [inputs_of(session, stage, 1 + seed % 5, seed) for seed in range(24)]
    alone = [session.run(stage, x) for x in inputs]
    start = threading.Barrier(4)

    def run_all(_: int) -> list[np.ndarray]:
        start.wait()
        return [session.run(stage, x) for x in inputs]

    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(run_all, range(4)):
            for one, other in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one, other)


# Refusals.


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (np.zeros((2, 20)), "float64[2, 20]"),
        (np.zeros((2, 20), np.float16), "float16[2, 20]"),
        (np.zeros((2, 20), ">f4"), ">f4[2, 20]"),
        (np.zeros((2, 20), np.int32), "int32[2, 20]"),
        (np.zeros((2, 19), np.float32), "float32[2, 19]"),
        (np.zeros(20, np.float32), "float32[20]"),
        (np.zeros((), np.float32), "float32[]"),
        (np.zeros((2, 4, 5), np.float32), "float32[2, 4, 5]"),
        ([[0.0] * 20], "list"),
        (None, "NoneType"),
    ],
    ids=str,
)
def test_an_input_that_does_not_fit_is_refused_in_its_own_words(session: Session, x: Any, got: str):
    out = np.empty((2, 13), np.float32)
    for call in (lambda: session.encode(x), lambda: session.bind("encoder", x, out)):
        with pytest.raises(ArrayError) as caught:
            call()
        assert caught.value.got == got
        assert caught.value.expected == "input: fp32[batch, 20]"


def _read_only(out: np.ndarray) -> np.ndarray:
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    ("out", "got", "expected"),
    [
        (np.empty((3, 7)), "float64[3, 7]", "code: fp32[batch, 7]"),
        (np.empty((2, 7), np.float32), "float32[2, 7]", "code: fp32[batch, 7]"),
        (np.empty((3, 8), np.float32), "float32[3, 8]", "code: fp32[batch, 7]"),
        ([0.0], "list", "code: fp32[batch, 7]"),
        (_read_only(np.empty((3, 7), np.float32)), "a read-only array", "writable"),
        (np.empty((7, 3), np.float32).T, "a view with gaps", "C-contiguous"),
        (np.empty((3, 14), np.float32)[:, ::2], "a view with gaps", "C-contiguous"),
    ],
    ids=["dtype", "batch", "width", "type", "read-only", "transposed", "strided"],
)
def test_an_output_array_that_cannot_be_written_is_refused(session: Session, out, got, expected):
    x = inputs_of(session, "encoder", 3)
    for call in (lambda: session.encode(x, out), lambda: session.bind("encoder", x, out)):
        with pytest.raises(ArrayError) as caught:
            call()
        assert caught.value.got == got
        assert expected in str(caught.value.expected)


def test_an_output_array_over_the_input_is_refused(session: Session):
    x = inputs_of(session, "autoencoder", 3)
    kept = x.copy()
    with pytest.raises(ArrayError, match="overlaps"):
        session.reconstruct(x, x)
    np.testing.assert_array_equal(x, kept)


def test_a_bound_input_is_never_copied_in_silence(session: Session):
    x = np.asfortranarray(inputs_of(session, "encoder", 3))
    with pytest.raises(ArrayError, match="C-contiguous"):
        session.bind("encoder", x, np.empty((3, 7), np.float32))


def test_an_unknown_stage_is_an_error_of_usage_that_lists_them(session: Session):
    with pytest.raises(UsageError, match="unknown stage") as caught:
        session.run("classifier", inputs_of(session, "encoder", 1))
    assert caught.value.expected == "encoder, decoder, autoencoder"


def test_a_closed_session_says_so_and_closing_twice_is_nothing(dense_bundle, runtime: str):
    session = session_of(dense_bundle, runtime)
    x = inputs_of(session, "encoder", 2)
    out = np.empty((2, 7), np.float32)
    call = session.bind("encoder", x, out)
    session.encode(x)
    session.close()
    session.close()
    for use in (
        call,
        lambda: session.encode(x),
        lambda: session.decode(out),
        lambda: session.encode(x, out),
        lambda: session.bind("encoder", x, out),
    ):
        with pytest.raises(UsageError, match="the session is closed"):
            use()


def test_a_damaged_graph_behind_a_size_check_is_the_runtimes_failure(
    dense_bundle: Bundle, runtime: str, tmp_path: Path
):
    for file in dense_bundle.path.iterdir():
        content = file.read_bytes()
        damaged = file.suffix in (".onnx", ".safetensors")
        (tmp_path / file.name).write_bytes(b"\xff" * len(content) if damaged else content)

    def use() -> None:
        with open_session(open_bundle(tmp_path, check="size"), runtime=runtime) as session:
            session.encode(inputs_of(session, "encoder", 1))

    with pytest.raises(TiedExportError) as caught:
        use()
    assert isinstance(caught.value, RuntimeFailedError)


# Polygraphy as an independent judge.


@pytest.mark.parametrize("stage", VERBS.values())
def test_polygraphy_runs_the_graphs_to_the_same_answer(bundle: Bundle, stage: str):
    with open_session(bundle, runtime="onnxruntime", precision="fp32", threads=1) as session:
        spec = bundle.manifest.stage(stage)
        x, name = inputs_of(session, stage, 3), spec.outputs[0].name
        runner = OnnxrtRunner(SessionFromOnnx(str(bundle.graph(stage, FP32))), name="polygraphy")
        results = Comparator.run([runner], data_loader=[{spec.inputs[0].name: x}])
        results.add([{name: session.run(stage, x)}], runner_name="tiedexport")
        bound = float(bound_of(session, stage, x).max())
    # Its session packs the weights, which changes the order of sums: each is within the bound.
    judge = SimpleCompareFunc(rtol=0.0, atol=2 * bound)
    assert bool(Comparator.compare_accuracy(results, compare_func=judge))


# Any model.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any-model")


@settings(max_examples=8, deadline=None)
@given(
    widths=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    activation=st.sampled_from(ACTIVATIONS),
    code=st.sampled_from(["activated", "linear"]),
    output=st.sampled_from(["sigmoid", "linear"]),
    tied=st.booleans(),
    precision=st.sampled_from([FP32, FP16]),
    batch=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_any_stack_exports_to_what_torch_computes_in_float64(
    folder, widths, activation, code, output, tied, precision, batch, seed
):
    fields = {"widths": widths, "activation": activation, "code": code, "output": output}
    checkpoint = make_checkpoint("autoencoder", fields | {"tied": tied}, seed)
    save_checkpoint(folder / "model.pt", checkpoint)
    build(folder / "model.pt", folder / "b.tied", precision=precision, target=())
    bundle = open_bundle(folder / "b.tied")
    samples = checkpoint.samples[:batch]
    module = checkpoint.module()
    masters = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    expected = module.double()(samples.double()).numpy()
    for runtime in ("onnxruntime", "reference"):
        bounded = rounding.forward_bound(
            bundle.manifest.stage("autoencoder").layers,
            masters,
            samples.double().numpy(),
            precision=precision,
            accumulation=runtime_named(runtime).accumulation[precision],
            io=FP32,
        )
        np.testing.assert_allclose(bounded.value, expected, rtol=1e-9, atol=1e-12)
        with open_session(bundle, runtime=runtime, precision=precision, threads=1) as session:
            found = session.reconstruct(samples.numpy())
        assert np.all(np.abs(found - expected) <= bounded.bound)


# Opening.


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"runtime": "abacus"}, "unknown runtime"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"precision": "fp32,fp16"}, "one precision"),
        ({"memory": "none"}, "unknown memory mode"),
        ({"threads": 0}, "threads must be positive"),
    ],
)
def test_a_bad_argument_of_open_session_is_an_error_of_usage(dense_bundle, arguments, what):
    with pytest.raises(UsageError, match=what):
        open_session(dense_bundle, **arguments)


def test_a_runtime_that_cannot_run_is_an_error_with_its_reason_and_no_other_takes_its_place(
    dense_bundle: Bundle,
):
    absent = [r for r in all_runtimes().values() if not r.availability().available]
    if not absent:
        pytest.skip("every runtime is available here")
    for row in absent:
        with pytest.raises(MissingRuntimeError) as caught:
            open_session(dense_bundle, runtime=row.name)
        assert row.availability().reason in str(caught.value.got)


def test_a_precision_that_a_runtime_lacks_is_an_error_and_not_another_precision(dense_bundle):
    with pytest.raises(MissingRuntimeError, match="no bf16 kernels"):
        open_session(dense_bundle, runtime="onnxruntime", precision="bf16")


def test_a_provider_that_fell_back_is_an_error(dense_bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["OtherProvider"])
    with open_session(dense_bundle, runtime="onnxruntime") as session:
        x = inputs_of(session, "encoder", 1)
        with pytest.raises(RuntimeFailedError, match="fell back") as caught:
            session.encode(x)
    assert (caught.value.got, caught.value.expected) == ("OtherProvider", "CPUExecutionProvider")


def test_auto_takes_the_first_runtime_by_rank_that_can_run(dense_bundle: Bundle):
    able = [
        row.name
        for row in all_runtimes().values()
        if choose_precision(row, dense_bundle, FP32)[0] is not None
    ]
    with open_session(dense_bundle, precision="fp32") as session:
        assert session.runtime == able[0]


def test_the_suite_knows_every_model():
    assert {"dense", "dense-gelu-linear", "untied", "conv"} == set(MODELS)
