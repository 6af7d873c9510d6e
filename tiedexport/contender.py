"""What takes its turn in a measurement: a session in this process, or in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tiedexport.bundle import open_bundle
from tiedexport.errors import RuntimeFailedError, TiedExportError
from tiedexport.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from tiedexport.bundle import Bundle
    from tiedexport.runtimes import Memory
    from tiedexport.spec import StageSpec


class Contender(Protocol):
    """Something whose calls are timed in turns."""

    def prepare(self, stage: str, batch: int, warmup_s: float) -> float:
        """Bind a stage at a batch size, warm up, and return the seconds that a call takes."""
        ...

    def take_turn(self, calls: int) -> np.ndarray:
        """Nanoseconds of each of `calls` consecutive calls, int64 [calls]."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class SessionContender:
    """A session whose calls go through `Session.bind`: arrays are checked and bound once, outside.

    Args:
        bundle: the bundle, or its path where it has been checked before.
        runtime, precision, threads, memory: as `open_session` takes them.

    Raises:
        TiedExportError: the session cannot be opened.
    """

    def __init__(
        self,
        bundle: Bundle | str,
        runtime: str,
        precision: str,
        threads: int,
        memory: Memory = "shared",
    ) -> None:
        self._bundle = open_bundle(bundle, check="size") if isinstance(bundle, str) else bundle
        self._session = open_session(
            self._bundle, runtime=runtime, precision=precision, threads=threads, memory=memory
        )
        self._call: Callable[[], None] = lambda: None

    def prepare(self, stage: str, batch: int, warmup_s: float) -> float:
        """Bind golden inputs, repeated to the batch size: zeros would flatter some kernels."""
        bound = self._bundle.manifest.stage(stage)
        x, spec = golden_inputs(self._bundle, bound, batch), bound.outputs[0]
        out = np.empty((batch, *spec.element_shape), spec.dtype.dtype)
        self._call = self._session.bind(stage, x, out)
        return warm_up(self.take_turn, warmup_s)

    def take_turn(self, calls: int) -> np.ndarray:
        """One clock reading ends a call and begins the next, so a call pays for one reading."""
        call = self._call
        readings = [perf_counter_ns()]
        for _ in range(calls):
            call()
            readings.append(perf_counter_ns())
        return np.diff(np.array(readings, np.int64))

    def close(self) -> None:
        """Close the session."""
        self._session.close()


def golden_inputs(bundle: Bundle, stage: StageSpec, batch: int) -> np.ndarray:
    """Golden inputs, repeated to the batch size, [batch, ...] in the stage's type."""
    spec = stage.inputs[0]
    shape = (batch, *spec.element_shape)
    return np.resize(bundle.golden[spec.name], shape).astype(spec.dtype.dtype)


def warm_up(take_turn: Callable[[int], np.ndarray], warmup_s: float) -> float:
    """Call for at least `warmup_s`, and twice, then return the median seconds of the later half."""
    spent_ns: list[int] = []
    while len(spent_ns) < 2 or sum(spent_ns) < warmup_s * 1e9:
        spent_ns.extend(take_turn(max(1, len(spent_ns))).tolist())
    return float(np.median(spent_ns[len(spent_ns) // 2 :])) / 1e9


class RemoteContender:
    """A contender in a process of its own, so that its idle threads cannot slow another's turn.

    Args:
        factory: makes the contender in the child process; it and its arguments are pickled.

    Raises:
        TiedExportError: the factory's error, or the child process died.
    """

    def __init__(self, factory: Callable[..., Contender], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, childs_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(childs_end, factory, arguments), daemon=True
        )
        self._process.start()
        childs_end.close()
        self._receive()

    def prepare(self, stage: str, batch: int, warmup_s: float) -> float:
        """As the contender in the child does."""
        return float(self._ask("prepare", stage, batch, warmup_s))

    def take_turn(self, calls: int) -> np.ndarray:
        """As the contender in the child does; the pipe is outside the timed calls."""
        return np.asarray(self._ask("take_turn", calls))

    def close(self) -> None:
        """End the child process."""
        with contextlib.suppress(TiedExportError):
            self._ask("close")
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            self._pipe.send((method, arguments))
        except OSError as error:
            raise self._died() from error
        return self._receive()

    def _receive(self) -> Any:
        try:
            value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(value, TiedExportError):
            raise value
        return value

    def _died(self) -> RuntimeFailedError:
        self._process.join(timeout=10)
        return RuntimeFailedError(
            "the process of a contender died", got=f"exit code {self._process.exitcode}"
        )


def _serve(pipe: Connection, factory: Callable[..., Contender], arguments: tuple[Any, ...]) -> None:
    """The child's side: answer each (method, arguments) with a value or one of our errors."""
    try:
        contender = factory(*arguments)
    except TiedExportError as error:
        pipe.send(RuntimeFailedError(str(error)))
        return
    pipe.send(None)
    method = ""
    while method != "close":
        try:
            method, values = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(contender, method)(*values))
        except TiedExportError as error:
            pipe.send(RuntimeFailedError(str(error)))
