"""What a session refuses, in words that say what was wrong and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from conftest import inputs_of, session_of

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import (
    ArrayError,
    BundleError,
    MissingRuntimeError,
    RuntimeFailedError,
    TiedExportError,
    UsageError,
)
from tiedexport.runtimes import all_runtimes, choose_precision
from tiedexport.session import Session, open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

FP32, FP16, BF16 = Precision
VERBS = {"encode": "encoder", "decode": "decoder", "reconstruct": "autoencoder"}


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
    # A library that says that the file is damaged is taken at its word.
    assert isinstance(caught.value, RuntimeFailedError | BundleError)


# Opening.


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"runtime": "abacus"}, "unknown runtime"),
        ({"precision": "fp8"}, "unknown precision"),
        ({"precision": "fp32,fp16"}, "one precision"),
        ({"memory": "none"}, "unknown memory mode"),
        ({"threads": 0}, "not a useful number of threads"),
        ({"threads": 10**6}, "not a useful number of threads"),
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
    with pytest.raises(RuntimeFailedError, match="fell back") as caught:
        open_session(dense_bundle, runtime="onnxruntime")
    assert (caught.value.got, caught.value.expected) == ("OtherProvider", "CPUExecutionProvider")


def test_auto_takes_the_first_runtime_by_rank_that_can_run(dense_bundle: Bundle):
    able = [
        row.name
        for row in all_runtimes().values()
        if choose_precision(row, dense_bundle, FP32)[0] is not None
    ]
    with open_session(dense_bundle, precision="fp32") as session:
        assert session.runtime == able[0]
