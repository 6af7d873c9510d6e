"""The exception tree.

Every error says what, where, got, expected and what to do next; each class has its exit code.
"""

from __future__ import annotations

from typing import Any

EXIT_DONE = 0
EXIT_CHECK_FAILED = 1
EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_BAD_INPUT = 4
EXIT_INTERNAL = 5


class TiedExportError(Exception):
    """Base of every error that tiedexport raises on purpose.

    Args:
        what: one sentence without a full stop.
        where: the file, field or object that is at fault.
        got: what was found there.
        expected: what should have been there.
        hint: the next step, if possible a command to type.
    """

    exit_code = EXIT_INTERNAL

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.got = got
        self.expected = expected
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        fields = {
            "where": self.where,
            "got": self.got,
            "expected": self.expected,
            "next": self.hint,
        }
        lines = [
            f"  {name + ':':<9} {value}" for name, value in fields.items() if value is not None
        ]
        return "\n".join([self.what, *lines])


class UsageError(TiedExportError):
    """Arguments that contradict each other or name something that does not exist."""

    exit_code = EXIT_USAGE


class BadInputError(TiedExportError, ValueError):
    """A file or an array that cannot be used as it is."""

    exit_code = EXIT_BAD_INPUT


class RecipeError(BadInputError):
    """A recipe that is no valid TOML or describes no valid model."""


class DataError(BadInputError):
    """A data set that is missing, empty, not finite, or of the wrong shape or range."""


class CheckpointError(BadInputError):
    """A checkpoint that is unsafe, damaged, or not of this project."""


class BundleError(BadInputError):
    """A bundle that is damaged, incomplete, tampered with, or of a newer schema."""


class ArrayError(BadInputError):
    """An array handed to a session that does not fit the stage."""


class GraphError(BadInputError):
    """A graph that a pass cannot transform without breaking its meaning."""


class TieBrokenError(TiedExportError):
    """A tied weight that is no longer stored exactly once."""

    exit_code = EXIT_CHECK_FAILED


class MissingRuntimeError(TiedExportError):
    """A library, driver or device that is needed is not here."""

    exit_code = EXIT_MISSING


class RuntimeFailedError(TiedExportError):
    """A runtime or engine builder refused or failed; carries the library's own words."""

    exit_code = EXIT_MISSING


def fields_of(error: TiedExportError) -> dict[str, str | None]:
    """An error as texts, from which another process makes it again with `error_of`."""
    kind = next(base for base in type(error).__mro__ if base.__module__ == __name__)
    values = {name: getattr(error, name) for name in ("what", "where", "got", "expected", "hint")}
    texts = {name: None if value is None else str(value) for name, value in values.items()}
    return {"kind": kind.__name__, **texts}


def error_of(fields: dict[str, Any]) -> TiedExportError:
    """The error of which another process told `fields_of`."""
    texts = dict(fields)
    kind: type[TiedExportError] = globals()[texts.pop("kind")]
    return kind(**texts)
