"""A bundle opened in one runtime: the interface that production code calls."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import ArrayError, MissingRuntimeError, RuntimeFailedError, UsageError
from tiedexport.runtimes import Memory, Options, all_runtimes, choose_precision, runtime_named
from tiedexport.spec import STAGE_OF_VERB, StageSpec, TensorSpec, precisions_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from tiedexport.runtimes import Backend, Runtime
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

    Args:
        bundle: an open bundle, or the path of one (then every hash is checked).
        runtime: a name that `tiedexport doctor` lists, or "auto" for the best one here.
        precision: "fp32", "fp16" or "bf16"; by default the runtime's best that the bundle holds.
        memory: "shared" (one copy of each weight) or "packed" (the runtime's fastest layout).
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
    wanted = None if precision is None else _one_precision(precision)
    candidates = all_runtimes().values() if runtime == "auto" else [runtime_named(runtime)]
    reasons = []
    for row in candidates:
        chosen, reason = choose_precision(row, opened, wanted)
        if chosen is not None:
            try:
                return Session(opened, row, chosen, Options(memory, threads))
            except RuntimeFailedError as error:
                if runtime != "auto":
                    raise
                reason = f"{error.what}: {error.got}"
                _log.warning("%s is passed over: %s", row.name, reason)
        reasons.append(f"{row.name}: {reason}")
    raise MissingRuntimeError(
        "no runtime can run this bundle here" if runtime == "auto" else f"{runtime} cannot run",
        where=opened.path,
        got="; ".join(reasons),
        hint="tiedexport doctor says what to install",
    )


def refuse_threads(threads: int) -> None:
    """Refuse a number of threads that could only hurt.

    Raises:
        UsageError: it is not from 1 to four times the number of processors.
    """
    most = 4 * (os.cpu_count() or 1)
    if not 1 <= threads <= most:
        raise UsageError("not a useful number of threads", got=threads, expected=f"1 to {most}")


def _one_precision(name: str) -> Precision:
    precision, *others = precisions_from(name)
    if others:
        raise UsageError("a session computes in one precision", got=repr(name))
    return precision


class Session:
    """A bundle opened in one runtime: `encode`, `decode`, `reconstruct` on numpy arrays.

    Safe to use from several threads at once. Use it in a `with` statement, or call `close`.
    """

    def __init__(
        self, bundle: Bundle, runtime: Runtime, precision: Precision, options: Options
    ) -> None:
        self.bundle = bundle
        self.runtime, self.precision = runtime.name, precision
        self._stages = {stage.name: _Checked(stage) for stage in bundle.manifest.stages}
        self._gate = _Gate(runtime.open(bundle, precision, options), bundle.path)

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
        with self._gate as backend:
            checked = self._checked(stage)
            x = checked.input(x)
            if out is not None:
                checked.output(out, x)
            if len(x) == 0:  # nothing to compute, which not every library can
                return checked.empty() if out is None else out
            return backend.run(checked.stage, x, out)

    def bind(self, stage: str, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        """Check and bind once; each call of the result reads `x` and writes `out` in place.

        Raises:
            ArrayError: an array has the wrong type, shape or layout.
            UsageError: there is no such stage, or the session is closed.
        """
        with self._gate as backend:
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
            return self._gate.bound(backend.bind(checked.stage, x, out) if len(x) else _nothing)

    def close(self) -> None:
        """Refuse further calls, and free what the runtime holds when the running ones are done."""
        self._gate.close()

    def _checked(self, stage: str) -> _Checked:
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


def _nothing() -> None:
    pass


class _Gate:
    """The way to an open backend: closed, it lets nobody in, and the last to leave frees it."""

    def __init__(self, backend: Backend, where: object) -> None:
        self._backend, self._where = backend, where
        self._inside, self._closed = 0, False
        self._bound: weakref.WeakSet[_Bound] = weakref.WeakSet()
        # A signal handler or a finaliser of the same thread may come in between.
        self._lock = threading.RLock()

    def __enter__(self) -> Backend:
        with self._lock:
            if self._closed:
                raise UsageError(
                    "the session is closed",
                    where=self._where,
                    hint="open another: tiedexport.open_session(path)",
                )
            self._inside += 1
            return self._backend

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            last = self._closed and self._inside == 0
        if last:
            self._free()

    def bound(self, call: Callable[[], None]) -> _Bound:
        with self._lock:
            bound = _Bound(self, call)
            self._bound.add(bound)
            return bound

    def close(self) -> None:
        with self._lock:
            idle = not self._closed and self._inside == 0
            self._closed = True
        if idle:
            self._free()

    def _free(self) -> None:
        try:
            self._backend.close()
        finally:
            del self._backend
            for bound in self._bound:
                bound.call = _nothing


class _Bound:
    """What `bind` returns: callers may keep it, and it keeps nothing of a closed session."""

    def __init__(self, gate: _Gate, call: Callable[[], None]) -> None:
        self._gate, self.call = gate, call

    def __call__(self) -> None:
        with self._gate:
            self.call()


class _Checked:
    """A stage with what every call compares its arrays against, kept ready."""

    def __init__(self, stage: StageSpec) -> None:
        self.stage = stage
        self._input, self._output = stage.inputs[0], stage.outputs[0]
        self._input_dtype, self._input_shape = self._input.dtype.dtype, self._input.element_shape
        self._output_dtype = self._output.dtype.dtype
        self._output_shape = self._output.element_shape

    def input(self, x: np.ndarray) -> np.ndarray:
        if not isinstance(x, np.ndarray) or x.dtype != self._input_dtype:
            raise self._wrong(self._input, x, "convert it: x.astype(np.{})")
        if x.shape[1:] != self._input_shape or x.ndim == 0:
            raise self._wrong(self._input, x, "reshape it; the first axis is the batch")
        return x if x.flags.c_contiguous else np.ascontiguousarray(x)

    def output(self, out: np.ndarray, x: np.ndarray) -> None:
        if not isinstance(out, np.ndarray) or out.dtype != self._output_dtype:
            raise self._wrong(self._output, out, "np.empty(shape, np.{})")
        if out.shape != (len(x), *self._output_shape):
            raise self._wrong(self._output, out, f"its batch must be {len(x)}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ArrayError(
                "out= cannot be written in place",
                where=f"{self.stage.name} {self._output.name}",
                got="a view with gaps" if out.flags.writeable else "a read-only array",
                expected="a C-contiguous, writable array",
                hint=f"np.empty({out.shape}, np.{out.dtype})",
            )
        if np.may_share_memory(x, out):
            raise ArrayError(
                "out= overlaps the input",
                where=f"{self.stage.name} {self._output.name}",
                got="memory that is read while it is written",
                expected="an array of its own",
            )

    def empty(self) -> np.ndarray:
        return np.empty((0, *self._output_shape), self._output_dtype)

    def _wrong(self, spec: TensorSpec, x: Any, hint: str) -> ArrayError:
        got = f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        return ArrayError(
            "an array does not fit the stage",
            where=f"{self.stage.name} {spec.name}",
            got=got,
            expected=str(spec),
            hint=hint.format(spec.dtype.dtype),
        )
