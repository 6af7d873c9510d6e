"""A bundle opened in one runtime: the interface that production code calls."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.bundle import Bundle, open_bundle
from tiedexport.errors import ArrayError, MissingRuntimeError, UsageError
from tiedexport.runtimes import Memory, Options, all_runtimes, choose_precision, runtime_named
from tiedexport.spec import STAGE_OF_VERB, StageSpec, TensorSpec, precisions_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from tiedexport.runtimes import Runtime
    from tiedexport.spec import Precision


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
            return Session(opened, row, chosen, Options(memory, threads))
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
        self.runtime = runtime.name
        self.precision = precision
        self._backend = runtime.open(bundle, precision, options)
        self._closed = False
        self._stages = {stage.name: _Checked(stage) for stage in bundle.manifest.stages}

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
        checked = self._checked(stage)
        x = checked.input(x)
        if out is not None:
            checked.output(out, x)
        if len(x) == 0:  # nothing to compute, which not every library can
            return checked.empty() if out is None else out
        return self._backend.run(checked.stage, x, out)

    def bind(self, stage: str, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        """Check and bind once; each call of the result reads `x` and writes `out` in place.

        Raises:
            ArrayError: an array has the wrong type, shape or layout.
            UsageError: there is no such stage, or the session is closed.
        """
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
        call = self._backend.bind(checked.stage, x, out) if len(x) else _nothing

        def call_while_open() -> None:
            self._refuse_closed()
            call()

        return call_while_open

    def close(self) -> None:
        """Free what the runtime holds; the session cannot be used afterwards."""
        self._closed = True
        self._backend.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UsageError(
                "the session is closed",
                where=self.bundle.path,
                hint="open another: tiedexport.open_session(path)",
            )

    def _checked(self, stage: str) -> _Checked:
        self._refuse_closed()
        try:
            return self._stages[STAGE_OF_VERB.get(stage, stage)]
        except KeyError:
            raise UsageError(
                "unknown stage", got=repr(stage), expected=", ".join(self._stages)
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _nothing() -> None:
    pass


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
            raise self._wrong(self._input, x, "convert it: x.astype(np.{})", self._input_dtype)
        if x.shape[1:] != self._input_shape or x.ndim == 0:
            raise self._wrong(self._input, x, "reshape it; the first axis is the batch", None)
        return x if x.flags.c_contiguous else np.ascontiguousarray(x)

    def output(self, out: np.ndarray, x: np.ndarray) -> None:
        if not isinstance(out, np.ndarray) or out.dtype != self._output_dtype:
            raise self._wrong(self._output, out, "np.empty(shape, np.{})", self._output_dtype)
        if out.shape != (len(x), *self._output_shape):
            raise self._wrong(self._output, out, f"its batch must be {len(x)}", None)
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

    def _wrong(
        self, spec: TensorSpec, x: Any, hint: str, dtype: np.dtype[Any] | None
    ) -> ArrayError:
        got = f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        return ArrayError(
            "an array does not fit the stage",
            where=f"{self.stage.name} {spec.name}",
            got=got,
            expected=str(spec),
            hint=hint.format(dtype) if dtype is not None else hint,
        )
