"""libtiedexport, the project's own library, on a CPU: it reads a tied weight once for both uses.

Weights are used where the bundle's file is mapped, whatever the memory mode; arrays where numpy
has them.
"""

from __future__ import annotations

import os
from ctypes import byref, c_void_p, sizeof
from typing import TYPE_CHECKING
from weakref import finalize

import numpy as np

from tiedexport import native_library
from tiedexport.errors import MissingRuntimeError
from tiedexport.results import Availability
from tiedexport.runtimes import Options, Runtime
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.bundle import Bundle
    from tiedexport.spec import StageSpec


_HEADER_BYTES = object.__basicsize__


class _Native(Runtime):
    name = "native"
    rank = 35
    # fp32 first: what nobody asked for must not round.
    precisions = (Precision.FP32, Precision.FP16, Precision.BF16)
    accumulation = dict.fromkeys(Precision, Precision.FP32)

    def availability(self) -> Availability:
        try:
            library = native_library.load()
        except MissingRuntimeError as error:
            told = (error.what, error.where, error.got)
            reason = ": ".join(str(part) for part in told if part is not None)
            return Availability(False, reason=reason, remedy=error.hint or "")
        return Availability(True, library.tiedexport_version().decode())

    def refusal(self, bundle: Bundle, precision: Precision) -> str | None:
        return None

    def hidden_copies(self, bundle: Bundle, precision: Precision) -> str | None:
        return None

    def slower_than_others(self, bundle: Bundle, precision: Precision) -> str | None:
        ops = {layer.op for stage in bundle.manifest.stages for layer in stage.layers}
        if ops.isdisjoint({"conv", "conv_transpose"}):
            return None
        return "its convolutions are made for correctness, its dense layers for speed"

    def open(self, bundle: Bundle, precision: Precision, options: Options) -> _NativeBackend:
        return _NativeBackend(bundle, precision, options)

    def layers(
        self, bundle: Bundle, precision: Precision, stage: StageSpec, x: np.ndarray
    ) -> dict[str, np.ndarray] | str:
        return "libtiedexport computes several layers in one pass, and hands out the last"


class _NativeBackend:
    """A session of the library."""

    def __init__(self, bundle: Bundle, precision: Precision, options: Options) -> None:
        self._library = native_library.load()
        self._run = self._library.tiedexport_run
        self._session = self._opened(bundle, precision, options)
        # Also where nobody closes it; but not under threads that still run when the process ends.
        self._free = finalize(self, self._library.tiedexport_session_close, self._session)
        self._free.atexit = False
        # Looked up once: the name in C, and what an output array takes.
        self._stages = {
            stage.name: (
                stage.name.encode(),
                stage.outputs[0].element_shape,
                stage.outputs[0].dtype.dtype,
            )
            for stage in bundle.manifest.stages
        }

    def _opened(self, bundle: Bundle, precision: Precision, options: Options) -> int | None:
        """A session of the bundle, which was checked when it was opened in Python."""
        library, opened, session = self._library, c_void_p(), c_void_p()
        path = os.fsencode(bundle.path)
        if status := library.tiedexport_open(path, native_library.CHECK_SIZE, byref(opened)):
            raise native_library.failure(library, status, "libtiedexport")
        wanted = native_library.SessionOptions(
            struct_size=sizeof(native_library.SessionOptions),
            threads=options.threads or 0,
            backend=b"native",
            precision=precision.value.encode(),
        )
        status = library.tiedexport_session_create(opened, byref(wanted), byref(session))
        error = native_library.failure(library, status, "libtiedexport") if status else None
        library.tiedexport_close(opened)  # the session keeps what it needs
        if error is not None:
            raise error
        return session.value

    def run(self, stage: StageSpec, x: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        name, shape, dtype = self._stages[stage.name]
        if out is None:
            out = np.empty((len(x), *shape), dtype)
        if status := self._run(self._session, name, _address(x), len(x), _address(out)):
            raise native_library.failure(self._library, status, stage.name)
        return out

    def bind(self, stage: StageSpec, x: np.ndarray, out: np.ndarray) -> Callable[[], None]:
        name, _, _ = self._stages[stage.name]
        run, arguments = self._run, (self._session, name, _address(x), len(x), _address(out))

        def call(_arrays: tuple[np.ndarray, ...] = (x, out)) -> None:  # which it keeps alive
            if status := run(*arguments):
                raise native_library.failure(self._library, status, stage.name)

        return call

    def close(self) -> None:
        self._free()
        self._session = None


def _address(array: np.ndarray) -> int | None:
    """Where its first element lies: the field behind the object's header, part of numpy's ABI.

    `array.ctypes.data` and `array.__array_interface__` say the same, but make objects of many
    kinds to do so: 0.8 µs each, and thrice that where weights drove them out of the caches.
    """
    return c_void_p.from_address(id(array) + _HEADER_BYTES).value


RUNTIMES = (_Native(),)
