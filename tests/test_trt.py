"""The module handle: packages that are missing, broken or old, drivers, and TensorRT's messages."""

from __future__ import annotations

import ctypes
import logging
import threading
import types

import pytest
from conftest import needs_rtx

from tiedexport import trt
from tiedexport.errors import MissingRuntimeError
from tiedexport.spec import Precision


class Libcuda:
    """A driver library with one device, as far as ctypes callers can see."""

    def __init__(self, init=0, devices=1, capability=(8, 9)) -> None:
        self.init, self.devices, self.capability = init, devices, capability
        self.calls: list[str] = []

    def cuInit(self, flags):  # noqa: N802
        self.calls.append("cuInit")
        return self.init

    def cuGetErrorString(self, code, words):  # noqa: N802
        words._obj.value = b"no CUDA-capable device is detected"
        return 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        self.calls.append("cuDeviceGetCount")
        count._obj.value = self.devices
        return 0

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = 13020
        return 0

    def cuDeviceGet(self, device, ordinal):  # noqa: N802
        device._obj.value = ordinal
        return 0

    def cuDeviceGetName(self, name, size, device):  # noqa: N802
        name.value = b"NVIDIA Test"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = self.capability[{75: 0, 76: 1}[attribute]]
        return 0


@pytest.fixture
def driver_is(monkeypatch):
    """Put a driver library, or the error of loading it, in the place of libcuda.so.1."""

    def put(library):
        def load(name):
            assert name == "libcuda.so.1"
            if isinstance(library, OSError):
                raise library
            return library

        monkeypatch.setattr(ctypes, "CDLL", load)
        monkeypatch.setattr(trt, "_probe", trt.once(trt._probe.__wrapped__))

    return put


@pytest.fixture
def package_is(monkeypatch):
    """Put a module, or the error of importing it, in the place of a TensorRT package."""

    def put(module):
        def load(name):
            if isinstance(module, Exception):
                raise module
            return module

        monkeypatch.setattr(trt, "find_spec", lambda name: module)
        monkeypatch.setattr(trt.importlib, "import_module", load)
        # A cache of its own: TensorRT never lets go of the logger in the real one.
        monkeypatch.setattr(trt, "load", trt.once(trt.load.__wrapped__))

    return put


def test_a_driver_with_a_device_is_available_with_its_version(driver_is):
    driver_is(Libcuda(capability=(12, 0)))
    assert trt.driver().available
    assert trt.driver().version == "CUDA 13.2"
    assert trt.device() == trt.Device("NVIDIA Test", 120)


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (OSError("libcuda.so.1: cannot open shared object file"), "cannot open shared object"),
        (Libcuda(init=100), "error 100: no CUDA-capable device is detected"),
        (Libcuda(devices=0), "shows no device"),
    ],
)
def test_without_a_working_driver_there_is_a_reason_and_no_device(driver_is, library, reason):
    driver_is(library)
    assert not trt.driver().available
    assert reason in trt.driver().reason
    assert "driver" in trt.driver().remedy
    assert trt.device() is None


def test_the_driver_is_asked_once(driver_is):
    library = Libcuda()
    driver_is(library)
    trt.driver(), trt.device(), trt.driver()
    assert library.calls == ["cuInit", "cuDeviceGetCount"]


@pytest.mark.parametrize(
    ("module", "words", "remedy"),
    [
        (None, "no such Python package", "tiedexport[rtx]"),
        (ImportError("libtensorrt_rtx.so.1 is missing"), "libtensorrt_rtx.so.1", "tiedexport[rtx]"),
        (OSError("libcudart.so.13 is missing"), "libcudart.so.13", "tiedexport[rtx]"),
        (types.SimpleNamespace(__version__="1.0.0.1"), "1.0.0.1", "tensorrt-rtx>=1.7"),
    ],
)
def test_a_package_that_cannot_serve_says_what_to_install(package_is, module, words, remedy):
    package_is(module)
    with pytest.raises(MissingRuntimeError, match=words):
        trt.load("tensorrt_rtx")
    availability = trt.availability("tensorrt_rtx")
    assert not availability.available
    assert words in availability.reason
    assert remedy in availability.remedy


def test_importing_the_handle_s_module_loads_no_tensorrt():
    import subprocess
    import sys

    code = (
        "import sys; import tiedexport.trt, tiedexport.engines, tiedexport.runtimes.tensorrt, "
        "tiedexport.engines.tensorrt; print([m for m in sys.modules if m.split('.')[0] in "
        "('tensorrt', 'tensorrt_rtx', 'cuda', 'onnx', 'torch')])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_threads_that_ask_at_once_get_one_value_made_once():
    made, start = [], threading.Barrier(4)
    slow = threading.Event()

    @trt.once
    def make(name: str) -> object:
        made.append(name)
        slow.wait(0.05)  # long enough for the others to ask meanwhile
        return object()

    found = []

    def ask() -> None:
        start.wait()
        found.append(make("tensorrt"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["tensorrt"]
    assert len({id(value) for value in found}) == 1
    assert make("tensorrt_rtx") is not found[0]


@needs_rtx
def test_a_package_is_loaded_once_with_one_logger():
    assert trt.load("tensorrt_rtx") is trt.load("tensorrt_rtx")
    assert trt.load("tensorrt_rtx").version.startswith("1.")


@needs_rtx
@pytest.mark.parametrize(
    ("severity", "level"),
    [("VERBOSE", 1), ("INFO", logging.DEBUG), ("WARNING", logging.WARNING)],
)
def test_messages_become_python_log_records(caplog, severity, level):
    handle = trt.load("tensorrt_rtx")
    with caplog.at_level(1, logger="tiedexport.tensorrt_rtx"):
        handle.logger.log(getattr(handle.module.ILogger.Severity, severity), "a message")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(level, "a message")]


@needs_rtx
def test_errors_are_kept_for_the_exception_that_follows():
    handle = trt.load("tensorrt_rtx")
    severity = handle.module.ILogger.Severity
    with handle.errors() as outer, handle.errors() as inner:
        handle.logger.log(severity.ERROR, "first\n")
        handle.logger.log(severity.WARNING, "not an error")
    handle.logger.log(severity.ERROR, "too late")
    assert outer == inner == ["first"]


@needs_rtx
def test_real_messages_of_the_library_reach_the_handle():
    handle = trt.load("tensorrt_rtx")
    builder = handle.module.Builder(handle.logger)
    network = builder.create_network(0)
    with handle.errors() as errors:
        assert not handle.module.OnnxParser(network, handle.logger).parse(b"no graph")
    assert errors


@needs_rtx
def test_data_types_map_to_precisions_and_others_are_refused():
    handle = trt.load("tensorrt_rtx")
    types_ = handle.module.DataType
    found = [handle.precision(dtype) for dtype in (types_.FLOAT, types_.HALF, types_.BF16)]
    assert found == [Precision.FP32, Precision.FP16, Precision.BF16]
    with pytest.raises(RuntimeError, match="INT32"):
        handle.precision(types_.INT32)


@needs_rtx
def test_compute_capabilities_are_those_of_the_package_ascending():
    numbers = trt.load("tensorrt_rtx").compute_capabilities
    assert {75, 80, 86, 89, 120} <= set(numbers)
    assert list(numbers) == sorted(numbers)
