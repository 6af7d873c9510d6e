"""A question to a fresh Python process, which has no memory, threads or libraries of this one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tiedexport.errors import RuntimeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

T = TypeVar("T")

TIME_LIMIT_S = 300.0


def ask(
    program: Sequence[str],
    question: object,
    answer: type[T],
    *,
    environment: Mapping[str, str] | None = None,
    time_limit_s: float = TIME_LIMIT_S,
    watching: Callable[[int], AbstractContextManager[Any]] = nullcontext,
) -> T:
    """Start Python, hand it the question as JSON on standard input, and read its answer.

    Args:
        program: what follows `python`, such as ("-m", "package.module"); its last argument is then
            the file that takes the answer, as JSON.
        question: whatever msgspec encodes.
        answer: the type of the answer.
        environment: variables besides those of this process.
        time_limit_s: the process is killed after so many seconds.
        watching: process id → a context that lasts as long as the process.

    Raises:
        RuntimeFailedError: the process died or took too long; its last words are in the error.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "answer")
        command = [sys.executable, "-P", *program, str(path)]
        modules = os.pathsep.join(entry or os.curdir for entry in sys.path)
        variables = {**os.environ, **(environment or {}), "PYTHONPATH": modules}
        with subprocess.Popen(
            command,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                with watching(process.pid):
                    _, said = process.communicate(msgspec.json.encode(question), time_limit_s)
            except subprocess.TimeoutExpired:
                raise RuntimeFailedError(f"it took more than {time_limit_s:g} s") from None
            finally:
                process.kill()
        if process.returncode == 0:
            return msgspec.json.decode(path.read_bytes(), type=answer)
    words = said.decode(errors="replace").strip().splitlines()[-1:]
    why = "; ".join([f"its process died, exit code {process.returncode}", *words])
    raise RuntimeFailedError(why)
