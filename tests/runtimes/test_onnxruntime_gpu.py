"""The GPU rows of ONNX Runtime, recorded, not run on a GPU."""

from __future__ import annotations

import ctypes
import logging

import handmade
import numpy as np
import onnx
import onnxruntime
import pytest
from handmade import images
from recorded_onnxruntime import CUDA, TENSORRT, recorded_onnxruntime

from tiedexport.errors import MissingRuntimeError, RuntimeFailedError
from tiedexport.runtimes import onnxruntime as runner
from tiedexport.runtimes import runtime_named
from tiedexport.session import open_session
from tiedexport.spec import Precision

FP32, FP16, BF16 = Precision
ROWS = {"onnxruntime-cuda": CUDA, "onnxruntime-tensorrt": TENSORRT}
loading_error = runner._loading_error


@pytest.fixture
def recorded(monkeypatch):
    return recorded_onnxruntime(monkeypatch)


@pytest.fixture
def bundle(tmp_path):
    return handmade.bundle(tmp_path / "model.tied")


@pytest.mark.parametrize("name", ROWS)
def test_a_recorded_bound_call_reads_its_input_each_time(recorded, bundle, name):
    x, out = images(3), np.zeros((3, handmade.CODE), np.float32)
    with open_session(bundle, runtime=name, precision="fp16") as session:
        call = session.bind("encoder", x, out)
        for factor in (1, 2):
            x *= factor
            call()
            np.testing.assert_allclose(out[:, 0], x.sum(axis=(1, 2)), rtol=1e-6)
        y = np.zeros((3, handmade.CODE), np.float32)
        assert session.encode(x, y) is y
        np.testing.assert_array_equal(y, out)


@pytest.mark.parametrize("name", ROWS)
def test_no_recorded_session_may_fall_back_to_another_provider(recorded, bundle, name):
    open_session(bundle, runtime=name, precision="fp16").close()
    assert [model for model, *_ in recorded.opened] == [
        runner.RELU_MODEL,
        str(bundle.graph("encoder", FP16)),
    ]
    for _, options, (provider,), enable_fallback in recorded.opened:
        assert provider[0] == ROWS[name]
        assert enable_fallback == 0
        assert options.entries["session.disable_cpu_ep_fallback"] == "1"


def test_the_cpu_row_may_not_fall_back_either_and_keeps_its_own_provider(bundle):
    (row,) = [row for row in runner.RUNTIMES if row.name == "onnxruntime"]
    session = runner.inference_session(
        runner.RELU_MODEL, runner.session_options(runner.Options()), (row.provider, {}), "here"
    )
    assert not session._enable_fallback
    assert session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("name", "precision", "options", "sums"),
    [
        ("onnxruntime-cuda", FP16, {"use_tf32": "0"}, FP32),
        ("onnxruntime-cuda", FP32, {"use_tf32": "0"}, FP32),
        ("onnxruntime-tensorrt", FP16, {"trt_fp16_enable": "1"}, FP16),
        ("onnxruntime-tensorrt", BF16, {"trt_bf16_enable": "1"}, BF16),
        ("onnxruntime-tensorrt", FP32, {}, FP32),
    ],
)
def test_a_provider_computes_in_the_precision_of_the_graph(name, precision, options, sums):
    row = runtime_named(name)
    assert row.options[precision] == options
    assert row.accumulation[precision] is sums


@pytest.mark.parametrize(("value", "refused"), [(None, True), ("1", True), ("0", False)])
def test_tensorrt_s_fp32_is_refused_while_it_would_be_tf32(monkeypatch, bundle, value, refused):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if value is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", value)
    row = runtime_named("onnxruntime-tensorrt")
    assert ("NVIDIA_TF32_OVERRIDE=0" in (row.refusal(bundle, FP32) or "")) is refused
    assert row.refusal(bundle, FP16) is None
    assert runtime_named("onnxruntime-cuda").refusal(bundle, FP32) is None


@pytest.mark.parametrize("name", ROWS)
def test_a_recorded_provider_is_tried_once_before_its_row_claims_to_work(recorded, capsys, name):
    row = runtime_named(name)
    assert row.availability().available
    assert row.availability().available
    assert len(recorded.opened) == 1
    assert capsys.readouterr().out == ""


def test_the_model_that_it_is_tried_with_is_a_whole_one(capsys):
    model = onnx.load_from_string(runner.RELU_MODEL)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(runner.RELU_MODEL, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.array([-1.0, 2.0], np.float32)})
    np.testing.assert_array_equal(y, [0.0, 2.0])


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"failure": RuntimeError("CUDA error 35")}, "ONNX Runtime failed: CUDA error 35"),
        ({"ran_on": "CPUExecutionProvider"}, "fell back to another provider: CPUExecution"),
    ],
)
def test_a_recorded_provider_that_does_not_start_is_a_row_with_its_words(
    recorded, bundle, trouble, words
):
    vars(recorded).update(trouble)
    row = runtime_named("onnxruntime-cuda")
    availability = row.availability()
    assert not availability.available
    assert words in availability.reason
    assert availability.remedy
    with pytest.raises(MissingRuntimeError, match=words):
        row.open(bundle, FP16, runner.Options())


def test_a_missing_library_is_named_from_the_loader_s_words(monkeypatch, recorded):
    asked = []

    def load(name):
        asked.append(name)
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    recorded.failure = RuntimeError("Please install TensorRT libraries")
    monkeypatch.setattr(runner, "_loading_error", loading_error)
    monkeypatch.setattr(runner, "installed_version", lambda package: "11.0.0.5")
    monkeypatch.setattr(ctypes, "CDLL", load)
    availability = runtime_named("onnxruntime-tensorrt").availability()
    assert availability.reason == (
        "libnvinfer.so.10: cannot open shared object file (the package tensorrt is 11.0.0.5)"
    )
    assert availability.remedy == "pip install 'tensorrt==10.*'"
    assert asked == ["/nowhere/onnxruntime/capi/libonnxruntime_providers_tensorrt.so"]


def test_a_library_that_loads_leaves_the_words_to_onnx_runtime(monkeypatch, recorded):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert loading_error(CUDA) == ""


def test_auto_passes_over_a_recorded_provider_that_fails_on_the_graphs(
    recorded, bundle, monkeypatch, caplog
):
    row = runtime_named("onnxruntime-cuda")
    assert row.availability().available
    recorded.failure = RuntimeError("no kernel image")
    monkeypatch.setattr("tiedexport.session.all_runtimes", lambda: {row.name: row})
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(MissingRuntimeError, match=r"onnxruntime-cuda: .*no kernel image"),
    ):
        open_session(bundle)
    assert "onnxruntime-cuda is passed over" in caplog.text
    with pytest.raises(RuntimeFailedError, match="no kernel image"):
        open_session(bundle, runtime="onnxruntime-cuda")
