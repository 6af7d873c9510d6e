"""What runs on a GPU, part by part: rows that take their turns among all others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from tiedexport.errors import MissingRuntimeError, TiedExportError
from tiedexport.measure.stability import bound_by
from tiedexport.measure.statistics import figures
from tiedexport.measure.turns import Budget, Row
from tiedexport.on_device.parts import PartsContender
from tiedexport.results.device import PARTS, DeviceTimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiedexport.bundle import Bundle
    from tiedexport.results import Latency
    from tiedexport.results.bench import Instability


@dataclass
class DeviceRow(Row):
    """The parts of a call of the row `of`, with or without a CUDA graph.

    All of them live in this process: the threads of the host that they use do not compute.
    """

    of: int = 0
    graph: bool = False
    parts: PartsContender | None = field(default=None, init=False)

    def fail(self, error: TiedExportError) -> None:
        """Take no more part in this heat; what it cannot run at all has not failed."""
        super().fail(error)
        if isinstance(error, MissingRuntimeError):
            self.status = "not run"

    def open(self, bundle: Bundle) -> None:
        """Load the model; where that does not work, say why."""
        try:
            self.parts = PartsContender(
                bundle, self.runtime, self.precision, self.memory, self.graph
            )
        except TiedExportError as error:
            self.fail(error)
        self.contender = self.parts

    def times(self, percentile: Sequence[float]) -> DeviceTimes:
        """What this heat told of it."""
        if self.parts is None or self.status != "passed":
            return DeviceTimes(self.graph, self.status, self.reason)
        seconds = np.concatenate([turn[self.untimed :] for turn in self.parts.turns_ns]) / 1e9
        found = {name: figures(seconds[:, i], percentile) for i, name in enumerate(PARTS)}
        return DeviceTimes(self.graph, "passed", "", len(seconds), found)


def open_device_rows(rows: Sequence[Row], bundle: Bundle) -> list[DeviceRow]:
    """Two for each row on a GPU, without and with a CUDA graph, or why not if it has not opened."""
    found = []
    for index, row in enumerate(rows):
        if row.on_gpu:
            for graph in (False, True):
                way = (row.runtime, row.precision, row.reason, row.memory)
                one = DeviceRow(*way, of=index, graph=graph)
                if row.contender is not None:
                    one.open(bundle)
                found.append(one)
    return found


def with_device_times(
    found: Sequence[Latency], on_device: Sequence[DeviceRow], budget: Budget
) -> list[Latency]:
    """The latencies of a heat, with the parts of those on a GPU, and warnings of what bounds them.

    Args:
        found: of all rows, in order, and of those on a device after them.
        on_device: after the same heat.
        budget: its percentiles are reported.
    """
    filled = []
    for index, row in enumerate(found[: len(found) - len(on_device)]):
        device = tuple(one.times(budget.percentile) for one in on_device if one.of == index)
        warnings = (*row.warnings, *(why for one in device for why in _bounds(one)))
        filled.append(structs.replace(row, device=device, warnings=warnings))
    return filled


def _bounds(one: DeviceTimes) -> tuple[Instability, ...]:
    if one.status != "passed":
        return ()
    compute_s, *beside_s = (
        one.parts[name].median_s for name in ("compute", "enqueue", "h2d", "d2h")
    )
    return bound_by(compute_s, *beside_s, graph=one.graph) if compute_s > 0 else ()
