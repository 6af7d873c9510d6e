"""A runtime that writes down what it is asked, for tests of what a session adds to it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from tiedexport import session
from tiedexport.results import Availability
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Options

FP32, FP16, _ = Precision


class Recording:
    """A runtime that writes down what it is asked, and answers with zeros."""

    rank, slow, packs, remark = 0, False, True, ""
    accumulation = dict.fromkeys(Precision, FP32)

    def __init__(
        self,
        name: str = "recording",
        *,
        reason: str = "",
        precisions: tuple[Precision, ...] = (FP16, FP32),
        refused: tuple[Precision, ...] = (),
        copying: tuple[Precision, ...] = (),
        slow: bool = False,
        slower: tuple[Precision, ...] = (),
        failure: Exception | None = None,
    ) -> None:
        self.name, self._reason, self.precisions = name, reason, precisions
        self._refused, self._failure = refused, failure
        self._copying, self.slow, self._slower = copying, slow, slower
        self.running: Callable[[], None] = lambda: None
        self.opened: list[tuple[Bundle, Precision, Options]] = []
        self.closed = 0

    def availability(self) -> Availability:
        return Availability(not self._reason, "1.0", self._reason)

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        return f"{self.name} refuses {precision}" if precision in self._refused else None

    def hidden_copies(self, bundle: Bundle, precision: Precision) -> str | None:
        return f"{self.name} copies {precision}" if precision in self._copying else None

    def slower_than_others(self, bundle: Bundle, precision: Precision) -> str | None:
        return f"{self.name} is slow in {precision}" if precision in self._slower else None

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> SimpleNamespace:
        self.opened.append((bundle, precision, options))
        if self._failure is not None:
            raise self._failure

        def run(stage, x, out):
            self.running()
            return np.zeros((len(x), *stage.outputs[0].element_shape), np.float32)

        def bind(stage, x, out):
            return partial(run, stage, x, out)

        return SimpleNamespace(run=run, bind=bind, close=self._close)

    def _close(self) -> None:
        self.closed += 1


def recording_runtimes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes the given runtimes the only ones, in the order of their rank."""

    def put(*rows: Recording) -> None:
        table = {row.name: row for row in rows}
        monkeypatch.setattr(session, "all_runtimes", lambda: table)
        monkeypatch.setattr(session, "runtime_named", table.__getitem__)

    return put
