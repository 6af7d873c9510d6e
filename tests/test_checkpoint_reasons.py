"""What is no checkpoint is told for what it is, and torch's advice to run it is never passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from command_line import tiedexport
from torch import nn

from tiedexport.checkpoint import load_safely
from tiedexport.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXIT_USAGE, EXIT_BAD_INPUT = 2, 4


def _module(path: Path) -> None:
    torch.save(nn.Linear(2, 3), path)


def _old_module(path: Path) -> None:
    torch.save(nn.Linear(2, 3), path, _use_new_zipfile_serialization=False)


def _script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 3), torch.rand(1, 2)), path)


GARBAGE: dict[str, bytes] = {
    "noise": np.random.default_rng(0).bytes(4000),
    "words": b"noise",
    "json": b'{"a": 1}',
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
    "empty": b"",
    "half a zip": b"PK\3\4" + bytes(50),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_not_called_unsafe(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(GARBAGE[name])
    for verb in (["build", "model.pt"], ["audit", "model.pt"]):
        done = tiedexport(*verb, cwd=tmp_path)
        assert done.returncode == EXIT_BAD_INPUT
        assert "not a checkpoint, or damaged" in done.stderr
        assert "weights_only" not in done.stderr


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("save", "held"),
    [
        (_module, "torch.nn.modules.linear.Linear"),
        (_old_module, "torch.nn.modules.linear.Linear"),
        (_script, "TorchScript archive"),
    ],
)
def test_what_would_be_run_is_named(
    save: Callable[[Path], None], held: str, tmp_path: Path
) -> None:
    save(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="refused: the file holds more") as told:
        load_safely(tmp_path / "model.pt")
    assert told.value.got == held
    assert "weights_only" not in str(told.value)


def test_an_onnx_file_is_sent_to_retie(tmp_path: Path) -> None:
    (tmp_path / "my model.onnx").write_bytes(b"graph")
    done = tiedexport("build", "my model.onnx", cwd=tmp_path)
    assert done.returncode == EXIT_USAGE
    assert "an ONNX file" in done.stderr
    assert "tiedexport retie 'my model.onnx' -o out" in done.stderr
    assert tiedexport("build", "absent.onnx", cwd=tmp_path).returncode == EXIT_BAD_INPUT
