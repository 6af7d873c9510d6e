"""Wrong input on the command line: an exit code and words, never a traceback."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command_line import tiedexport

if TYPE_CHECKING:
    from pathlib import Path

EXIT_CHECK_FAILED, EXIT_USAGE, EXIT_MISSING, EXIT_BAD_INPUT, EXIT_INTERNAL = 1, 2, 3, 4, 5
EXIT_INTERRUPTED = 130


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_a_pickle_that_would_execute_something_exits_4_and_executes_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"state": _Malicious()}))
    done = tiedexport("build", "model.pt", cwd=tmp_path)
    assert done.returncode == EXIT_BAD_INPUT
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["build", "absent.pt"], EXIT_BAD_INPUT, "absent.pt"),
        (["verify", "absent.tied"], EXIT_BAD_INPUT, "absent.tied"),
        (["train", "absent.toml"], EXIT_BAD_INPUT, "absent.toml"),
        (["frobnicate"], EXIT_USAGE, "frobnicate"),
        (["build", "m.pt", "--opset", "5"], EXIT_USAGE, "18<=x<=23"),
        (["build", "m.pt", "--target", "none", "--target", "rtx"], EXIT_USAGE, "none"),
        (["bench", "x.tied", "--batch", "1,two"], EXIT_USAGE, "two"),
        (["run", "x.tied", "dream", "x.npy", "-o", "y.npy"], EXIT_USAGE, "dream"),
    ],
)
def test_wrong_input_names_itself_and_has_its_exit_code(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    done = tiedexport(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "model.pt", "--precision", "fp33"],
        ["build", "model.pt", "--precision", ""],
        ["bench", "model.tied", "--stage", "attic"],
        ["build", "model.pt", "--target", "abacus"],
        ["verify", "model.tied", "--runtime", "abacus"],
        ["run", "model.tied", "encode", "x.npy", "-o", "y.npy", "--runtime", "abacus"],
    ],
)
def test_names_that_do_not_exist_exit_2(arguments: list[str], folder: Path) -> None:
    np.save(folder / "x.npy", np.zeros((1, 48), np.float32))
    done = tiedexport(*arguments, cwd=folder)
    assert done.returncode == EXIT_USAGE, done.stderr
    assert "expected" in done.stderr


def test_a_fault_of_ours_exits_5_and_says_how_to_report_it(tmp_path: Path) -> None:
    script = (
        "import tiedexport.doctor, tiedexport.__main__\n"
        "def fail(): raise KeyError('planted')\n"
        "tiedexport.doctor.doctor = fail\n"
        "tiedexport.__main__.main(['doctor'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == EXIT_INTERNAL
    assert "planted" in done.stderr
    assert "report" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["train", "r.toml"], ["build", "m.pt"], ["demo"]], ids=str)
def test_a_target_without_torch_learns_what_to_install_for_authoring(
    arguments: list[str], tmp_path: Path
) -> None:
    script = (
        f"import sys; sys.modules['torch'] = None\n"
        f"import tiedexport.__main__; tiedexport.__main__.main({arguments!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == EXIT_MISSING, done.stderr
    assert "torch" in done.stderr
    assert "pip install 'tiedexport[train]'" in done.stderr
    assert "Traceback" not in done.stderr
