"""The pages of the documentation, and what each of their code blocks does when it runs.

A block with a caption is a file, written into the page's folder under that name. Of the others,
`python` runs in one namespace a page; `sh` holds a command a line; `console` a command behind each
`$`, and what it prints, where `...` stands for anything. Every command has to succeed, unless
`echo $?` shows how it did not. A comment `% skip: next "reason"` leaves out the block after it.
"""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import SkipTest

import pytest
from command_line import Done, tiedexport
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.myst import CodeBlockParser, SkipParser

import tiedexport as package
from tiedexport import trt
from tiedexport.runtimes import runtime_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sybil import Example

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
LANGUAGES = ("python", "toml", "c", "cpp", "cmake", "sh", "console")
SHELLS = ("sh", "console")

_COMMAND = re.compile(r"^\$ (.*(?:\\\n.*)*)\n?((?:(?!\$ ).*\n?)*)", re.MULTILINE)
_NEEDS_A_SHELL = re.compile(r"[|<>&;$`*]")
_PROGRESS = re.compile(r"^\w+: \d+/\d+, .*\n", re.MULTILINE)
_run_python = PythonEvaluator()


def evaluate(example: Example) -> None:
    """Do with a block what its language and caption say; the current folder is the page's."""
    lexemes = example.region.lexemes
    caption = lexemes.get("options", {}).get("caption")
    language = lexemes["arguments"]
    if caption:
        Path(caption).write_text(example.parsed)
    elif language == "python":
        _run_python(example)
    elif language in SHELLS:
        _run_commands(example.parsed, language)
    else:
        raise AssertionError(f"a block of {language} needs a caption: the file that it is")


def _run_commands(text: str, language: str) -> None:
    code = 0
    commands = list(_commands(text, language))
    for i, (command, expected) in enumerate(commands):
        done = Done(0, f"{code}\n", "") if command == "echo $?" else _call(command)
        code = done.returncode
        examined = commands[i + 1 : i + 2] and commands[i + 1][0] == "echo $?"
        assert code == 0 or examined, f"{command}\nexits with {code}:\n{done.stdout}{done.stderr}"
        if expected:
            _compare(command, expected, done)


def _commands(text: str, language: str) -> Iterator[tuple[str, str]]:
    """Each command with what it is to print."""
    if language == "sh":
        lines = text.replace("\\\n", " ").splitlines()
        yield from ((line, "") for line in lines if line and not line.startswith("#"))
        return
    assert text.startswith("$ "), "a console block begins with a command"
    for command, expected in _COMMAND.findall(text):
        yield command.replace("\\\n", " "), expected


def _call(command: str) -> Done:
    """Run a command, those of tiedexport in this process, which has loaded its libraries."""
    if command.startswith("tiedexport ") and not _NEEDS_A_SHELL.search(command):
        return tiedexport(*shlex.split(command, comments=True)[1:], cwd=Path.cwd())
    done = subprocess.run(
        ["bash", "-euc", command], capture_output=True, text=True, check=False, env=_environment()
    )
    return Done(done.returncode, done.stdout, done.stderr)


def _environment() -> dict[str, str]:
    """That of a reader who has activated the environment and installed the C++ library."""
    library = os.pathsep.join(f"{folder}/lib" for folder in package.__path__)
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CPATH": str(ROOT / "tiedexport" / "cpp" / "include"),
        "LIBRARY_PATH": library,
        "LD_LIBRARY_PATH": library,
    }


def _compare(command: str, expected: str, done: Done) -> None:
    """What is expected may leave out what a terminal shows beside results."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    shown = _PROGRESS.sub("", done.stderr) + done.stdout
    assert any(
        doctest.OutputChecker().check_output(expected, text, flags) for text in (done.stdout, shown)
    ), f"{command}\nshould print:\n{expected}\nand prints:\n{shown}"


class Page:
    """A page whose blocks run one after the other in a folder of its own."""

    def __init__(self, path: Path, folder: Path) -> None:
        document = _SYBIL.parse(path)
        document.namespace.update(
            __name__="page",
            without_native=runtime_named("native").availability().why,
            without_rtx=trt.availability("tensorrt_rtx").reason,
        )
        self.folder = folder
        self._left = list(document.examples())
        self._failed = ""

    def run(self, line: int | None = None) -> None:
        """Run the blocks up to the one at a line, or all that are left.

        Raises:
            SkipTest: the page says that this block does not run, and why.
        """
        if self._failed:
            pytest.fail(self._failed, pytrace=False)
        with contextlib.chdir(self.folder), pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(self.folder)
            while self._left and (line is None or self._left[0].line <= line):
                example = self._left.pop(0)
                try:
                    example.evaluate()
                except SkipTest:
                    if example.line == line:
                        raise
                except BaseException:
                    self._failed = f"the block before it failed: {example.path}:{example.line}"
                    raise


def blocks() -> Iterator[tuple[Path, int, str]]:
    """Page, line and language of each block, those of the tutorial first."""
    for path in sorted(DOCS.rglob("*.md"), key=lambda path: (path != TUTORIAL, path)):
        for example in _SYBIL.parse(path).examples():
            if example.region.lexemes:
                yield path, example.line, example.region.lexemes["arguments"]


_SYBIL = Sybil(parsers=[SkipParser(), *(CodeBlockParser(name, evaluate) for name in LANGUAGES)])
