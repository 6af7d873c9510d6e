"""Which files were meant, and what each is: told by what it holds, not by its name."""

from __future__ import annotations

import glob
import hashlib
import os
from typing import TYPE_CHECKING

from tiedexport.data.files import NPY_MAGIC, ZIP_MAGICS
from tiedexport.encode.arrays import Array
from tiedexport.encode.pictures import Pictures
from tiedexport.encode.tables import MAGICS, Table
from tiedexport.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tiedexport.encode.rows import Intake, Source

SUFFIXES = (".parquet", ".arrow", ".arrows", ".feather", ".npy", ".npz")
"""What of a folder is taken; one that has none of these is a folder of images."""

KINDS = "Parquet, Arrow (file or stream), .npy, .npz or a folder of images"
_DIGESTED_BYTES = 1 << 16


def expand(inputs: Iterable[str | Path]) -> list[str]:
    """Files and folders of images, in the order given; those of a pattern or folder sorted.

    Raises:
        DataError: there is no such file, or a pattern matches none.
        UsageError: a file is named twice: its rows would be in the output twice.
    """
    paths: list[str] = []
    for given in map(str, inputs):
        if os.path.isdir(given):
            paths += _files_of(given) or [given]
        elif os.path.exists(given):
            paths.append(given)
        elif found := sorted(glob.glob(given, recursive=True)):
            paths += found
        else:
            raise DataError("no such input", where=given, expected=KINDS, hint=f"ls {given}")
    places: set[str] = set()
    for path in paths:
        place = os.path.realpath(path)
        if place in places:
            raise UsageError("an input is named twice", got=path, expected="each file once")
        places.add(place)
    return paths


def open_source(path: str, intake: Intake) -> Source:
    """One of them, ready to be read.

    Raises:
        DataError: it is of no known kind or damaged.
        ArrayError: its shape does not fit the stage.
        MissingRuntimeError: what reads it is not installed.
    """
    if os.path.isdir(path):
        return Pictures(path, intake)
    with open(path, "rb") as file:
        first = file.read(_DIGESTED_BYTES)
        file.seek(max(0, os.path.getsize(path) - _DIGESTED_BYTES))
        last = file.read()
    digest = hashlib.sha256(first + last).hexdigest()
    for magic, kind in MAGICS.items():
        if first.startswith(magic):
            return Table(path, intake, digest, kind)
    if first.startswith((NPY_MAGIC, *ZIP_MAGICS)):
        return Array(path, intake, digest)
    raise DataError(
        "an input of no kind that can be read",
        where=path,
        got=f"a file that begins with the bytes {first[:8].hex(' ') or '(none)'}",
        expected=KINDS,
    )


def _files_of(folder: str) -> list[str]:
    entries = sorted(entry.name for entry in os.scandir(folder))
    return [
        os.path.join(folder, name)
        for name in entries
        if name.lower().endswith(SUFFIXES) and not name.startswith((".", "_"))
    ]
