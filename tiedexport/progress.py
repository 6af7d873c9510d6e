"""How far a long task is: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BAR_INTERVAL_S = 0.1
LINE_INTERVAL_S = 5.0


class Task:
    """One task of a `Progress`: count what is done, and show it when it is time to.

    `total` may grow while it becomes known how much there is to do.
    """

    def __init__(
        self, total: int, show: Callable[[float, str], None], interval_s: float, done: float = 0
    ) -> None:
        self.total = total
        self.done = done
        self.note = ""
        self._show = show
        self._interval_s = interval_s
        self._shown_at_s = time.monotonic()

    def advance(self, n: float = 1, *, note: str | None = None) -> None:
        """Count `n` more as done; cheap enough for every step of a training.

        Args:
            n: how many.
            note: figures that stand behind the bar from now on; None leaves them.
        """
        self.reach(self.done + n, note=note)

    def reach(self, done: float, *, note: str | None = None) -> None:
        """Say how much is done by now, part of a step included; `note` as for `advance`."""
        self.done = done
        if note is not None:
            self.note = note
        now_s = time.monotonic()
        if now_s - self._shown_at_s >= self._interval_s:
            self._shown_at_s = now_s
            self._show(self.done, self.note)


class Progress:
    """The one place that writes progress; it goes to standard error, results do not.

    Args:
        quiet: write nothing, as where there is no standard error.
        stream: where to write instead of standard error.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        # A process that was started with standard error closed has none.
        self.quiet = quiet or (stream or sys.stderr) is None
        self._stream = stream
        self._say: Callable[[str], object] = self._write

    def say(self, line: str) -> None:
        """Write one line, above the bar if there is one."""
        if not self.quiet:
            self._say(line)

    @contextmanager
    def task(self, description: str, total: int, *, done: int = 0) -> Iterator[Task]:
        """Show a task while the block runs.

        Args:
            description: two or three words.
            total: how many steps there are.
            done: how many were done before, for work that is resumed.
        """
        if self.quiet:
            yield Task(total, lambda _done, _note: None, float("inf"), done)
        elif self._file.isatty():
            with self._bar(description, total, done) as task:
                yield task
        else:
            with self._lines(description, total, done) as task:
                yield task

    @property
    def _file(self) -> TextIO:
        return self._stream if self._stream is not None else sys.stderr

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()

    @contextmanager
    def _lines(self, description: str, total: int, done: int) -> Iterator[Task]:
        started_s = time.monotonic()

        def show(now_done: float, note: str) -> None:
            elapsed_s = time.monotonic() - started_s
            left = f"{elapsed_s:.1f} s" if now_done >= task.total else ""
            if done < now_done < task.total:
                left_s = elapsed_s * (task.total - now_done) / (now_done - done)
                left = f"{left_s:.0f} s left"
            parts = (f"{description}: {int(now_done)}/{task.total}", note, left)
            self._write(", ".join(part for part in parts if part))

        task = Task(total, show, LINE_INTERVAL_S, done)
        try:
            yield task
        finally:
            show(task.done, task.note)

    @contextmanager
    def _bar(self, description: str, total: int, done: int) -> Iterator[Task]:
        from rich import progress
        from rich.console import Console

        bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=Console(file=self._file),
            redirect_stdout=False,
        )
        with bar:
            shown = bar.add_task(description, total=total, completed=done, note="")

            def show(now_done: float, note: str) -> None:
                bar.update(shown, completed=now_done, total=task.total, note=note)

            task = Task(total, show, BAR_INTERVAL_S, done)
            self._say = lambda line: bar.console.print(line, markup=False, highlight=False)
            try:
                yield task
            finally:
                self._say = self._write
                show(task.done, task.note)
