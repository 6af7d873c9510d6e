"""Who may call a library, and when it is freed: never while a call is under way."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from tiedexport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.runtimes import Backend


def nothing() -> None:
    """What a call does that has nothing to compute, or of a session that is closed."""


class Gate:
    """The way to an open backend: closed, it lets nobody in, and the last to leave frees it."""

    def __init__(self, backend: Backend, where: object) -> None:
        self._backend, self._where = backend, where
        self._inside, self._closed = 0, False
        self._bound: weakref.WeakSet[Bound] = weakref.WeakSet()
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

    def bound(self, call: Callable[[], None]) -> Bound:
        """The call, through this gate whenever it is made."""
        with self._lock:
            bound = Bound(self, call)
            self._bound.add(bound)
            return bound

    def close(self) -> None:
        """Let nobody in any more; free the backend now, or when the last one leaves."""
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
                bound.call = nothing


class Bound:
    """What `bind` returns: callers may keep it, and it keeps nothing of a closed session."""

    def __init__(self, gate: Gate, call: Callable[[], None]) -> None:
        self._gate, self.call = gate, call

    def __call__(self) -> None:
        """Make the call, unless the session is closed."""
        with self._gate:
            self.call()
