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


def test_a_processor_s_name_becomes_a_name_of_files():
    assert environment.cpu_slug("Intel(R) Xeon(R) CPU @ 2.20GHz") == "intel-r-xeon-r-cpu-2-20ghz"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a module and results in it that are not tracked yet, and git there."""

    def git(*arguments):
        identity = ("-c", "user.name=A", "-c", "user.email=a@b")
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    git("init")
    (tmp_path / "module.py").touch()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "old.json").touch()
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "module.py"))
    return git


def test_the_commit_is_that_of_the_checkout_and_tells_of_changes(checkout, tmp_path):
    assert environment.commit() == ""  # a module that is not tracked, as of an installed package
    checkout("add", ".")
    checkout("commit", "-m", "first")
    clean = environment.commit()
    assert len(clean) >= 7
    assert "dirty" not in clean
    (tmp_path / "results" / "new.json").touch()
    assert environment.commit(tmp_path / "results") == clean
    assert environment.commit() == environment.commit(tmp_path.parent) == f"{clean}-dirty"
    (tmp_path / "module.py").write_text("changed")
    assert environment.commit(tmp_path / "results") == f"{clean}-dirty"


def test_there_is_no_commit_without_git_or_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "module.py"))
    assert environment.commit() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit() == ""
