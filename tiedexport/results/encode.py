"""What `encode` did."""

from __future__ import annotations

from msgspec import Struct

from tiedexport.spec import Precision

ENCODE_SCHEMA = 1


class EncodeResult(Struct, frozen=True):
    """One call of `encode`, which may be one of several shards, or go on with an earlier one.

    Attributes:
        output: the folder of Parquet parts, or the .npy file.
        batch: rows computed at once.
        rows: of this call's shard in the inputs, those of earlier calls included.
        rows_before: those of them that an earlier call had done.
        rejected: those of them that could not be computed, each with its reason in `rejects`.
        rejects: the folder of the rejected rows; "" without any.
        parts: of this call's shard.
        parts_left: of all shards together that are not done yet.
        rows_per_s: of this call, from the first row read to the last one synced.
    """

    stage: str
    runtime: str
    precision: Precision
    batch: int
    rows: int
    rows_before: int
    rejected: int
    rejects: str
    parts: int
    parts_left: int
    rows_per_s: float | None = None
    output: str = ""
    engine: str = ""
    shard: str = ""
    seconds: float = 0.0
    schema: int = ENCODE_SCHEMA

    @property
    def complete(self) -> bool:
        """Whether every part of every shard is done."""
        return self.parts_left == 0
