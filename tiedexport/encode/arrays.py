"""Inputs that are arrays: .npy, mapped; .npz, mapped where its members are stored as they are."""

from __future__ import annotations

import math
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.files import SAMPLE_KEYS, damage_reported, samples_name
from tiedexport.encode.rows import Intake, Rows, blocks, checked_rows
from tiedexport.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

_LOCAL_HEADER_BYTES = 30
"""Of a member of a zip archive, before its name (APPNOTE.TXT 4.3.7)."""


class Array:
    """A `Source` of an .npy file, or of the member of an .npz that holds the samples.

    Raises:
        DataError: it is damaged, or its rows do not lie one after another.
    """

    def __init__(self, path: str, intake: Intake, digest: str) -> None:
        self.path, self.digest = path, digest
        self.cuts: tuple[int, ...] | None = None
        self._intake = intake
        self._stream: _Stream | None = None
        with damage_reported(path):
            self._open()
        if not self._shape:
            raise DataError("one number is no row of samples", where=path, expected="[n, ...]")
        self.rows = self._shape[0]
        self._row_bytes = math.prod(self._shape[1:]) * self._dtype.itemsize
        with damage_reported(path):
            if self.rows and self._stream is None:  # a file that is cut short shows here
                self._mapped(self.rows - 1, self.rows)
        # An error of type or shape shows before anything is computed.
        checked_rows(0, np.empty((0, *self._shape[1:]), self._dtype), {}, intake, path)

    def _open(self) -> None:
        if not zipfile.is_zipfile(self.path):
            self.kind = "npy"
            with open(self.path, "rb") as file:
                self._take_header(file)
            return
        self.kind = "npz"
        with zipfile.ZipFile(self.path) as archive:
            member = archive.getinfo(_member(archive.namelist(), self._intake.column, self.path))
            with archive.open(member) as opened:
                self._take_header(opened)
        if member.compress_type != zipfile.ZIP_STORED:
            self._stream = _Stream(self.path, member.filename)
            return
        with open(self.path, "rb") as file:
            file.seek(member.header_offset + _LOCAL_HEADER_BYTES - 4)
            lengths = np.frombuffer(file.read(4), "<u2")  # of the name, and of what is behind it
            self._offset += member.header_offset + _LOCAL_HEADER_BYTES + int(lengths.sum())

    def _take_header(self, file: IO[bytes]) -> None:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        self._shape, fortran, self._dtype = read(file)
        self._offset = file.tell()
        if self._dtype.hasobject or (fortran and len(self._shape) > 1):
            raise DataError(
                "an array whose rows do not lie one after another",
                where=self.path,
                got="Python objects" if self._dtype.hasobject else "columns first (Fortran order)",
                hint="numpy.save('rows.npy', numpy.ascontiguousarray(array))",
            )

    def schema(self) -> pa.Schema:
        """The name of the file, and the row's number in it."""
        import pyarrow as pa

        return pa.schema([("file", pa.string()), ("row", pa.int64())])

    def read(self, start: int, stop: int, block: int) -> Iterator[Rows]:
        """Called as `Source` says: views of the file wherever it holds what the stage takes."""
        for first, last in blocks(start, stop, block):
            with damage_reported(self.path):
                array = (
                    self._mapped(first, last) if self._stream is None else self._read(first, last)
                )
            columns = {"file": self.path, "row": np.arange(first, last)}
            yield checked_rows(first, array, columns, self._intake, self.path)

    def _mapped(self, first: int, last: int) -> NDArray[Any]:
        """A map of these rows alone, so that what was read no longer counts as memory."""
        shape = (last - first, *self._shape[1:])
        if not math.prod(shape):
            return np.empty(shape, self._dtype)
        offset = self._offset + first * self._row_bytes
        return np.asarray(np.memmap(self.path, self._dtype, "r", offset, shape))

    def _read(self, first: int, last: int) -> NDArray[Any]:
        assert self._stream is not None
        begin = self._offset + first * self._row_bytes
        content = self._stream.read(begin, (last - first) * self._row_bytes)
        return np.frombuffer(content, self._dtype).reshape(last - first, *self._shape[1:])


class _Stream:
    """A compressed member, read from front to back: what follows is not inflated again."""

    def __init__(self, path: str, member: str) -> None:
        self._path, self._member = path, member
        self._file: IO[bytes] | None = None

    def read(self, begin: int, length: int) -> bytes:
        """That many bytes from `begin` on."""
        if self._file is None or self._file.tell() > begin:
            self.close()
            # The member keeps the archive's file open until it is closed itself.
            with zipfile.ZipFile(self._path) as archive:
                self._file = archive.open(self._member)
        while (ahead := begin - self._file.tell()) > 0:
            if not self._file.read(min(ahead, 1 << 20)):
                break
        content = self._file.read(length)
        if len(content) != length:
            raise EOFError(f"{self._member} ends early")
        return content

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _member(names: list[str], wanted: str | None, path: str) -> str:
    """The member of an archive that holds the samples."""
    keys = {name.removesuffix(".npy"): name for name in names}
    found = samples_name(list(keys), wanted)
    if found is None:
        raise DataError(
            "which array of this archive holds the samples?",
            where=path,
            got="the arrays " + (", ".join(keys) or "(none)"),
            expected=wanted or f"one array, or one named {', '.join(SAMPLE_KEYS)}",
            hint="--column NAME",
        )
    return keys[found]
