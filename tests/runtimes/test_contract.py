"""What every runtime owes its callers, whatever the library behind it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import bound_of, inputs_of, make_checkpoint, session_of
from drawn_models import STACKS
from hypothesis import given, settings
from hypothesis import strategies as st
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, SimpleCompareFunc

from tiedexport import rounding
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.export import build
from tiedexport.runtimes import all_runtimes, runtime_named
from tiedexport.session import Session, open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

FP32, FP16, BF16 = Precision
VERBS = {"encode": "encoder", "decode": "decoder", "reconstruct": "autoencoder"}


@pytest.mark.parametrize("name", all_runtimes())
def test_the_contract_below_is_held_to_every_runtime_unless_it_cannot_work_here(name: str):
    availability = runtime_named(name).availability()
    if not availability.available:
        pytest.skip(f"{name}: {availability.reason}; {availability.remedy}")
    assert availability.version


@pytest.mark.parametrize("name", all_runtimes())
def test_every_runtime_says_which_precisions_store_weights_again_and_fp32_dense_never_does(
    dense_bundle: Bundle, name: str
):
    row = runtime_named(name)
    assert isinstance(row.packs, bool)
    reasons = [row.hidden_copies(dense_bundle, precision) for precision in Precision]
    assert reasons[0] is None
    assert all(reason is None or reason for reason in reasons)


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
    fields=STACKS,
    tied=st.booleans(),
    precision=st.sampled_from([FP32, FP16]),
    batch=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_any_stack_exports_to_what_torch_computes_in_float64(
    folder, fields, tied, precision, batch, seed
):
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
