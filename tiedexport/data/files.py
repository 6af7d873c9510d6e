"""Data from a path: .npy, .npz, IDX or a folder of images, told apart by content, not by name."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.idx import GZIP_MAGIC, is_idx, labels_file_of, read_idx
from tiedexport.data.images import read_folder
from tiedexport.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
SAMPLE_KEYS = ("x", "images", "data", "x_train", "arr_0")
LABEL_KEYS = ("y", "labels", "y_train")
KINDS = ".npy, .npz, IDX (plain or .gz) or a folder of images"


def read(path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Read samples, as they are stored, and labels where the source has them.

    A .npy is mapped into memory, not read: take what you need from it.

    Returns:
        Samples [n, ...] of any dtype but object, and labels int64 [n] or None.

    Raises:
        DataError: the path is missing or of no known kind, or what it holds is damaged.
        MissingRuntimeError: a folder of images without Pillow.
    """
    if path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise _missing(path)
    with damage_reported(path):
        with path.open("rb") as file:
            first_bytes = file.read(8)
        if first_bytes.startswith(NPY_MAGIC):
            return _read_npy(path), None
        if first_bytes.startswith(ZIP_MAGICS):
            return _read_npz(path)
        if first_bytes.startswith(GZIP_MAGIC) or is_idx(first_bytes[:4]):
            return _read_idx_pair(path)
    raise DataError(
        "this file is of no kind that can be read",
        where=path,
        got=f"a file that begins with the bytes {first_bytes.hex(' ') or '(none)'}",
        expected=KINDS,
        hint="save it from Python: np.save('data.npy', array)",
    )


def _read_npy(path: Path) -> NDArray[Any]:
    mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(mapped)


def samples_name(names: Sequence[str], wanted: str | None = None) -> str | None:
    """Which of several arrays or columns holds the samples; None where that is not clear.

    The one that is wanted, or the only one, or the only one that has a name of `SAMPLE_KEYS`.
    """
    found = [name for name in names if name == wanted] if wanted else names
    if len(found) > 1:
        found = [name for name in found if name.lower() in SAMPLE_KEYS]
    return found[0] if len(found) == 1 else None


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        keys = list(archive.files)
        label_keys = [key for key in keys if key.lower() in LABEL_KEYS]
        candidates = [key for key in keys if key not in label_keys] or keys
        chosen = samples_name(candidates)
        if chosen is None or len(label_keys) > 1:
            raise DataError(
                "which array of this archive holds the samples?" if keys else "an empty archive",
                where=path,
                got="the arrays " + ", ".join(keys) if keys else "no array",
                expected=f"one array, or one named {', '.join(SAMPLE_KEYS)}; "
                f"labels, if any, in {' or '.join(LABEL_KEYS)}",
                hint=f"python -c \"import numpy as np; a = np.load('{path}'); "
                "np.savez('data.npz', x=a['THE_KEY'])\"",
            )
        samples = archive[chosen]
        if not label_keys or label_keys == [chosen]:
            return samples, None
        return samples, _checked_labels(
            archive[label_keys[0]], samples, f"{path}, array {label_keys[0]}"
        )


def _read_idx_pair(path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    samples = read_idx(path)
    labels_path = labels_file_of(path)
    if labels_path is None:
        return samples, None
    with damage_reported(labels_path):
        return samples, _checked_labels(read_idx(labels_path), samples, labels_path)


def _checked_labels(
    labels: NDArray[Any], samples: NDArray[Any], where: object
) -> NDArray[np.int64]:
    count = len(samples) if samples.ndim else 1
    if labels.dtype.kind not in "iu" or labels.shape not in ((count,), (count, 1)):
        raise DataError(
            "the labels do not fit the samples",
            where=where,
            got=f"{labels.dtype} of shape {list(labels.shape)}",
            expected=f"{count} integers, one a sample",
            hint="leave the labels out, or save them as integers in the order of the samples",
        )
    return labels.reshape(count).astype(np.int64)


def _missing(path: Path) -> DataError:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, 1)
    return DataError(
        "no such file or folder",
        where=path,
        got="nothing there" if path.parent.is_dir() else f"no folder {path.parent} either",
        expected=KINDS,
        hint=f"did you mean {path.with_name(near[0])}?" if near else f"ls {path.parent}",
    )


@contextmanager
def damage_reported(path: str | Path) -> Iterator[None]:
    """Whatever numpy, zipfile and gzip say of a damaged file becomes a DataError."""
    try:
        yield
    except DataError:
        raise
    # Besides their own, damage makes these parsers raise SyntaxError, TokenError, MemoryError, ...
    except Exception as error:
        raise DataError(
            "the file cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a whole file of plain numbers, no pickled objects",
            hint="fetch it again, or save it from Python: np.save('data.npy', array)",
        ) from error
