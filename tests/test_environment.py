"""The environment of a result names the machine without importing anything heavy."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from tiedexport import environment


def test_current_tells_this_interpreter_machine_and_installed_versions():
    found = environment.current()
    assert found.python == platform.python_version()
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.packages["numpy"] == np.__version__
    assert found.cpu


def test_packages_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "surely-not-installed-here"))
    assert list(environment.current().packages) == ["numpy"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: AMD   EPYC 9V74\nmodel name\t: other\n", "AMD EPYC 9V74"),
        ("Hardware\t: BCM2835\n", "BCM2835"),
        ("processor\t: 0\nmodel name\t:\n", platform.machine()),
        (None, platform.machine()),
    ],
)
def test_the_processor_is_named_as_the_kernel_does_or_by_its_architecture(tmp_path, text, expected):
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text(text)
    assert environment.cpu_model(cpuinfo) == expected


def test_versions_are_read_without_importing_the_packages():
    code = (
        "import sys; from tiedexport import environment; environment.current();"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "onnx" not in done.stdout
