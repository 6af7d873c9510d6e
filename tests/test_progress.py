"""Progress goes to one place, in the form that fits it, and not too often."""

from __future__ import annotations

import io

import pytest

from tiedexport import progress as module
from tiedexport.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, in a list that a test sets."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_comes_every_few_seconds_and_at_the_end(
    clock: list[float],
) -> None:
    stream = io.StringIO()

    with Progress(stream=stream).task("training", 100) as task:
        for second in range(12):
            clock[0] = float(second)
            task.advance(5, note=f"loss {second}")

    assert stream.getvalue().splitlines() == [
        "training: 30/100, loss 5, 12 s left",
        "training: 55/100, loss 10, 8 s left",
        "training: 60/100, loss 11, 7 s left",
    ]


def test_what_was_done_before_does_not_shorten_the_time_left(clock: list[float]) -> None:
    stream = io.StringIO()

    with Progress(stream=stream).task("training", 100, done=90) as task:
        clock[0] = 10.0
        task.advance(5)

    assert stream.getvalue().startswith("training: 95/100, 10 s left")


def test_the_last_line_comes_after_an_error_too() -> None:
    stream = io.StringIO()

    def fail() -> None:
        with Progress(stream=stream).task("work", 3) as task:
            task.advance()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert stream.getvalue().startswith("work: 1/3")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["pipe", "terminal"])
def test_quiet_writes_nothing_and_still_counts(stream: io.StringIO) -> None:
    progress = Progress(quiet=True, stream=stream)

    progress.say("a word")
    with progress.task("training", 2) as task:
        task.advance(2, note="done")

    assert (task.done, task.note) == (2, "done")
    assert stream.getvalue() == ""


def test_on_a_terminal_there_is_a_bar_with_the_figures_and_words_above_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    progress = Progress(stream=stream)

    with progress.task("training", 4) as task:
        task.advance(4, note="loss [0.5]")
        progress.say("half [way]")
    progress.say("after")

    text = stream.getvalue()
    assert "half [way]" in text
    assert "100%" in text
    assert "loss [0.5]" in text
    assert text.endswith("after\n")


def test_it_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().say("a word")

    assert capsys.readouterr() == ("", "a word\n")


def test_nothing_is_said_of_the_time_left_before_anything_is_done(clock: list[float]) -> None:
    stream = io.StringIO()

    with Progress(stream=stream).task("bench", 400) as task:
        clock[0] = 6.0
        task.advance(0, note="warming up")
        clock[0] = 12.0
        task.advance(200)

    assert stream.getvalue().splitlines()[:2] == [
        "bench: 0/400, warming up",
        "bench: 200/400, warming up, 12 s left",
    ]


def test_without_a_standard_error_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    progress = Progress()

    progress.say("a word")
    with progress.task("training", 2) as task:
        task.advance(2)

    assert task.done == 2
