"""Leaving a session: who is inside finishes, nobody else enters, and all that it held is freed."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import inputs_of, session_of
from recording_runtime import Recording, recording_runtimes

from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.session import open_session

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle
    from tiedexport.session import Session

ZEROS = np.zeros((2, 20), np.float32)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    return recording_runtimes(monkeypatch)


def test_leaving_the_with_statement_closes_whatever_happened(dense_bundle: Bundle, install):
    row = Recording()
    install(row)

    def fail_inside() -> None:
        with open_session(dense_bundle) as session:
            assert session.encode(np.zeros((2, 20), np.float32)).shape == (2, 7)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail_inside()
    assert row.closed == 1


def test_closing_lets_running_calls_finish_and_the_last_of_them_frees(dense_bundle, install):
    row, inside, go_on = Recording(), threading.Barrier(3), threading.Event()
    install(row)
    session = open_session(dense_bundle)
    results = []

    def wait_inside() -> None:
        inside.wait(10)
        assert go_on.wait(10)

    row.running = wait_inside
    threads = [
        threading.Thread(target=lambda: results.append(session.encode(ZEROS))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    inside.wait(10)
    session.close()
    assert row.closed == 0
    with pytest.raises(UsageError, match="the session is closed"):
        session.encode(ZEROS)
    assert row.closed == 0
    go_on.set()
    for thread in threads:
        thread.join()
    assert [result.shape for result in results] == [(2, 7), (2, 7)]
    assert row.closed == 1


def test_a_call_that_closes_its_own_session_still_returns_its_result(dense_bundle, install):
    row = Recording()
    install(row)
    session = open_session(dense_bundle)
    row.running = session.close
    assert session.encode(ZEROS).shape == (2, 7)
    assert row.closed == 1


def test_a_call_that_fails_has_left_the_session(dense_bundle: Bundle, install):
    def fail() -> None:
        raise RuntimeFailedError("it failed")

    row = Recording()
    install(row)
    session = open_session(dense_bundle)
    row.running = fail
    with pytest.raises(RuntimeFailedError):
        session.encode(ZEROS)
    session.close()
    assert row.closed == 1


def test_a_bound_call_that_is_kept_keeps_nothing_of_a_closed_session(dense_bundle, install):
    row = Recording()
    install(row)
    session = open_session(dense_bundle)
    x = ZEROS.copy()
    call = session.bind("encoder", x, np.empty((2, 7), np.float32))
    call()
    array = weakref.ref(x)
    session.close()
    del x
    gc.collect()
    assert array() is None
    with pytest.raises(UsageError, match="the session is closed"):
        call()


@pytest.mark.parametrize("verb", ["run", "bind"])
def test_calls_that_race_with_close_succeed_or_say_that_it_is_closed(
    dense_bundle: Bundle, runtime: str, verb: str
):
    for _ in range(5):
        session = session_of(dense_bundle, runtime)
        x, started = inputs_of(session, "encoder", 2), threading.Event()
        expected = session.encode(x)
        with ThreadPoolExecutor(2) as pool:
            arguments = session, verb, x, expected, started
            racing = [pool.submit(_call_until_refused, *arguments) for _ in range(2)]
            assert started.wait(30)
            session.close()
            assert {future.result(30) for future in racing} == {"the session is closed"}


def _call_until_refused(
    session: Session, verb: str, x: np.ndarray, expected: np.ndarray, started: threading.Event
) -> str:
    out = np.empty_like(expected)
    try:
        call = session.bind("encoder", x, out) if verb == "bind" else None
        while True:
            out[...] = np.nan
            call() if call else session.encode(x, out)
            np.testing.assert_array_equal(out, expected)
            started.set()
    except UsageError as error:
        return error.what
