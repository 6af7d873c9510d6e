"""A bundle while it is looked at: its sessions, each opened once, and what they answer."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.errors import MissingRuntimeError, UsageError
from tiedexport.runtimes import all_runtimes, choose_precision
from tiedexport.session import open_session
from tiedexport.view.records import Answer, Model, Picture, Row, from_wire, to_wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Runtime
    from tiedexport.session import Session
    from tiedexport.spec import TensorSpec
    from tiedexport.view.records import Ask

_MOST_SAMPLES = 8
_THREADS = 1
"""Pools of several runtimes in one process would spin beside each other and starve."""


class Sessions:
    """Answers what the page asks, from several threads at once.

    Opens what "auto" takes at once, and every other runtime when it is first asked for.

    Args:
        bundle: the bundle to run.

    Raises:
        MissingRuntimeError: no runtime can run it here.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.rows = tuple(_rows(bundle))
        best = open_session(bundle, threads=_THREADS)
        self._first = _place(self.rows, best.runtime, best.precision)
        self._opened: dict[int, Session] = {self._first: self._warmed_up(best)}
        self._opening = [threading.Lock() for _ in self.rows]

    @property
    def inputs(self) -> tuple[TensorSpec, TensorSpec]:
        """What `reconstruct` and `decode` take."""
        stage = self.bundle.manifest.stage
        return stage("autoencoder").inputs[0], stage("decoder").inputs[0]

    def describe(self, *, report: bool) -> Model:
        """What the page shows before anything runs; `report`: whether it can show one."""
        manifest = self.bundle.manifest
        samples, codes = (self.bundle.golden[spec.name] for spec in self.inputs)
        codes = codes.reshape(len(codes), -1)
        return Model(
            name=manifest.name,
            sample_shape=manifest.sample_shape,
            code_shape=self.inputs[1].element_shape,
            parameters=manifest.parameter_count,
            ties=len(manifest.ties),
            picture=picture_of(manifest.sample_shape),
            rows=self.rows,
            first=self._first,
            lowest=to_wire(codes.min(0)),
            highest=to_wire(codes.max(0)),
            by_variance=tuple(np.argsort(-codes.var(0), kind="stable").tolist()),
            samples=tuple(to_wire(sample) for sample in samples[:_MOST_SAMPLES]),
            report=report,
        )

    def reconstruct(self, ask: Ask) -> Answer:
        """The code and the reconstruction of a sample.

        Raises:
            TiedExportError: the sample does not fit, or the runtime cannot run it.
        """
        x = from_wire(ask.values, self.inputs[0])
        session = self._session(ask)
        code = session.encode(x)
        start = time.perf_counter()
        found = session.reconstruct(x)
        return Answer(to_wire(found), time.perf_counter() - start, to_wire(code))

    def decode(self, ask: Ask) -> Answer:
        """The reconstruction of a code.

        Raises:
            TiedExportError: the code does not fit, or the runtime cannot run it.
        """
        code = from_wire(ask.values, self.inputs[1])
        session = self._session(ask)
        start = time.perf_counter()
        found = session.decode(code)
        return Answer(to_wire(found), time.perf_counter() - start)

    def close(self) -> None:
        """Close every session, each when its running calls are done."""
        for session in self._opened.values():
            session.close()

    def _session(self, ask: Ask) -> Session:
        place = _place(self.rows, ask.runtime, ask.precision)
        if reason := self.rows[place].reason:
            raise MissingRuntimeError(f"{ask.runtime} cannot run", got=reason)
        with self._opening[place]:
            if place not in self._opened:
                session = open_session(
                    self.bundle, runtime=ask.runtime, precision=ask.precision, threads=_THREADS
                )
                self._opened[place] = self._warmed_up(session)
            return self._opened[place]

    def _warmed_up(self, session: Session) -> Session:
        """The session after the first call of the stage that is timed, which often takes longer."""
        spec = self.inputs[0]
        session.reconstruct(np.zeros((1, *spec.element_shape), spec.dtype.dtype))
        return session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def picture_of(sample_shape: Sequence[int]) -> Picture | None:
    """How samples are seen: [height, width] is grey, [1 or 3, height, width] grey or colour.

    A single row or column is no picture, nor are other numbers of channels.
    """
    channels, *sides = sample_shape if len(sample_shape) == 3 else (1, *sample_shape)
    if len(sides) != 2 or min(sides) < 2 or channels not in (1, 3):
        return None
    height, width = sides
    return Picture(height, width, channels)


def _place(rows: Sequence[Row], runtime: str, precision: str) -> int:
    for place, row in enumerate(rows):
        if row.runtime == runtime and row.precision in (precision, None):
            return place
    raise UsageError(
        "no such runtime and precision",
        got=f"{runtime!r} in {precision!r}",
        expected=", ".join(f"{row.runtime} in {row.precision or 'any'}" for row in rows),
    )


def _rows(bundle: Bundle) -> Iterator[Row]:
    for runtime in all_runtimes().values():
        yield from _rows_of(runtime, bundle)


def _rows_of(runtime: Runtime, bundle: Bundle) -> Iterator[Row]:
    """A row a stored precision; one for all where the runtime cannot work here."""
    availability = runtime.availability()
    stored = [p for p in runtime.precisions if p in bundle.manifest.precisions]
    if not availability.available:
        yield Row(runtime.name, None, availability.why, runtime.remark)
    elif not stored:
        yield Row(runtime.name, None, choose_precision(runtime, bundle)[1], runtime.remark)
    else:
        for precision in stored:
            reason = choose_precision(runtime, bundle, precision)[1]
            yield Row(runtime.name, precision, reason, runtime.remark)
