"""`run`: one array through one stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.atomic import replacing
from tiedexport.data.inputs import stage_input
from tiedexport.errors import DataError, UsageError
from tiedexport.session import open_session
from tiedexport.spec import STAGE_OF_VERB

if TYPE_CHECKING:
    from tiedexport.runtimes import Memory


def run(
    bundle: str | Path,
    verb: str,
    input: str | Path,
    output: str | Path,
    *,
    runtime: str = "auto",
    precision: str | None = None,
    memory: Memory = "shared",
    threads: int | None = None,
) -> Path:
    """Read an `.npy` array, run it through a stage, and write the result as `.npy`, atomically.

    Args:
        bundle: path of the bundle.
        verb: "encode", "decode" or "reconstruct".
        input: an `.npy` file [n, ...] of the stage's input; samples may have their original shape
            (28×28 for a model of 784 inputs) and any floating type, which is converted; uint8
            images are divided by 255, as they are for training.
        output: the `.npy` file to write.
        runtime: a name that `tiedexport doctor` lists, or "auto" for the best one here.
        precision: "fp32", "fp16" or "bf16"; by default the runtime's best that the bundle holds.
        memory: "shared" (one copy of each weight) or "packed" (the runtime's fastest layout).
        threads: CPU threads to compute with; by default the runtime's own choice.

    Returns:
        The path that was written.

    Raises:
        DataError: the input is no array file, or its numbers are no floating-point numbers.
        ArrayError: its shape does not fit the stage.
        UsageError: an argument names nothing that exists.
        MissingRuntimeError: no runtime can run this here.
    """
    if verb not in STAGE_OF_VERB:
        raise UsageError("unknown verb", got=repr(verb), expected=", ".join(STAGE_OF_VERB))
    array = _read(Path(input))
    with open_session(
        bundle, runtime=runtime, precision=precision, memory=memory, threads=threads
    ) as session:
        spec = session.bundle.manifest.stage(STAGE_OF_VERB[verb]).inputs[0]
        shaped = stage_input(array, spec, input, images=verb != "decode")
        result = session.run(verb, shaped)
    with replacing(Path(output)) as file:
        np.save(file, result)
    return Path(output)


def _read(path: Path) -> np.ndarray:
    """Map an array; what its header declares takes no memory."""
    try:
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))
    # Damage also makes numpy raise SyntaxError, TokenError, MemoryError, OverflowError, ...
    except Exception as error:
        raise DataError(
            "not an .npy array", where=path, got=str(error), hint="numpy.save writes one"
        ) from error
