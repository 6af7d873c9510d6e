"""The command line in this process."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tiedexport.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Done:
    """What a call of the command line left behind."""

    returncode: int
    stdout: str
    stderr: str


def tiedexport(*arguments: object, cwd: Path) -> Done:
    """The command line in this process, with output that is no terminal, 80 columns wide."""
    words = [str(argument) for argument in arguments]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["tiedexport", *words])
        patch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as stop:
            main()
    code = stop.value.code
    assert isinstance(code, int)
    return Done(code, *(_text(stream) for stream in (out, err)))


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()
