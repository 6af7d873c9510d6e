"""What a written graph has to pass before anything runs it: onnx.checker, and an audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from tiedexport import copies, onnx_files
from tiedexport.errors import GraphError, TieBrokenError
from tiedexport.retie.forms import key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.stored import StoredTensor


def check_graphs(originals: Sequence[Path], written: Sequence[Path]) -> str:
    """Have onnx.checker read the results back, with shape inference and external data.

    Returns:
        What it says of inputs that it refuses as well; "" where it refuses none.

    Raises:
        GraphError: it refuses a result whose input it takes.
    """
    remarks = []
    for original, path in zip(originals, written, strict=True):
        if not (words := _refusal(path)):
            continue
        if not _refusal(original):
            raise GraphError(
                "onnx.checker refuses the mended graph; nothing was written",
                where=path.name,
                got=words,
                hint="please report this model: it should not happen",
            )
        remarks.append(f"onnx.checker refuses {original.name} as it was given: {words}")
    return "; ".join(remarks)


def _refusal(path: Path) -> str:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the wall: besides its own it lets protobuf's exceptions through
        return " ".join(str(error).split())[:300]
    return ""


def check_ties(written: Sequence[Path], left: set[tuple[str, str, str]]) -> None:
    """Look for copies in the written files anew.

    Args:
        written: graphs.
        left: `forms.key` of each tensor that was left on purpose.

    Raises:
        TieBrokenError: a copy that was not.
    """
    tensors = [
        tensor
        for path in written
        for tensor in onnx_files.stored_tensors(onnx_files.load(path), path)
    ]
    for group in copies.find(tensors):
        for copy in group.copies:
            if copy.tensor.place != group.original.place and not left & {
                _key(copy.tensor),
                _key(group.original),
            }:
                raise _untied(group.original, copy.tensor)


def _key(written: StoredTensor) -> tuple[str, str, str]:
    return key(written, Path(written.home).name)


def _untied(original: StoredTensor, copy: StoredTensor) -> TieBrokenError:
    return TieBrokenError(
        "a weight is still stored twice; nothing was written",
        where=f"{original.name} in {Path(original.home).name}",
        got=f"{copy.name} in {Path(copy.home).name}",
        expected="one copy",
        hint="please report this model: it should not happen",
    )
