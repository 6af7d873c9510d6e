"""Inputs and outputs in Polygraphy's JSON, written and read by Polygraphy itself.

What `polygraphy run --save-outputs` writes can be judged here, and it can compare what is written
here: one runner for each runtime and precision, outputs under their ONNX names.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiedexport import atomic
from tiedexport.errors import DataError, MissingRuntimeError
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_RUNNER = re.compile(rf"(\S+) ({'|'.join(Precision)})(?: \((.*)\))?")
_MADE_BY_TORCH = ("Tensor", "__polygraphy_encoded_Tensor")
_HINT = (
    "write it with: polygraphy run GRAPH.onnx --load-inputs INPUTS.json --save-outputs FILE.json"
)


@dataclass(frozen=True)
class SavedRun:
    """What one runner made of the golden inputs.

    Attributes:
        runtime: the runner's name, without what follows.
        precision: what its name says that it computed in, or None.
        remark: what its name says beside it.
        outputs: by ONNX name, [n, *element_shape] of any floating type.
    """

    runtime: str
    precision: Precision | None
    outputs: Mapping[str, np.ndarray]
    remark: str = ""

    @property
    def name(self) -> str:
        """The runner's name: `onnxruntime fp16`, or `abacus fp16 (a remark)`."""
        remark = f"({self.remark})" if self.remark else None
        return " ".join(str(part) for part in (self.runtime, self.precision, remark) if part)


def require_polygraphy() -> None:
    """Before hours of work.

    Raises:
        MissingRuntimeError: Polygraphy is not installed.
    """
    try:
        import polygraphy.comparator
        import polygraphy.json  # noqa: F401
    except ImportError as error:
        raise MissingRuntimeError(
            "Polygraphy, whose files these are, cannot be imported",
            got=str(error),
            hint="pip install polygraphy",
        ) from error


def write_outputs(path: Path, runs: Iterable[SavedRun]) -> None:
    """For `polygraphy run --load-outputs`; bf16, which numpy's files know nothing of, as float32.

    Raises:
        MissingRuntimeError: Polygraphy is not installed.
        OSError: it cannot be written.
    """
    require_polygraphy()
    from polygraphy.comparator import RunResults

    results = RunResults()
    for run in runs:
        outputs = {name: _plain(array) for name, array in run.outputs.items()}
        results.add([outputs], runner_name=run.name)
    atomic.write(path, results.to_json().encode())


def write_inputs(path: Path, feeds: Mapping[str, np.ndarray]) -> None:
    """For `polygraphy run --load-inputs`: one call's inputs by name.

    Raises:
        MissingRuntimeError: Polygraphy is not installed.
        OSError: it cannot be written.
    """
    require_polygraphy()
    from polygraphy.json import to_json

    atomic.write(path, to_json([dict(feeds)]).encode())


def read_outputs(path: Path) -> tuple[SavedRun, ...]:
    """Every runner in a file of `--save-outputs`; nothing in it is unpickled.

    Raises:
        DataError: it is no such file, holds something else than one call of each runner, or
            outputs that are no numbers.
        MissingRuntimeError: Polygraphy is not installed.
    """
    require_polygraphy()
    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text, object_hook=_refuse_tensor)
        found = [
            (str(name), [dict(iteration.items()) for iteration in iterations])
            for name, iterations in _results(text).items()
        ]
    # Damage makes it raise whatever the broken part of the file is used for.
    except Exception as error:
        raise DataError(
            "not the outputs of a run, as Polygraphy saves them",
            where=path,
            got=str(error).partition("\n")[0] or type(error).__name__,
            expected="JSON of its RunResults with numpy arrays",
            hint=_HINT,
        ) from error
    if not found:
        raise DataError("no runner in the file", where=path, hint=_HINT)
    return tuple(_run(path, name, iterations) for name, iterations in found)


def _results(text: str) -> Any:
    from polygraphy.comparator import RunResults
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):  # what it prints, its exception says too
        return RunResults.from_json(text)


def _refuse_tensor(fields: dict[str, Any]) -> None:
    """Polygraphy leaves a torch tensor to torch.load, which unpickles."""
    marks = {fields.get("polygraphy_class"), *filter(fields.get, _MADE_BY_TORCH)}
    if not marks.isdisjoint(_MADE_BY_TORCH):
        raise ValueError("a pickled torch tensor, not an array")


def _run(path: Path, name: str, iterations: list[dict[str, Any]]) -> SavedRun:
    where = f"{path}: runner {name}"
    if len(iterations) != 1:
        raise DataError(
            "not one call of a runner",
            where=where,
            got=f"{len(iterations)} calls",
            expected="one, on the inputs of tiedexport verify --save-inputs",
            hint=_HINT,
        )
    for output, array in iterations[0].items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            got = getattr(array, "dtype", type(array).__name__)
            raise DataError("an output of no numbers", where=f"{where}: {output}", got=got)
    known = _RUNNER.fullmatch(name)
    if known is None:
        return SavedRun(name, None, iterations[0])
    return SavedRun(known[1], Precision(known[2]), iterations[0], known[3] or "")


def _plain(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == Precision.BF16.dtype else array
