"""The module handle: packages that are missing, broken or old, drivers, and TensorRT's messages."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import types
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import pytest
from conftest import needs_rtx

from tiedexport import trt
from tiedexport.errors import MissingRuntimeError
from tiedexport.spec import Precision

_MISSING = "{}: cannot open shared object file: No such file or directory"


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


_INSTALLED = f"pip install --force-reinstall tensorrt-rtx=={version('tensorrt-rtx')}"


@pytest.mark.parametrize(
    ("module", "words", "remedy"),
    [
        (None, "no such Python package", "pip install 'tiedexport[rtx]'"),
        (ImportError(_MISSING.format("libtensorrt_rtx.so.1")), "libtensorrt_rtx.so.1", _INSTALLED),
        (
            OSError(_MISSING.format("libcudart.so.13")),
            "libcudart.so.13",
            "pip install 'nvidia-cuda-runtime==13.*'",
        ),
        (
            FileNotFoundError(_MISSING.format("libcudart.so.12")),
            "libcudart.so.12",
            "pip install nvidia-cuda-runtime-cu12",
        ),
        (TypeError("numpy was built for another"), "numpy was", "pip install 'tiedexport[rtx]'"),
        (KeyError(), "KeyError", "pip install 'tiedexport[rtx]'"),
        (types.SimpleNamespace(), "__version__", "pip install 'tiedexport[rtx]'"),
        (
            types.SimpleNamespace(__version__="1.0.0.1"),
            "1.0.0.1",
            "pip install -U 'tensorrt-rtx>=1.7'",
        ),
        (
            types.SimpleNamespace(__version__="1.6rc1"),
            "1.6rc1",
            "pip install -U 'tensorrt-rtx>=1.7'",
        ),
    ],
)
def test_a_package_that_cannot_serve_says_what_to_install(package_is, module, words, remedy):
    package_is(module)
    with pytest.raises(MissingRuntimeError, match=words):
        trt.load("tensorrt_rtx")
    availability = trt.availability("tensorrt_rtx")
    assert not availability.available
    assert words in availability.reason
    assert availability.remedy == remedy


def test_a_library_of_a_package_without_metadata_is_installed_by_the_extra(package_is, monkeypatch):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(trt, "installed_version", absent)
    package_is(ImportError(_MISSING.format("libnvinfer.so.11")))
    assert trt.availability("tensorrt").remedy == "pip install 'tiedexport[gpu]'"


_BROKEN = {
    "tensorrt": 'raise ImportError("libnvinfer.so.11: cannot open shared object file")',
    "tensorrt_bindings": "",
}


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        (["tensorrt"], "tensorrt does not load: libnvinfer.so.11: cannot open"),
        (["tensorrt_bindings"], "tensorrt_bindings alone, without tensorrt and its libraries"),
    ],
)
def test_a_package_on_disk_without_its_libraries_names_them(tmp_path, packages, words):
    if find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed")
    for package in packages:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(_BROKEN[package])
    code = "from tiedexport import trt; print(trt.availability('tensorrt').why)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert words in done.stdout
    assert done.stdout.rstrip().endswith("pip install 'tiedexport[gpu]'")
    assert done.stderr == ""


def test_importing_the_handle_s_module_loads_no_tensorrt():
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
