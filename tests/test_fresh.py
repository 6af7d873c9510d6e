"""A fresh process answers what it is asked, and its death is an error with its last words."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest

from tiedexport import fresh
from tiedexport.errors import RuntimeFailedError

ECHO = """
import json, os, sys
question = json.load(sys.stdin)
with open(sys.argv[1], "w") as file:
    json.dump([question, os.getpid(), os.environ.get("FLAG")], file)
"""


def test_the_answer_comes_from_a_process_of_its_own_that_has_ended():
    watched = []

    @contextmanager
    def watching(pid):
        watched.append(pid)
        yield

    question, pid, flag = fresh.ask(
        ("-c", ECHO), {"a": [1, 2]}, list, environment={"FLAG": "up"}, watching=watching
    )
    assert (question, flag) == ({"a": [1, 2]}, "up")
    assert watched == [pid]
    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_death_is_an_error_with_the_exit_code_and_the_last_words():
    code = "import sys; print('first\\nlast', file=sys.stderr); sys.exit(7)"
    with pytest.raises(RuntimeFailedError, match="exit code 7; last"):
        fresh.ask(("-c", code), None, list)


def test_a_process_that_takes_too_long_is_killed(tmp_path):
    code = f"import time; time.sleep(2); open({str(tmp_path / 'lived')!r}, 'w')"
    with pytest.raises(RuntimeFailedError, match=r"more than 0\.2 s"):
        fresh.ask(("-c", code), None, list, time_limit_s=0.2)
    assert not (tmp_path / "lived").exists()
