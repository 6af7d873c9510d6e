"""What a row of the audit's table tells first."""

from __future__ import annotations

import numpy as np

from tiedexport.audit.table import measured
from tiedexport.spec import Tie
from tiedexport.stored import in_memory


def test_declared_ties_come_before_copies_of_what_is_none() -> None:
    random = np.random.default_rng(0)
    bias, weight, whole = (random.standard_normal(n).astype(np.float32) for n in (400, 300, 200))
    stored = [
        in_memory(name, array.copy())
        for name, array in {
            "bias": bias, "bias again": bias, "whole": whole, "weight again": weight,
            "weight": weight,
        }.items()
    ]  # fmt: skip
    declared = [Tie("weight", ("encoder", "decoder")), Tie("whole", ("encoder", "decoder"))]
    row = measured("ONNX files", "", stored, declared=declared)
    names = [{copy.name for copy in tie.copies} for tie in row.ties]
    assert names == [{"weight", "weight again"}, {"whole"}, {"bias", "bias again"}]
