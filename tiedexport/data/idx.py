"""IDX, the format of MNIST: big-endian arrays with a four-byte magic number, plain or gzipped.

The format is described at the foot of http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tiedexport.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"
LARGEST_DEFLATE_RATIO = 1032
"""Deflate codes at most 258 bytes in 2 bits (zlib's technical notes, "Maximum Compression")."""


def is_idx(first_bytes: bytes) -> bool:
    """Whether a file that begins so (four bytes) can be IDX."""
    return len(first_bytes) == 4 and first_bytes[:2] == b"\0\0" and first_bytes[2] in DTYPES


def read_idx(path: Path) -> NDArray[Any]:
    """Read one array of any IDX type, in native byte order.

    Raises:
        DataError: the header is no IDX header, or declares another size than the file holds.
        OSError, EOFError, zlib.error: the file or its compression is damaged.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            file.seek(0)
            return _read_array(file, path, limit_bytes=size_bytes)
    with gzip.open(path) as stream:
        return _read_array(stream, path, limit_bytes=size_bytes * LARGEST_DEFLATE_RATIO)


def labels_file_of(path: Path) -> Path | None:
    """`…-images-idx3-ubyte[.gz]` → the sibling `…-labels-idx1-ubyte[.gz]`, if there is one."""
    name = re.sub(r"idx\d+", "idx1", path.name.replace("images", "labels"))
    plain = name.removesuffix(".gz")
    for sibling in (path.with_name(name), path.with_name(plain), path.with_name(plain + ".gz")):
        if sibling.name.removesuffix(".gz") != path.name.removesuffix(".gz") and sibling.is_file():
            return sibling
    return None


def _read_array(file: BinaryIO | gzip.GzipFile, path: Path, *, limit_bytes: int) -> NDArray[Any]:
    magic = file.read(4)
    if not is_idx(magic):
        raise DataError(
            "no IDX file",
            where=path,
            got=f"a file that begins with the bytes {magic.hex(' ') or '(none)'}",
            expected="00 00, a type (08, 09, 0b to 0e) and the number of axes",
            hint="give .npy, .npz, IDX (plain or .gz) or a folder of images",
        )
    header = file.read(4 * magic[3])
    shape = struct.unpack(f">{len(header) // 4}I", header[: len(header) // 4 * 4])
    dtype = np.dtype(DTYPES[magic[2]])
    declared_bytes = math.prod(shape) * dtype.itemsize
    # The size is compared before it is believed: a few bytes can declare 2^40.
    content = b""
    if len(header) == 4 * magic[3] and declared_bytes <= limit_bytes:
        content = file.read(declared_bytes + 1)
    if len(header) != 4 * magic[3] or len(content) != declared_bytes:
        found = "more" if len(content) > declared_bytes else "fewer"
        raise DataError(
            "the IDX file is cut short or damaged",
            where=path,
            got=f"a header for {dtype.name} of shape {list(shape)}, and {found} bytes behind it",
            expected=f"{magic[3]} axes and {declared_bytes} bytes of values",
            hint="fetch or write the file again",
        )
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))
