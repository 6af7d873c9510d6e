"""A bundle opened in one runtime: the interface that production code calls."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.checked import CheckedStage
from tiedexport.errors import ArrayError, MissingRuntimeError, RuntimeFailedError, UsageError
from tiedexport.gate import Gate, nothing
from tiedexport.runtimes import Memory, Options, all_runtimes, choose_precision, runtime_named
from tiedexport.spec import STAGE_OF_VERB, precisions_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import Self

    from tiedexport.runtimes import Runtime
    from tiedexport.spec import Precision

_log = logging.getLogger(__name__)


def open_session(
    bundle: Bundle | str | Path,
    *,
    runtime: str = "auto",
    precision: str | None = None,
    memory: Memory = "shared",
    threads: int | None = None,
) -> Session:
    """Open a bundle for running.

    A runtime or precision that would store weights again behind the scenes in shared memory (see
    `Session.hidden_copies`) is opened if it is asked for by name, or if nothing else but a slow
    evaluator can run the bundle; the log then warns. "auto" passes over a runtime that is slower
    at this bundle than those after it, unless they would store weights again.

    Args:
        bundle: an open bundle, or the path of one (then every hash is checked).
        runtime: a name that `tiedexport doctor` lists, or "auto" for the best one here.
        precision: "fp32", "fp16" or "bf16"; by default the runtime's best that the bundle holds.
        memory: "shared" (one copy of each weight among all sessions and processes of the host) or
            "packed" (the runtime's fastest layout, whatever it stores).
        threads: CPU threads to compute with, at most four a processor; by default the runtime's
            own choice.

    Raises:
        MissingRuntimeError: the runtime (or, for "auto", every runtime) cannot run this here.
        RuntimeFailedError: the runtime asked for failed to start, in its own words.
        UsageError: an argument names nothing that exists.
    """
    if memory not in ("shared", "packed"):
        raise UsageError("unknown memory mode", got=repr(memory), expected="shared or packed")
    if threads is not None:
        refuse_threads(threads)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    wanted = None if precision is None else one_precision(precision)
    if runtime == "auto":  # what only simulates another is never taken unasked
        rows = [row for row in all_runtimes().values() if not row.remark]
    else:
        rows = [runtime_named(runtime)]
    reasons: list[str] = []
    for row, chosen in _candidates(rows, opened, wanted, memory, reasons):
        try:
            session = Session(opened, row, chosen, Options(memory, threads))
        except RuntimeFailedError as error:
            if runtime != "auto":
                raise
            reason = f"{error.what}: {error.got}"
            _log.warning("%s is passed over: %s", row.name, reason)
            reasons.append(f"{row.name}: {reason}")
            continue
        if session.hidden_copies:
            _log.warning(
                "%s in %s stores weights again: %s", row.name, chosen, session.hidden_copies
            )
        return session
    raise MissingRuntimeError(
        "no runtime can run this bundle here" if runtime == "auto" else f"{runtime} cannot run",
        where=opened.path,
        got="; ".join(reasons),
        hint=_next_step(rows) or "tiedexport doctor says what to install",
    )


def _next_step(rows: Iterable[Runtime]) -> str:
    """What makes the only runtime that was asked for work here; or "" of several."""
    first, *others = rows
    return "" if others else first.availability().remedy


def _candidates(
    rows: Iterable[Runtime],
    bundle: Bundle,
    wanted: Precision | None,
    memory: Memory,
    reasons: list[str],
) -> Iterator[tuple[Runtime, Precision]]:
    """What can run the bundle, in order of rank, but first what keeps one copy of each weight.

    What others do faster waits its turn with those that copy, and so does a slow evaluator.
    `reasons` gets why the others cannot.
    """
    later = []
    for row in rows:
        precision, reason = choose_precision(row, bundle, wanted)
        if precision is None:
            reasons.append(f"{row.name}: {reason}")
            continue
        copies = memory == "shared" and row.hidden_copies(bundle, precision)
        if row.slow or copies or row.slower_than_others(bundle, precision):
            later.append((row, precision))
        else:
            yield row, precision
    yield from later


def refuse_threads(threads: int) -> None:
    """Refuse a number of threads that could only hurt.

    Raises:
        UsageError: it is not from 1 to four times the number of processors.
    """
    most = 4 * (os.cpu_count() or 1)
    if not 1 <= threads <= most:
        raise UsageError("not a useful number of threads", got=threads, expected=f"1 to {most}")


def one_precision(name: str) -> Precision:
    """The precision of that name.

    Raises:
        UsageError: it is unknown, or they are several.
    """
    precision, *others = precisions_from(name)
    if others:
        raise UsageError("a session computes in one precision", got=repr(name))
    return precision


class Session:
    """A bundle opened in one runtime: `encode`, `decode`, `reconstruct` on numpy arrays.

    Safe to use from several threads at once. Use it in a `with` statement, or call `close`.

    Attributes:
        bundle: what was opened.
        runtime, precision, memory: what it runs in.
        hidden_copies: why this host's memory holds weights more than once although `memory` is
            "shared"; None where it does not.
    """

    def __init__(
        self, bundle: Bundle, runtime: Runtime, precision: Precision, options: Options
    ) -> None:
        self.bundle = bundle
        self.runtime, self.precision, self.memory = runtime.name, precision, options.memory
        shared = options.memory == "shared"
        self.hidden_copies = runtime.hidden_copies(bundle, precision) if shared else None
        self._stages = {stage.name: CheckedStage(stage) for stage in bundle.manifest.stages}
        self._gate = Gate(runtime.open(bundle, precision, options), bundle.path)

    def encode(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Inputs [n, *input_shape] → codes [n, *code_shape], in the bundle's I/O dtype."""
        return self.run("encoder", x, out)

    def decode(self, code: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Codes [n, *code_shape] → reconstructions [n, *input_shape], in the bundle's I/O dtype."""
        return self.run("decoder", code, out)

    def reconstruct(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Inputs [n, *input_shape] → reconstructions of the same shape."""
        return self.run("autoencoder", x, out)

    def run(self, stage: str, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Run a stage by name.

        Args:
            stage: "encoder", "decoder" or "autoencoder".
            x: [n, ...] of the stage's input shape, in the bundle's I/O dtype.
            out: a writable C-contiguous array, apart from `x`, that takes the output and is
                returned.

        Raises:
            ArrayError: an array has the wrong type, shape or layout.
            RuntimeFailedError: the runtime failed, in its own words.
            UsageError: there is no such stage, or the session is closed.
        """
        backend = self._gate.enter()
        try:
            checked = self._checked(stage)
            x = checked.input(x)
            if out is not None:
                checked.output(out, x)
            if len(x) == 0:  # nothing to compute, which not every library can
                return checked.empty() if out is None else out
            return backend.run(checked.stage, x, out)
        finally:
            self._gate.leave()

    def bind(self, stage: str, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        """Check and bind once; each call of the result reads `x` and writes `out` in place.

        Raises:
            ArrayError: an array has the wrong type, shape or layout.
            UsageError: there is no such stage, or the session is closed.
        """
        backend = self._gate.enter()
        try:
            checked = self._checked(stage)
            if checked.input(x) is not x:
                raise ArrayError(
                    "a bound input must be C-contiguous",
                    where=stage,
                    got=f"strides {x.strides}",
                    expected="an array that is read in place",
                    hint="numpy.ascontiguousarray(x)",
                )
            checked.output(out, x)
            return self._gate.bound(backend.bind(checked.stage, x, out) if len(x) else nothing)
        finally:
            self._gate.leave()

    def close(self) -> None:
        """Refuse further calls, and free what the runtime holds when the running ones are done."""
        self._gate.close()

    def _checked(self, stage: str) -> CheckedStage:
        try:
            return self._stages[STAGE_OF_VERB.get(stage, stage)]
        except KeyError:
            raise UsageError(
                "unknown stage", got=repr(stage), expected=", ".join(self._stages)
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
