"""`verify --layers` of every runtime here, and what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport.runtimes import all_runtimes
from tiedexport.verify import verify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tiedexport.bundle import Bundle
    from tiedexport.results import VerifyResult

STAGES = ("encoder", "decoder", "autoencoder")
AVAILABLE = tuple(name for name, row in all_runtimes().items() if row.availability().available)


def layered(
    bundle: Bundle | Path, precision: str, runtime: Sequence[str] = AVAILABLE
) -> VerifyResult:
    return verify(bundle, runtime=runtime, precision=precision, layers=True)


def runtimes_that_show(result: VerifyResult) -> set[str]:
    return {row.runtime for row in result.layers if row.layer}
