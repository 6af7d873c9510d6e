"""One wall for the libraries that only some sources need."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tiedexport.errors import MissingRuntimeError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needed_for(purpose: str, library: str, *, extra: str = "train") -> Iterator[None]:
    """Wrap the import of `library`: its absence becomes an error that says what to install.

    Raises:
        MissingRuntimeError: an import inside the block failed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingRuntimeError(
            f"{purpose} needs {library}",
            got=str(error),
            expected=f"{library} in this environment",
            hint=f"pip install 'tiedexport[{extra}]'",
        ) from error
