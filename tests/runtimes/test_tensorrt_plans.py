"""Every kind of plan, recorded, not run on a GPU: halves, profiles, which is taken, new weights."""

from __future__ import annotations

import gc

import handmade
import msgspec
import numpy as np
import pytest
from conftest import sign_files
from handmade import images
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded_machine import (
    FP16,
    PROFILE,
    bundle_with_plans,
    give_plans,
    plan_of,
    recorded_machine,
    runnable_bundle,
    session_on,
    with_plans,
)
from safetensors.numpy import save_file

from tiedexport.bundle import open_bundle
from tiedexport.device import Engine, Gpu, memory_bytes
from tiedexport.engine_options import EngineOptions
from tiedexport.errors import ArrayError, BundleError, RuntimeFailedError
from tiedexport.spec import CODE_IN

SIDE, CODE = handmade.SIDE, handmade.CODE


@pytest.fixture
def gpu(monkeypatch):
    return recorded_machine(monkeypatch)


@pytest.fixture
def halves(tmp_path, gpu):
    return runnable_bundle(gpu, tmp_path / "halves.tied", weights="one-plan")


def codes(n: int) -> np.ndarray:
    return np.random.default_rng(n).random((n, CODE), np.float32)


# One plan of two independent halves.


@pytest.mark.parametrize("batch", [0, 1, 3, 16, 17, 40])
def test_recorded_halves_encode_decode_and_reconstruct(gpu, halves, batch):
    x, z = images(batch), codes(batch)
    sums = x.astype(np.float64).sum(axis=(1, 2))
    with session_on(halves) as session:
        np.testing.assert_allclose(session.encode(x)[:, 0], sums, rtol=1e-6)
        np.testing.assert_allclose(session.decode(z)[:, 0, 0], z.sum(axis=1), rtol=1e-6)
        np.testing.assert_allclose(session.reconstruct(x)[:, 0, 0], CODE * sums, rtol=1e-6)


def test_recorded_halves_are_one_engine_and_codes_stay_on_the_device(gpu, halves):
    before = set(Engine.alive)
    with session_on(halves) as session:
        assert len(set(Engine.alive) - before) == 1
        gpu.log.clear()
        session.reconstruct(images(3))
    assert gpu.log == ["copy", "execute", "execute", "copy"]


def test_recorded_halves_of_reconstruct_meet_in_one_buffer(gpu, halves):
    with session_on(halves):
        # Encoder, decoder, then the two steps of the autoencoder.
        encoding, decoding = gpu.living()[-2:]
        assert encoding.addresses["code"] == decoding.addresses[CODE_IN]
        assert all(
            context.addresses.keys() == encoding.addresses.keys() for context in gpu.living()
        )
        assert all(all(context.addresses.values()) for context in gpu.living())


def test_recorded_halves_are_captured_into_one_graph(gpu, halves):
    x, y = images(5), np.zeros((5, SIDE, SIDE), np.float32)
    with session_on(halves) as session:
        call = session.bind("autoencoder", x, y)
        gpu.log.clear()
        for factor in (1, 3):
            x *= factor
            call()
            expected = CODE * x.astype(np.float64).sum(axis=(1, 2))
            np.testing.assert_allclose(y[:, 0, 0], expected, rtol=1e-6)
        assert gpu.log == ["graph", "graph"]


def test_a_plan_whose_halves_cannot_idle_is_refused(tmp_path, gpu):
    options = EngineOptions(profiles=(PROFILE,))
    bundle = runnable_bundle(gpu, tmp_path / "m.tied", weights="one-plan", options=options)
    with pytest.raises(RuntimeFailedError, match="a half of profile 0 cannot idle: it takes 1 up"):
        session_on(bundle)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": "z"}, f"no {CODE_IN}"),
        ({"dtype": FP16}, "codes differ in type or shape"),
        ({"shape": (-1, CODE + 1)}, "codes differ in type or shape"),
    ],
)
def test_halves_that_do_not_fit_together_are_refused(tmp_path, gpu, changed, words):
    bundle = bundle_with_plans(tmp_path / "m.tied", weights="one-plan")
    (plan,) = bundle.manifest.plans
    bindings = tuple(
        msgspec.structs.replace(b, **changed) if b.name == CODE_IN else b for b in plan.bindings
    )
    bundle = with_plans(bundle, (msgspec.structs.replace(plan, bindings=bindings),))
    give_plans(gpu, bundle)
    with pytest.raises(BundleError, match=words):
        session_on(bundle)
    gc.collect()
    assert gpu.memory.blocks == {}


# Several optimisation profiles.


def engine_of(gpu, bundle, *profiles):
    plan = plan_of(bundle.manifest.stage("encoder"), {}, options=EngineOptions(profiles=profiles))
    bundle = with_plans(bundle, (plan,))
    give_plans(gpu, bundle)
    from tiedexport import trt

    return Engine(Gpu(trt.load("tensorrt_rtx")), plan, plan.file.encode(), None)


@pytest.mark.parametrize(
    ("profiles", "rows", "chosen"),
    [
        ([(1, 1, 1), (1, 8, 64)], 1, (0, 1)),
        ([(1, 8, 64), (1, 1, 1)], 1, (1, 1)),
        ([(1, 1, 1), (1, 8, 64)], 2, (1, 2)),
        ([(1, 1, 1), (1, 8, 64)], 64, (1, 64)),
        ([(1, 8, 64), (2, 4, 8)], 5, (1, 5)),
        ([(1, 1, 1), (8, 8, 16)], 4, (1, 8)),  # in the gap: filled up
        ([(16, 16, 16), (4, 8, 16)], 2, (1, 4)),  # below both: the lesser waste
        ([(0, 8, 64)], 1, (0, 1)),
    ],
)
def test_the_narrowest_profile_that_holds_a_batch_is_taken(tmp_path, gpu, profiles, rows, chosen):
    engine = engine_of(gpu, handmade.bundle(tmp_path / "m.tied"), *profiles)
    assert engine.profile_for(rows) == chosen
    assert engine.largest == max(largest for _, _, largest in profiles)


_PROFILES = st.lists(
    st.tuples(*[st.integers(1, 9)] * 3).map(lambda batches: tuple(sorted(batches))),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(profiles=_PROFILES, batches=st.lists(st.integers(0, 20), min_size=1, max_size=4))
@pytest.mark.parametrize("weights", ["baked", "one-plan"])
def test_recorded_batches_of_any_size_run_in_any_profiles(
    tmp_path_factory, gpu, weights, profiles, batches
):
    if weights == "one-plan":
        profiles = [(0, *others) for _, *others in profiles]
    options = EngineOptions(profiles=tuple(profiles))
    path = tmp_path_factory.mktemp("profiles") / "m.tied"
    bundle = runnable_bundle(gpu, path, weights=weights, options=options)
    per_row = CODE if weights == "one-plan" else 1
    with session_on(bundle) as session:
        for batch in batches:
            x = images(batch)
            expected = per_row * x.astype(np.float64).sum(axis=(1, 2))
            y = session.reconstruct(x)
            np.testing.assert_allclose(y[:, 0, 0], expected, rtol=1e-6)
            bound = np.zeros_like(y)
            session.bind("autoencoder", x, bound)()
            np.testing.assert_array_equal(bound, y)


def test_recorded_contexts_are_one_a_profile_and_step(tmp_path, gpu):
    options = EngineOptions(profiles=((0, 1, 1), (0, 8, 64)))
    bundle = runnable_bundle(gpu, tmp_path / "m.tied", weights="one-plan", options=options)
    with session_on(bundle):
        # Two stages of one step and one of two, in two profiles.
        assert sorted(context.profile for context in gpu.living()) == [0] * 4 + [1] * 4


# New content in a weight's buffer.


def test_recorded_replaced_weight_changes_every_stage_and_no_address(tmp_path, gpu):
    bundle = runnable_bundle(gpu, tmp_path / "m.tied")
    before = set(Engine.alive)
    x, z = images(2), codes(2)
    y = np.zeros_like(x)
    with session_on(bundle) as session:
        call = session.bind("autoencoder", x, y)
        engines = set(Engine.alive) - before
        (weights,) = {engine.weights for engine in engines}
        addresses = [engine.addresses for engine in engines]
        old = [session.encode(x), session.decode(z), session.reconstruct(x)]
        weights.replace("layers.0.weight", 2 + weights.arrays["layers.0.weight"])
        new = [session.encode(x), session.decode(z), session.reconstruct(x)]
        call()
        assert all((a != b).all() for a, b in zip(old, new, strict=True))
        np.testing.assert_array_equal(y, new[-1])
        assert addresses == [engine.addresses for engine in engines]
        with session_on(bundle) as later:  # has the file's weights, not these
            np.testing.assert_array_equal(later.reconstruct(x), old[-1])


def test_recorded_sessions_of_a_replaced_checkpoint_have_its_weights(tmp_path, gpu):
    bundle = runnable_bundle(gpu, tmp_path / "m.tied")
    x = images(2)
    with session_on(bundle) as session:
        old = session.reconstruct(x)
        doubled = {name: 2 * array for name, array in bundle.weights(FP16).items()}
        other = bundle.path / "other.safetensors"
        save_file(doubled, other)
        other.replace(bundle.weights_path(FP16))
        sign_files(bundle.path)
        with session_on(open_bundle(bundle.path)) as later:
            np.testing.assert_allclose(later.reconstruct(x), 2 * old, rtol=1e-3)
            np.testing.assert_array_equal(session.reconstruct(x), old)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("layers.9.weight", np.zeros(3, np.float16), "one of b, c, layers.0.weight"),
        ("b", np.zeros(CODE, np.float32), rf"float16\[{CODE}\]"),
        ("b", np.zeros(CODE + 1, np.float16), rf"float16\[{CODE}\]"),
    ],
)
def test_a_weight_of_another_shape_or_type_cannot_replace_one(tmp_path, gpu, name, array, words):
    bundle = runnable_bundle(gpu, tmp_path / "m.tied")
    before = set(Engine.alive)
    with session_on(bundle):
        (weights,) = {engine.weights for engine in set(Engine.alive) - before}
        with pytest.raises(ArrayError, match=words):
            weights.replace(name, array)


def test_recorded_device_memory_is_what_the_driver_counts(gpu):
    assert memory_bytes() == (gpu.total, gpu.total)
    gpu.memory.allocate(1000, "device")
    assert memory_bytes() == (gpu.total - 1000, gpu.total)


def test_a_driver_that_does_not_tell_its_memory_is_an_error(gpu):
    gpu.driver.cuMemGetInfo = lambda: (201, 0, 0)
    with pytest.raises(RuntimeFailedError, match="201"):
        memory_bytes()
