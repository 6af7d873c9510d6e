"""What the live page and its server say to each other, as JSON; arrays are base64 of float32.

Numbers of an array are little-endian and in C order: exact, and a third of their decimal text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import Struct

from tiedexport.errors import ArrayError

if TYPE_CHECKING:
    from tiedexport.spec import Precision, TensorSpec

_WIRE = np.dtype("<f4")
_OTHER_FIELDS_BYTES = 1024


class Ask(Struct, frozen=True, forbid_unknown_fields=True):
    """One sample, or one code, for one runtime in one precision."""

    runtime: str
    precision: str
    values: bytes


class Answer(Struct, frozen=True, omit_defaults=True):
    """What a runtime made of it.

    Attributes:
        reconstruction: float32 [sample elements].
        latency_s: of the one call that made the reconstruction, by one thread.
        code: float32 [code elements]; empty where the code was given.
    """

    reconstruction: bytes
    latency_s: float
    code: bytes = b""


class Row(Struct, frozen=True):
    """A runtime in one precision, or a runtime that cannot run here at all, and then why."""

    runtime: str
    precision: Precision | None
    reason: str = ""
    remark: str = ""


class Picture(Struct, frozen=True):
    """How the elements of a sample lie in a picture: [channels, height, width]."""

    height: int
    width: int
    channels: int


class Model(Struct, frozen=True):
    """What the page shows before anything runs.

    Attributes:
        picture: None where samples are no pictures.
        rows: every runtime; `first` is the place of the one that "auto" takes.
        lowest, highest: of each latent over the golden codes, float32 [code elements].
        by_variance: latents over the golden codes, the largest variance first.
        samples: golden inputs, float32 [sample elements] each.
        report: whether there is a report to show.
    """

    name: str
    sample_shape: tuple[int, ...]
    code_shape: tuple[int, ...]
    parameters: int
    ties: int
    picture: Picture | None
    rows: tuple[Row, ...]
    first: int
    lowest: bytes
    highest: bytes
    by_variance: tuple[int, ...]
    samples: tuple[bytes, ...]
    report: bool


class Refusal(Struct, frozen=True):
    """Why there is no answer, in the words of an error."""

    reason: str
    got: str = ""
    expected: str = ""
    next: str = ""


def to_wire(values: np.ndarray) -> bytes:
    """An array of any shape and floating type as the page reads it."""
    return np.ascontiguousarray(values, _WIRE).tobytes()


def from_wire(values: bytes, spec: TensorSpec) -> np.ndarray:
    """What the page sent as one element of a stage's input, [1, ...] in its type.

    Raises:
        ArrayError: another number of elements, or NaN, or more than the type holds.
    """
    count = int(np.prod(spec.element_shape))
    if len(values) != count * _WIRE.itemsize:
        raise ArrayError(
            "the array does not fit the stage",
            got=f"{len(values)} bytes",
            expected=f"{count} numbers in float32, {count * _WIRE.itemsize} bytes",
        )
    with np.errstate(over="ignore"):
        array = np.frombuffer(values, _WIRE).astype(spec.dtype.dtype)
    if not np.isfinite(array).all():
        raise ArrayError(
            "the array holds NaN, infinity, or more than its type can",
            got=f"{int((~np.isfinite(array)).sum())} of {count} numbers",
            expected=f"finite numbers in {spec.dtype}",
        )
    return array.reshape(1, *spec.element_shape)


def largest_ask_bytes(*specs: TensorSpec) -> int:
    """The longest JSON of an `Ask` that a page of ours sends for any of these inputs."""
    most = max(int(np.prod(spec.element_shape)) for spec in specs)
    return -(-most * _WIRE.itemsize // 3) * 4 + _OTHER_FIELDS_BYTES


def decode_ask(body: bytes) -> Ask:
    """The request in a body.

    Raises:
        ArrayError: it is none.
    """
    try:
        return msgspec.json.decode(body, type=Ask)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ArrayError(
            "not a request of this page",
            got=str(error),
            expected='{"runtime": "…", "precision": "…", "values": "base64 of float32"}',
        ) from error
