"""libtiedexport over its C interface: found, loaded once, and its errors translated.

It lies beside this package where it was built with it. The environment variable
`TIEDEXPORT_LIBRARY` names another build of it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from ctypes import POINTER, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from tiedexport.errors import (
    BundleError,
    MissingRuntimeError,
    RuntimeFailedError,
    TiedExportError,
)

VARIABLE = "TIEDEXPORT_LIBRARY"
ABI_VERSION = 1
CHECK_SIZE = 1
_FILE = "lib/libtiedexport.so"
_AGAIN = "pip install --force-reinstall --no-deps --no-cache-dir tiedexport"
_PACKAGES = "apt-get install g++ libhwy-dev"
_HIGHWAY = "hwy/highway.h"
"""What building the library takes beside a C++ compiler."""
_HEADER_FOLDERS = ("/usr/include", "/usr/local/include")

# tiedexport_status
_NOT_FOUND, _IO, _CORRUPT, _UNAVAILABLE = 2, 3, 4, 6
_ERRORS: dict[int, type[TiedExportError]] = {
    _NOT_FOUND: BundleError,
    _IO: BundleError,
    _CORRUPT: BundleError,
    _UNAVAILABLE: MissingRuntimeError,
}


class SessionOptions(ctypes.Structure):
    """tiedexport_session_options."""

    _fields_: ClassVar = [
        ("struct_size", c_uint32),
        ("threads", c_int32),
        ("backend", c_char_p),
        ("precision", c_char_p),
        ("simd", c_char_p),
        ("device", c_int32),
    ]


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "tiedexport_abi_version": (c_uint32, ()),
    "tiedexport_version": (c_char_p, ()),
    "tiedexport_last_error": (c_char_p, ()),
    "tiedexport_open": (c_int, (c_char_p, c_int, POINTER(c_void_p))),
    "tiedexport_close": (None, (c_void_p,)),
    "tiedexport_session_create": (c_int, (c_void_p, POINTER(SessionOptions), POINTER(c_void_p))),
    "tiedexport_session_close": (None, (c_void_p,)),
    "tiedexport_run": (c_int, (c_void_p, c_char_p, c_void_p, c_size_t, c_void_p)),
}
"""What is used of tiedexport.h: name → result and arguments."""


def load() -> ctypes.CDLL:
    """The library, its functions declared.

    Raises:
        MissingRuntimeError: it was not built, does not load, or is too old.
    """
    if chosen := os.environ.get(VARIABLE):
        return _loaded(chosen, f"unset {VARIABLE}, or let it name a library that loads")
    for folder in _package_folders():
        if (folder / _FILE).is_file():
            return _loaded(str(folder / _FILE), _AGAIN)
    raise _not_built()


def _package_folders() -> list[Path]:
    """Where the package lies: in two places where it was installed editable."""
    import tiedexport

    return [Path(folder) for folder in tiedexport.__path__]


@cache
def _loaded(path: str, remedy: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(path)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise MissingRuntimeError(
            "libtiedexport does not load", where=path, got=str(error), hint=remedy
        ) from error
    found = library.tiedexport_abi_version()
    if found < ABI_VERSION:
        raise MissingRuntimeError(
            "libtiedexport is older than this package",
            where=path,
            got=f"ABI version {found}",
            expected=f"{ABI_VERSION} or later",
            hint=remedy,
        )
    return library


def _not_built() -> MissingRuntimeError:
    """Installing tiedexport goes on without the library where it cannot be built."""
    lacks = []
    if not any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))):
        lacks.append("a C++ compiler")
    if not has_highway():
        lacks.append("the headers of Highway")
    what = "not built when tiedexport was installed; this machine "
    if not lacks:
        return MissingRuntimeError(
            f"{what}has a C++ compiler and Highway now", hint=f"{_AGAIN} --verbose"
        )
    return MissingRuntimeError(
        f"{what}lacks {' and '.join(lacks)}", hint=f"{_PACKAGES}, then {_AGAIN}"
    )


def has_highway() -> bool:
    """Whether its headers lie where a compiler looks."""
    folders = (*os.environ.get("CPATH", "").split(os.pathsep), *_HEADER_FOLDERS)
    return any(Path(folder, _HIGHWAY).is_file() for folder in folders if folder)


def failure(library: ctypes.CDLL, status: int, doing: str) -> TiedExportError:
    """The error for a status that a call of this very thread just returned."""
    words = library.tiedexport_last_error().decode("utf-8", "replace")
    what, fields = _fields_of(words)
    where = f"{doing}: {fields['where']}" if fields["where"] else doing
    kind = _ERRORS.get(status, RuntimeFailedError)
    return kind(
        what, where=where, got=fields["got"], expected=fields["expected"], hint=fields["try"]
    )


def _fields_of(words: str) -> tuple[str, dict[str, str | None]]:
    """`what: where`, then lines of `  got: `, `  expected: ` and `  try: `, each at will."""
    fields: dict[str, str | None] = dict.fromkeys(("where", "got", "expected", "try"))
    first, *lines = words.splitlines() or ["libtiedexport failed without a word"]
    what, _, where = first.partition(": ")
    fields["where"] = where or None
    last = ""
    for line in lines:
        name, found, value = line.strip().partition(": ")
        if found and line.startswith("  ") and name in fields:
            fields[name], last = value, name
        elif last:  # of several lines
            fields[last] = f"{fields[last]}\n{line}"
    return what, fields
