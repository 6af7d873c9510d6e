"""External data of an ONNX file: inside the model's folder, there, and long enough."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePosixPath

from tiedexport.errors import GraphError


class DataFolder:
    """The folder of a model: the only place from which its external data may come.

    Args:
        model: path of the ONNX file.
    """

    def __init__(self, model: Path) -> None:
        self._model, self._sizes = model, dict[str, int]()

    def check(self, tensor: str, entries: dict[str, str], size_bytes: int) -> None:
        """Check where a tensor of so many bytes says that it lies.

        Raises:
            GraphError: outside the folder, missing, too short, or of another length.
        """
        where = f"{tensor} in {self._model}"
        location = entries.get("location", "")
        if location not in self._sizes:
            self._sizes[location] = self._find(where, location)
        offset = _whole(where, "offset", entries.get("offset", "0"))
        length = _whole(where, "length", entries.get("length", str(size_bytes)))
        if length != size_bytes:
            raise GraphError(
                "external data of another size than the tensor's type and shape",
                where=where,
                got=f"{length} bytes",
                expected=f"{size_bytes} bytes",
            )
        if offset + length > self._sizes[location]:
            raise GraphError(
                "external data is too short",
                where=f"{where}, {location}",
                got=f"{self._sizes[location]} bytes",
                expected=f"{offset + length} bytes or more",
                hint="download or copy the file again",
            )

    def _find(self, where: str, location: str) -> int:
        """The size of a data file."""
        if not location or "\0" in location:
            raise GraphError("external data without a location", where=where, got=repr(location))
        folder = self._model.parent
        if PurePosixPath(location).is_absolute() or ".." in Path(location).parts:
            raise GraphError(
                "external data outside the model's folder",
                where=where,
                got=location,
                expected=f"a file in {folder}",
                hint="copy the model and its data into one folder, and export it there",
            )
        target = (folder / location).resolve()
        if not target.is_relative_to(folder.resolve()):
            files = shlex.join(map(str, (self._model, folder / location)))
            raise GraphError(
                "external data that is a link out of the model's folder",
                where=where,
                got=f"{location} → {target}",
                expected=f"a file in {folder}",
                hint=f"copy what the links lead to: cp -L {files} NEW_FOLDER/",
            )
        try:
            if not (folder / location).is_file():
                raise FileNotFoundError
            return (folder / location).stat().st_size
        except OSError as error:
            raise GraphError(
                "external data is missing",
                where=where,
                got=f"no file {folder / location}" + f" ({error})" * bool(str(error)),
                hint=f"put {location} beside the model",
            ) from error


def _whole(where: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise GraphError(
            f"external data with a malformed {key}", where=where, got=text, expected="a number"
        )
    return int(text)
