"""Errors that one process tells another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiedexport.errors import DataError, TiedExportError, UsageError, error_of, fields_of


class _OfAModuleError(UsageError):
    """The other process may not have this class."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DataError("what", where=Path("x.npy"), got=3, hint="this"), DataError),
        (_OfAModuleError("what", expected=[1]), UsageError),
    ],
)
def test_another_process_makes_the_same_error(
    error: TiedExportError, kind: type[TiedExportError]
) -> None:
    again = error_of(fields_of(error))
    assert type(again) is kind
    assert str(again) == str(error)
