"""`run`: one array through one stage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tiedexport.atomic import replacing
from tiedexport.data.pixels import channels_first, unit_interval
from tiedexport.errors import ArrayError, DataError, UsageError
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
    array = _read(Path(input), images=verb != "decode")
    with open_session(
        bundle, runtime=runtime, precision=precision, memory=memory, threads=threads
    ) as session:
        spec = session.bundle.manifest.stage(STAGE_OF_VERB[verb]).inputs[0]
        if array.shape[1:] != spec.element_shape:  # a code may look like an image
            array = channels_first(array)
        if array.ndim < 2 or math.prod(array.shape[1:]) != math.prod(spec.element_shape):
            raise ArrayError(
                "the array does not fit the stage",
                where=input,
                got=f"{array.dtype}{list(array.shape)}",
                expected=str(spec),
            )
        shaped = array.reshape(len(array), *spec.element_shape).astype(spec.dtype.dtype)
        result = session.run(verb, shaped)
    with replacing(Path(output)) as file:
        np.save(file, result)
    return Path(output)


def _read(path: Path, *, images: bool) -> np.ndarray:
    """Map an array of floating-point numbers; what its header declares takes no memory."""
    try:
        array = np.asarray(np.lib.format.open_memmap(path, mode="r"))
    # Damage also makes numpy raise SyntaxError, TokenError, MemoryError, OverflowError, ...
    except Exception as error:
        raise DataError(
            "not an .npy array", where=path, got=str(error), hint="numpy.save writes one"
        ) from error
    if images and array.dtype in (np.uint8, np.bool_):
        return unit_interval(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            "not an array of floating-point numbers",
            where=path,
            got=array.dtype,
            expected="float32, scaled as the training data was"
            + (", or images in uint8" if images else ""),
        )
    return array
