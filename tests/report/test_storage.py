"""The account of bytes tells a bundle that keeps its ties from one that does not."""

from __future__ import annotations

from dataclasses import replace

import handmade
import pytest

from tiedexport.report.storage import SURPLUS_BYTES, Storage, bundle_size, storage

KEPT = Storage(handmade.FP32, 10 << 20, 10 << 20, (10 << 20) + 5000, 20 << 20, ())


def test_a_bundle_is_accounted_for_to_the_byte(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    fp32, fp16 = storage(bundle)
    assert fp32.needed_bytes == fp32.tensor_bytes == 221 * 4
    assert fp16.needed_bytes == fp16.tensor_bytes == 221 * 2
    graphs = 3 * len(b"placeholder")
    assert fp32.stored_bytes == bundle.weights_path(handmade.FP32).stat().st_size + graphs
    assert fp32.one_copy_a_use_bytes == (221 + 180) * 4
    assert fp32.holds
    assert fp16.holds


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"missing": ("layers.0.weight",)}, False),
        ({"tensor_bytes": 20 << 20}, False),
        ({"tensor_bytes": (10 << 20) - 4}, False),
        ({"stored_bytes": round(1.02 * (10 << 20))}, True),
        ({"stored_bytes": round(1.02 * (10 << 20)) + 2}, False),
    ],
)
def test_a_tie_holds_only_if_nothing_is_missing_doubled_or_hidden_in_a_graph(change, holds):
    assert replace(KEPT, **change).holds is holds


def test_a_tiny_model_may_have_graphs_larger_than_its_weights():
    tiny = replace(KEPT, needed_bytes=100, tensor_bytes=100, stored_bytes=100 + SURPLUS_BYTES)
    assert tiny.holds
    assert not replace(tiny, stored_bytes=101 + SURPLUS_BYTES).holds


def test_the_size_of_a_bundle_is_that_of_its_files(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    total = sum(file.stat().st_size for file in bundle.path.rglob("*"))
    assert bundle_size(bundle).startswith(f"{total / 1024:#.3g} KiB, no engines")
