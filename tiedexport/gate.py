"""Who may call a library, and when it is freed: never while a call is under way."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from tiedexport.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiedexport.runtimes import Backend


def nothing() -> None:
    """What a call does that has nothing to compute, or of a session that is closed."""


class Gate:
    """The way to an open backend: closed, it lets nobody in, and the last to leave frees it.

    It has no lock, which would cost each call more than all else here: to append to a list, to pop
    from it and to set an attribute are atomic. Who enters is counted before looking whether it is
    closed, and who closes it does so before looking whether somebody is inside: one of the two
    sees the other. So it does when a signal handler or a finaliser comes in between.
    """

    def __init__(self, backend: Backend, where: object) -> None:
        self._backend, self._where = [backend], where  # whoever pops the backend frees it
        self._inside: list[None] = []
        self._closed = False
        self._bound: weakref.WeakSet[Bound] = weakref.WeakSet()

    def enter(self) -> Backend:
        """Let the caller in, who must `leave`.

        Raises:
            UsageError: it is closed, and there is nothing to leave.
        """
        self._inside.append(None)
        if self._closed:
            self.leave()
            raise UsageError(
                "the session is closed",
                where=self._where,
                hint="open another: tiedexport.open_session(path)",
            )
        return self._backend[0]

    def leave(self) -> None:
        """Let the caller out; the last one frees what is closed."""
        self._inside.pop()
        if self._closed:
            self._free_if_idle()

    def bound(self, call: Callable[[], None]) -> Bound:
        """The call, through this gate whenever it is made; to be asked for inside."""
        bound = Bound(self, call)
        self._bound.add(bound)
        return bound

    def close(self) -> None:
        """Let nobody in any more; free the backend now, or when the last one leaves."""
        self._closed = True
        self._free_if_idle()

    def _free_if_idle(self) -> None:
        if self._inside:
            return
        try:
            backend = self._backend.pop()
        except IndexError:  # somebody else frees it
            return
        try:
            backend.close()
        finally:
            for bound in self._bound:
                bound.call = nothing


class Bound:
    """What `bind` returns: callers may keep it, and it keeps nothing of a closed session."""

    def __init__(self, gate: Gate, call: Callable[[], None]) -> None:
        self._gate, self.call = gate, call

    def __call__(self) -> None:
        """Make the call, unless the session is closed."""
        self._gate.enter()
        try:
            self.call()
        finally:
            self._gate.leave()
