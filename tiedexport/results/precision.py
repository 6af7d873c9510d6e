"""Why `build --precision auto` computes each tied weight in the type that it chose."""

from __future__ import annotations

from msgspec import Struct

from tiedexport.spec import Precision


class TensorRange(Struct, frozen=True):
    """What one tensor holds: a weight, a bias, the input, or the output of a layer on all samples.

    Attributes:
        largest: the largest magnitude.
        rms: root mean square.
        underflow: share of its numbers, of those that are not zero, which fp16 would store as
            subnormals or as zero.
    """

    name: str
    largest: float
    rms: float
    underflow: float


class TieChoice(Struct, frozen=True):
    """The type of one tie: of a weight, of every layer that uses it, and of their biases.

    Attributes:
        weights: names that cannot be of different types: one weight, or several that share a bias.
        precision: the type chosen.
        reason: why, in words and figures.
        peak: the largest magnitude that its layers meet, partial sums and margin included.
        underflow: the share of all its tensors.
        errors: type → predicted error of the model's outputs if this tie alone had that type, as a
            multiple of what is acceptable; not of types that it would overflow.
        tensors: everything that would be of another type if it were.
    """

    weights: tuple[str, ...]
    precision: Precision
    reason: str
    peak: float
    underflow: float
    errors: dict[Precision, float]
    tensors: tuple[TensorRange, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.weights)}  {self.precision}: {self.reason}"
