"""Arrays as a stage wants them: the right type, shape and layout, or an error that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.errors import ArrayError

if TYPE_CHECKING:
    from tiedexport.spec import StageSpec, TensorSpec


class CheckedStage:
    """A stage with what every call compares its arrays against, kept ready."""

    def __init__(self, stage: StageSpec) -> None:
        self.stage = stage
        self._input, self._output = stage.inputs[0], stage.outputs[0]
        self._input_dtype, self._input_shape = self._input.dtype.dtype, self._input.element_shape
        self._output_dtype = self._output.dtype.dtype
        self._output_shape = self._output.element_shape

    def input(self, x: np.ndarray) -> np.ndarray:
        """`x` itself, or a copy that is C-contiguous.

        Raises:
            ArrayError: its type or shape is not the stage's.
        """
        if not isinstance(x, np.ndarray) or x.dtype != self._input_dtype:
            raise self._wrong(self._input, x, "convert it: x.astype(np.{})")
        if x.shape[1:] != self._input_shape or x.ndim == 0:
            raise self._wrong(self._input, x, "reshape it; the first axis is the batch")
        return x if x.flags.c_contiguous else np.ascontiguousarray(x)

    def output(self, out: np.ndarray, x: np.ndarray) -> None:
        """Refuse what cannot take the outputs of `x` in place.

        Raises:
            ArrayError: its type, shape or layout is wrong, or it overlaps `x`.
        """
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
        """The output of no samples, [0, ...]."""
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
