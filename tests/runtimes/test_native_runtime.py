"""The native runtime beyond the contract of all: every size, special values, threads, damage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import bound_of, inputs_of, make_checkpoint, needs_native
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tiedexport import rounding
from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checkpoint import save_checkpoint
from tiedexport.errors import BundleError
from tiedexport.export import build
from tiedexport.runtimes import runtime_named
from tiedexport.session import open_session
from tiedexport.spec import ACTIVATIONS, Precision
from tiedexport.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from tiedexport.session import Session

NATIVE = runtime_named("native")
pytestmark = needs_native

FP32, FP16, BF16 = Precision
BATCHES = (0, 1, 2, 7, 64, 513)
STAGES = ("encoder", "decoder", "autoencoder")
WIDE = [1031, 517, 3]
"""Primes and odd numbers, wider than any tile of the kernels."""


def native(bundle: Bundle, precision: Precision = FP32, threads: int = 1) -> Session:
    return open_session(bundle, runtime="native", precision=precision, threads=threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


@pytest.fixture(scope="module")
def wide(folder: Path) -> Bundle:
    """A model of the widths above. Never write into it."""
    checkpoint = make_checkpoint("autoencoder", {"widths": WIDE, "activation": "tanh"})
    save_checkpoint(folder / "wide.pt", checkpoint)
    build(folder / "wide.pt", folder / "wide.tied", precision="fp32,fp16,bf16", target=())
    return open_bundle(folder / "wide.tied")


# Numbers.


def assert_within_the_bound(session: Session, stage: str, batch: int) -> None:
    x = inputs_of(session, stage, batch, seed=batch)
    found = session.run(stage, x)
    if batch == 0:
        assert found.shape == (0, *session.bundle.manifest.stage(stage).outputs[0].element_shape)
        return
    expected = rounding.forward(
        session.bundle.manifest.stage(stage).layers,
        session.bundle.weights(FP32),
        x.astype(np.float64),
    )
    assert np.max(np.abs(found - expected) / bound_of(session, stage, x)) <= 1.0


@pytest.mark.parametrize("precision", Precision)
def test_every_family_precision_and_batch_is_within_the_derived_bound(
    bundle: Bundle, precision: Precision
):
    with native(bundle, precision) as session:
        for batch in BATCHES:
            for stage in STAGES:
                assert_within_the_bound(session, stage, batch)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("precision", Precision)
def test_wide_odd_layers_are_within_the_bound_on_any_number_of_threads(
    wide: Bundle, precision: Precision, threads: int
):
    with native(wide, precision, threads) as session:
        for batch in (1, 7, 65):
            assert_within_the_bound(session, "autoencoder", batch)
        assert_within_the_bound(session, "encoder", 1)
        assert_within_the_bound(session, "decoder", 9)


@settings(max_examples=8, deadline=None)
@given(
    fields=st.fixed_dictionaries(
        {
            "widths": st.lists(st.integers(1, 150), min_size=2, max_size=4),
            "activation": st.sampled_from(ACTIVATIONS),
            "code": st.sampled_from(["activated", "linear"]),
            "output": st.sampled_from(["sigmoid", "linear"]),
            "tied": st.booleans(),
        }
    ),
    batch=st.sampled_from(BATCHES),
    threads=st.integers(1, 3),
)
@example(
    # Its partial sums in order of storage stray far from zero on the way to a small sum.
    fields={
        "widths": [105, 33],
        "activation": "gelu",
        "code": "activated",
        "output": "sigmoid",
        "tied": False,
    },
    batch=513,
    threads=1,
)
def test_any_stack_is_within_the_bound(folder: Path, fields, batch, threads):
    save_checkpoint(folder / "any.pt", make_checkpoint("autoencoder", fields))
    build(folder / "any.pt", folder / "any.tied", precision="fp32,fp16,bf16", target=())
    for precision in Precision:
        with native(open_bundle(folder / "any.tied"), precision, threads) as session:
            for stage in STAGES:
                assert_within_the_bound(session, stage, batch)


def test_verify_passes_every_family_and_precision(bundle: Bundle):
    result = verify(bundle, runtime=["native"])
    ran = {row.precision for row in result.comparisons if row.runtime == "native"}
    assert ran == set(Precision)
    assert result.passed


# Not a number, infinite, subnormal.

NAN, INF = np.nan, np.inf
TINY = float(np.finfo(np.float32).smallest_subnormal)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "conv"])
@pytest.mark.parametrize("batch", [1, 20])
def test_special_values_come_out_as_torch_has_them(folder, bundles, activation, batch):
    if activation == "conv":
        bundle = bundles["conv"]
    else:
        fields = {"widths": [19, 11, 5], "activation": activation, "output": "linear"}
        save_checkpoint(folder / "special.pt", make_checkpoint("autoencoder", fields))
        build(folder / "special.pt", folder / "special.tied", precision="fp32", target=())
        bundle = open_bundle(folder / "special.tied")
    with (
        native(bundle) as session,
        open_session(bundle, runtime="torch", precision="fp32", threads=1) as torch,
    ):
        for stage in STAGES:
            for values in ([NAN], [INF], [-INF], [INF, -INF], [-INF, NAN], [TINY]):
                x = inputs_of(session, stage, batch)
                x.reshape(batch, -1)[-1, : len(values)] = values
                found, expected = session.run(stage, x), torch.run(stage, x)
                np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5, equal_nan=True)


# Threads.


@pytest.mark.parametrize("kind", ["view", "read-only", "memory map", "no samples"])
def test_an_array_is_read_and_written_where_it_lies(wide: Bundle, tmp_path: Path, kind: str):
    with open_session(wide, runtime="native", threads=1) as session:
        x = inputs_of(session, "encoder", 5)
        expected = session.encode(x[3:5].copy())
        arrays = {
            "view": x[3:5],
            "read-only": np.frombuffer(x[3:5].tobytes(), x.dtype).reshape(2, -1),
            "memory map": np.memmap(tmp_path / "x", x.dtype, "w+", shape=(2, x.shape[1])),
            "no samples": x[:0],
        }
        arrays["memory map"][...] = x[3:5]
        given = arrays[kind]
        around = np.full((len(given) + 2, expected.shape[1]), np.nan, expected.dtype)
        assert session.encode(given, around[1:-1]).base is around
        np.testing.assert_array_equal(around[1:-1], expected[: len(given)])
        assert np.isnan(around[[0, -1]]).all()


def test_a_number_of_threads_gives_the_same_bits_each_time(wide: Bundle):
    x = np.random.default_rng(0).random((5, WIDE[0]), dtype=np.float32)
    for threads in (1, 2, 3):
        with native(wide, threads=threads) as first, native(wide, threads=threads) as second:
            expected = first.reconstruct(x)
            for _ in range(5):
                np.testing.assert_array_equal(second.reconstruct(x), expected)


def test_sessions_with_threads_of_their_own_serve_many_callers_at_once(wide: Bundle):
    inputs = [np.random.default_rng(i).random((1 + i % 9, WIDE[0]), "f4") for i in range(12)]
    with native(wide, threads=2) as one, native(wide, FP16, threads=3) as other:
        alone = [(one.reconstruct(x), other.reconstruct(x)) for x in inputs]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                together = pool.map(lambda x: (one.reconstruct(x), other.reconstruct(x)), inputs)
                for expected, found in zip(alone, together, strict=True):
                    np.testing.assert_array_equal(found[0], expected[0])
                    np.testing.assert_array_equal(found[1], expected[1])


# Damage.

SHORTENED = """
import os, sys, numpy as np, tiedexport
from tiedexport.errors import BundleError
bundle = tiedexport.open_bundle(sys.argv[1])
weights = bundle.weights_path(bundle.manifest.precisions[0])
if sys.argv[2] == "before":
    os.truncate(weights, 4096)
try:
    session = tiedexport.open_session(bundle, runtime="native", precision="fp32", threads=1)
    x = np.zeros((1, 1031), np.float32)
    if sys.argv[2] == "after":
        os.truncate(weights, 4096)
    session.reconstruct(x)
except BundleError as error:
    print("refused")
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_weights_file_that_was_cut_short_is_an_error_and_no_crash(
    wide: Bundle, tmp_path: Path, when: str
):
    copied = shutil.copytree(wide.path, tmp_path / "b.tied")
    done = subprocess.run(
        [sys.executable, "-c", SHORTENED, copied, when], capture_output=True, text=True, check=True
    )
    assert done.stdout == "refused\n", done.stderr


def test_a_bundle_that_is_gone_is_an_error_of_the_bundle(wide: Bundle, tmp_path: Path):
    gone = Bundle(tmp_path / "gone.tied", wide.manifest)
    with pytest.raises(BundleError) as caught:
        native(gone)
    assert os.fspath(tmp_path / "gone.tied") in str(caught.value)


# Its row.


def test_auto_takes_it_for_dense_layers_and_what_is_faster_for_convolutions(bundles):
    for name, runtime in (("dense", "native"), ("untied", "native"), ("conv", "onnxruntime")):
        with open_session(bundles[name]) as session:
            assert (session.runtime, session.precision) == (runtime, FP32)


def test_it_stores_no_weight_again_in_either_memory_mode_and_shows_no_layers(bundle: Bundle):
    assert not NATIVE.packs
    for precision in Precision:
        assert NATIVE.hidden_copies(bundle, precision) is None
        stage = bundle.manifest.stages[0]
        x = np.zeros((1, *stage.inputs[0].element_shape), np.float32)
        assert isinstance(NATIVE.layers(bundle, precision, stage, x), str)
