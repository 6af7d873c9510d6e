"""The files that were given: graphs and the external data that they name."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiedexport import onnx_files
from tiedexport.errors import UsageError
from tiedexport.retie.protos import tensors_in

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Given:
    """The files that were given, and the external data that they name.

    Attributes:
        paths: the graphs.
        data: graph → location, as the graph names it → data file.
    """

    paths: tuple[Path, ...]
    data: dict[Path, dict[str, Path]]

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Given:
        """Look the data files up.

        Raises:
            GraphError: one of them is no sound ONNX file.
        """
        return cls(tuple(paths), {path: _data_files(path) for path in paths})

    @property
    def names(self) -> list[str]:
        """What the graphs are called where they are written, in the same order."""
        return written_names(self.paths)

    @property
    def files(self) -> set[Path]:
        """All files, each once, resolved."""
        data = [file for files in self.data.values() for file in files.values()]
        return {file.resolve() for file in (*self.paths, *data)}

    @property
    def is_scattered(self) -> bool:
        """Whether several graphs have several data files, which one could replace."""
        return len(self.paths) > 1 and len(self.files) > len(self.paths) + 1

    @property
    def size_bytes(self) -> int:
        """All that they take, each file once."""
        return sum(file.stat().st_size for file in self.files)

    def copy(self, folder: Path) -> list[Path]:
        """Byte for byte copies of graphs and their data, which goes where its graph looks for it.

        Raises:
            UsageError: two graphs have different data of one name.
        """
        targets: dict[Path, Path] = {}
        for path, own in zip(self.paths, self.names, strict=True):
            for name, file in {own: path, **self.data[path]}.items():
                source = file.resolve()
                if targets.setdefault(folder / name, source) != source:
                    raise UsageError(
                        "nothing can be mended, and copies of the inputs would have one name",
                        where=name,
                        got=f"{targets[folder / name]} and {source}",
                        hint="give each file alone",
                    )
        for target, source in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return list(targets)


def written_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file in one folder: its own, behind its folders' where others have it too.

    All graphs lie in one folder as a data file has to lie beside or below its graph.
    """
    parts = [Path(os.path.abspath(path)).parts[1:] for path in paths]  # a link keeps its own name
    names = []
    for own in parts:
        length = 1
        namesakes = [other for other in parts if other[-1:] == own[-1:]]
        while length < len(own) and len({other[-length:] for other in namesakes}) < len(namesakes):
            length += 1
        names.append("-".join(own[-length:]))
    return names


def _data_files(path: Path) -> dict[str, Path]:
    proto = onnx_files.to_proto(onnx_files.load(path))
    locations = {
        entry.value
        for tensor in tensors_in(proto)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return {name: path.parent / name for name in sorted(locations - {str(path.resolve())})}
