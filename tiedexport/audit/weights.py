"""The stage of checkpoints: state dicts and safetensors, by their bytes in the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport.audit.table import measured, not_run, shown
from tiedexport.bundle import safetensors_header
from tiedexport.errors import CheckpointError
from tiedexport.results.ties import STAGE_NAMES, Stage
from tiedexport.stored import FileContent, Place, StoredTensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tiedexport.audit.given import Given
    from tiedexport.spec import Tie

_STAGE = STAGE_NAMES[1]
_NUMPY_TYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?", "C64": "c8",
}  # fmt: skip
_ML_TYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


def examine(given: Given, _before: Sequence[Stage]) -> list[Stage]:
    """One row over all files: a sharded checkpoint is one.

    Raises:
        BadInputError: a file is damaged, holds no tensor, or is unsafe to open.
    """
    if not given.weights:
        return [not_run(_STAGE, "no checkpoint was given; give the .pt or .safetensors as well")]
    tensors, declared = read(given.weights)
    subject = ", ".join(shown(str(path)) for path in given.weights)
    return [measured(_STAGE, subject, tensors, declared=declared)]


def read(paths: Iterable[Path]) -> tuple[list[StoredTensor], list[Tie] | None]:
    """Every tensor of the files, and the ties that a checkpoint of ours declares.

    Raises:
        BadInputError: a file is damaged, holds no tensor, or is unsafe to open.
    """
    tensors: list[StoredTensor] = []
    declared: list[Tie] | None = None
    for path in paths:
        if path.suffix.lower() == ".safetensors":
            found = safetensors(path)
        else:
            found, ties = _checkpoint(path)
            declared = declared if ties is None else [*(declared or ()), *ties]
        if not found:
            raise CheckpointError("no tensor in it", where=path, expected="a state dict")
        tensors += found
    return tensors, declared


def safetensors(path: Path) -> list[StoredTensor]:
    """Every tensor of a safetensors file; those of an unknown type as their bytes.

    Raises:
        BundleError: it is none, or damaged.
    """
    header, start = safetensors_header(path)
    return [_entry(path, name, entry, start) for name, entry in header.items() if _length(entry)]


def _length(entry: dict[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    return int(end - begin)


def _entry(path: Path, name: str, entry: dict[str, Any], start: int) -> StoredTensor:
    dtype, shape = _dtype(entry["dtype"]), tuple(entry["shape"])
    if dtype is None:
        dtype, shape = np.dtype(np.uint8), (_length(entry),)
    offset, file = start + entry["data_offsets"][0], path.resolve()
    place = Place(str(file), offset, _length(entry))
    content = FileContent(file, offset, dtype)
    return StoredTensor(name, place, dtype, shape, content, home=str(path))


def _dtype(name: str) -> np.dtype[Any] | None:
    if name in _NUMPY_TYPES:
        return np.dtype(_NUMPY_TYPES[name])
    if name not in _ML_TYPES:
        return None
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _ML_TYPES[name]))
    return dtype


def _checkpoint(path: Path) -> tuple[list[StoredTensor], list[Tie] | None]:
    """The tensors of a state dict, ours or bare, and the ties that ours declares."""
    from tiedexport import checkpoint
    from tiedexport.tensors import MappedFile, readable, stored_tensor

    payload = checkpoint.load_safely(path)
    declared = None
    if payload.get("format") == checkpoint.FORMAT:
        loaded = checkpoint.load_checkpoint(path)
        declared = list(loaded.module().ties)
        payload = dict(loaded.state)
    mapped = MappedFile(path)
    return [
        stored_tensor(name, tensor, mapped)
        for name, tensor in _tensors(payload)
        if readable(tensor)
    ], declared


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor in dicts and lists of any depth, named by the way to it."""
    from torch import Tensor

    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _tensors(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _tensors(inner, f"{name}.{index}")
