"""Inputs that are folders of images."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.data.images import colour_planes, labels_of, picture_paths, read_picture
from tiedexport.encode.rows import Intake, Rows, blocks, checked_rows, merged
from tiedexport.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray


class Pictures:
    """A `Source` of the pictures below a folder, in sorted order of their paths.

    They have the size of the first; a grey one counts as coloured where the stage takes colours.

    Raises:
        DataError: there is none, or the first cannot be read.
        ArrayError: the first does not fit the stage.
        MissingRuntimeError: Pillow is not installed.
    """

    kind = "images"
    cuts: tuple[int, ...] | None = None

    def __init__(self, path: str, intake: Intake) -> None:
        self.path, self._intake = path, intake
        self._paths = picture_paths(Path(path))
        self.digest = _digest(self._paths)
        self._labels = labels_of(Path(path), self._paths)
        self.rows = len(self._paths)
        picture = read_picture(self._paths[0])
        self._coloured = (
            int(np.prod(intake.spec.element_shape)) == picture.shape[0] * picture.shape[1] * 3
        )
        self._shape = self._planes(picture).shape
        checked_rows(0, np.empty((0, *self._shape), np.uint8), {}, intake, str(self._paths[0]))

    def _planes(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return colour_planes(picture) if self._coloured else picture

    def schema(self) -> pa.Schema:
        """The name of the file, and its subfolder's number where all are in subfolders."""
        import pyarrow as pa

        label = [] if self._labels is None else [("label", pa.int64())]
        return pa.schema([("file", pa.string()), *label])

    def read(self, start: int, stop: int, block: int) -> Iterator[Rows]:
        """Called as `Source` says."""
        for first, last in blocks(start, stop, block):
            pixels = np.zeros((last - first, *self._shape), np.uint8)
            rejected = {}
            for i, path in enumerate(self._paths[first:last]):
                try:
                    picture = self._planes(read_picture(path))
                except DataError as error:
                    rejected[i] = f"{error.what}: {error.got}"
                    continue
                if picture.shape == self._shape:
                    pixels[i] = picture
                else:
                    rejected[i] = f"shape {list(picture.shape)}, not {list(self._shape)}"
            columns: dict[str, Any] = {"file": [str(path) for path in self._paths[first:last]]}
            if self._labels is not None:
                columns["label"] = self._labels[first:last]
            yield merged(checked_rows(first, pixels, columns, self._intake, self.path), rejected)


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()
