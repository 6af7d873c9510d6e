"""The CUDA driver: missing, broken, hidden, too old. Real libraries that a compiler made of lies.

Each of them is asked in the place of libcuda.so.1; before the real packages, in processes of their
own, which end with an exit code of ours and by no signal, whatever the driver answers.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import handmade
import numpy as np
import pytest
from conftest import needs_rtx

from tiedexport import trt
from tiedexport.errors import EXIT_DONE, EXIT_MISSING
from tiedexport.results import Availability
from tiedexport.trt import cuda

sys.path.append(str(Path(__file__).parent / "runtimes"))
from recorded_machine import bundle_with_plans

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
no_gpu = pytest.mark.skipif(trt.driver().available, reason="there is a GPU: its driver is found")

_DRIVER = """
int cuInit(unsigned flags) {{ return {init}; }}
int cuGetErrorString(int code, const char **words) {{ *words = "said the driver"; return 0; }}
int cuDeviceGetCount(int *count) {{ *count = {devices}; return {count_code}; }}
int cuDriverGetVersion(int *version) {{ *version = {cuda}; return {version_code}; }}
int cuDeviceGet(int *device, int ordinal) {{ *device = ordinal; return 0; }}
int cuDeviceGetName(char *name, int size, int device) {{
  const char *told = "NVIDIA Test";
  for (int i = 0; i < size && (name[i] = told[i]); i++) {{ }}
  return 0;
}}
int cuDeviceGetAttribute(int *value, int attribute, int device) {{
  *value = attribute == 75 ? {capability} / 10 : attribute == 76 ? {capability} % 10 : 0;
  return {attribute_code};
}}
"""
_ANSWERS = {
    "init": 0,
    "devices": 1,
    "count_code": 0,
    "cuda": 13020,
    "version_code": 0,
    "capability": 89,
    "attribute_code": 0,
}


class Drivers:
    """Compiles drivers, each once, and runs Python beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def made(self, source: str) -> Path:
        place = self.folder / f"{hash(source):x}"
        if not place.exists():
            place.mkdir()
            command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", place / "libcuda.so.1"]
            subprocess.run(command, input=source, text=True, check=True)
        return place

    def run(self, source: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.made(source)), "COLUMNS": "200"}
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    return Drivers(tmp_path_factory.mktemp("drivers"))


@pytest.fixture
def driver_is(drivers, monkeypatch):
    """Put a driver in the place of this machine's, in this process."""

    def put(source: str) -> None:
        monkeypatch.setattr(cuda, "_LIBCUDA", str(drivers.made(source) / "libcuda.so.1"))
        monkeypatch.setattr(cuda, "_probe", trt.once(cuda._probe.__wrapped__))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return put


def answering(**answers: int) -> str:
    return _DRIVER.format(**(_ANSWERS | answers))


@needs_compiler
def test_a_driver_with_a_device_is_available_with_its_version(driver_is):
    driver_is(answering(capability=120))
    assert trt.driver() == Availability(True, "CUDA 13.2")
    assert trt.device() == trt.Device("NVIDIA Test", 120)


@needs_compiler
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (answering(init=34), "error 34: said the driver); take the CUDA toolkit's stubs out of"),
        (answering(init=35), "error 35: said the driver); update the NVIDIA driver"),
        (answering(init=100), "error 100: said the driver); nvidia-smi must list a GPU"),
        (answering(init=803), "error 803: said the driver); reboot"),
        (answering(init=999), "error 999: said the driver); nvidia-modprobe"),
        (answering(init=4321), "error 4321: said the driver); nvidia-smi must work"),
        (answering(devices=0), "shows no device; nvidia-smi must list a GPU"),
        (answering(count_code=3), "does not count devices (error 3: said the driver)"),
        (answering(version_code=1), "does not tell its version (error 1: said the driver)"),
        (answering(attribute_code=101), "does not show its device (error 101: said the driver)"),
        ("int no_driver_at_all;", "is no CUDA driver, or a broken one"),
        (answering().replace("cuDeviceGetCount", "cuCount"), "undefined symbol: cuDeviceGetCount"),
        (answering(init=7).replace("cuGetErrorString", "cuWords"), "symbol: cuGetErrorString"),
    ],
)
def test_a_driver_that_does_not_serve_says_why_and_what_to_do(driver_is, source, words):
    driver_is(source)
    assert not trt.driver().available
    assert words in trt.driver().why
    assert trt.device() is None
    assert trt.driver_for("tensorrt_rtx") == trt.driver()


@pytest.mark.parametrize("content", [None, b"", b"not a library", b"\x7fELF"])
def test_a_file_that_is_no_library_is_no_driver(tmp_path, monkeypatch, content):
    library = tmp_path / "libcuda.so.1"
    if content is not None:
        library.write_bytes(content)
    monkeypatch.setattr(cuda, "_LIBCUDA", str(library))
    found = cuda._probe.__wrapped__()
    assert found.device is None
    assert found.driver.reason.startswith(f"no CUDA driver ({library}: ")
    assert found.driver.remedy.startswith("install the NVIDIA display driver")


@needs_compiler
@pytest.mark.parametrize("answers", [{"init": 100}, {"devices": 0}])
def test_devices_hidden_by_a_variable_are_told_with_it(driver_is, monkeypatch, answers):
    driver_is(answering(**answers))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "with CUDA_VISIBLE_DEVICES=''; unset CUDA_VISIBLE_DEVICES" in trt.driver().why


@needs_compiler
@needs_rtx
@pytest.mark.parametrize(("number", "available"), [(12080, False), (13000, True), (14010, True)])
def test_a_driver_older_than_the_package_s_cuda_is_refused(driver_is, number, available):
    driver_is(answering(cuda=number))
    found = trt.driver_for("tensorrt_rtx")
    assert found.available == available
    assert trt.driver().available
    if not available:
        assert "up to CUDA 12.8, and tensorrt-rtx here was built with CUDA 13" in found.reason
        assert found.remedy == "update the NVIDIA driver to 580 or newer"


@pytest.mark.parametrize(
    ("installed", "major"),
    [
        ({"tensorrt": ["tensorrt_cu13==11.4.0.106"]}, 13),
        ({"tensorrt": ["tensorrt-cu12==10.14.1"], "tensorrt-cu12": []}, 12),
        ({"tensorrt-cu12": []}, 12),
        ({"tensorrt": ["numpy"]}, None),
        ({"tensorrt": ["tensorrt_cu14==12.0"]}, 14),
        ({}, None),
    ],
)
def test_a_package_s_cuda_is_read_from_its_wheels(monkeypatch, installed, major):
    def requires(name: str) -> list[str]:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(cuda, "requires", requires)
    monkeypatch.setattr(cuda, "version", requires)
    assert cuda._cuda_major("tensorrt") == major


def test_a_cuda_that_is_not_known_yet_is_asked_for_by_name(monkeypatch):
    found = cuda._Found(Availability(True, "CUDA 13.2"), trt.Device("NVIDIA Test", 89), 13020)
    monkeypatch.setattr(cuda, "_probe", lambda: found)
    monkeypatch.setattr(cuda, "_cuda_major", lambda package: 15)
    assert cuda.driver_for("tensorrt").remedy == "update the NVIDIA driver to one for CUDA 15"


def test_the_driver_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(cuda, "_probe", trt.once(cuda._probe.__wrapped__))
    monkeypatch.setattr(cuda, "_asked", lambda library: asked.append(library) or cuda._Found(None))
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda name: name)
    trt.driver(), trt.device(), trt.driver()
    assert asked == ["libcuda.so.1"]


# Whole commands, with the real TensorRT-RTX.

_NO_START = "the CUDA driver does not start (error {}: said the driver)"
_LYING = answering()
"""Says that all is well, and then has none of the functions that do anything."""


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Bundles with plans of the TensorRT-RTX here, of each kind, and an input."""
    folder = tmp_path_factory.mktemp("planned")
    for weights in ("shared", "baked", "one-plan"):
        bundle_with_plans(
            folder / f"{weights}.tied",
            weights=weights,
            package_version=trt.load("tensorrt_rtx").version,
            compute_capabilities=(89,),
        )
    np.save(folder / "x.npy", np.zeros((2, handmade.SIDE, handmade.SIDE), np.float32))
    return folder


with_plans = pytest.mark.skipif(
    None in (find_spec("cuda"), shutil.which("cc")) or trt.driver().available,
    reason="takes cuda-core and a C compiler, and no GPU",
)


@with_plans
@needs_rtx
@pytest.mark.parametrize(
    ("weights", "source", "words"),
    [
        *(("shared", answering(init=c), _NO_START.format(c)) for c in (35, 100, 803, 999)),
        ("baked", answering(devices=0), "the CUDA driver shows no device"),
        ("baked", answering(cuda=12080), "tensorrt-rtx here was built with CUDA 13"),
        ("one-plan", answering(capability=120), "plans are for sm89, NVIDIA Test is sm120"),
        ("baked", "int no_driver_at_all;", "libcuda.so.1 is no CUDA driver"),
        *((weights, _LYING, "tensorrt_rtx 1.") for weights in ("shared", "baked", "one-plan")),
    ],
)
def test_running_a_plan_without_a_working_driver_ends_with_our_exit_code(
    drivers, planned, weights, source, words
):
    done = drivers.run(
        source,
        *("-m", "tiedexport", "run", planned / f"{weights}.tied", "reconstruct"),
        *(planned / "x.npy", "-o", planned / "y.npy", "--runtime", "tensorrt_rtx"),
    )
    assert done.returncode == EXIT_MISSING, done.stderr
    assert words in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (planned / "y.npy").exists()


@no_gpu
@needs_rtx
def test_running_a_plan_on_this_machine_without_a_gpu_ends_with_our_exit_code(planned):
    command = ["-m", "tiedexport", "run", planned / "baked.tied", "reconstruct"]
    command += [planned / "x.npy", "-o", planned / "y.npy", "--runtime", "tensorrt_rtx"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == EXIT_MISSING, done.stderr
    assert "cannot run" in done.stderr
    assert "Traceback" not in done.stderr


@with_plans
@needs_rtx
def test_doctor_survives_a_driver_that_lies_and_names_its_device(drivers):
    done = drivers.run(_LYING, "-m", "tiedexport", "doctor")
    assert done.returncode == EXIT_DONE, done.stderr
    assert done.stderr == ""
    assert "CUDA 13.2, NVIDIA Test (sm89)" in done.stdout
