"""The stage of device memory: what engines hold on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiedexport import trt
from tiedexport.audit.table import not_run
from tiedexport.results.ties import STAGE_NAMES, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.audit.given import Given

_STAGE = STAGE_NAMES[6]


def examine(given: Given, _before: Sequence[Stage]) -> list[Stage]:
    """A row that says what is missing."""
    return [not_run(_STAGE, trt.driver().why)]
