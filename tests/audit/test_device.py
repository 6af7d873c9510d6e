"""Device memory, on a machine with a recorded GPU: engines are given one address a weight."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "runtimes"))
from recorded_machine import recorded_machine, runnable_bundle

from tiedexport import device, trt
from tiedexport.audit.device import examine
from tiedexport.audit.given import Given
from tiedexport.bundle import Bundle
from tiedexport.results import Availability
from tiedexport.results.ties import Stage


def rows_of(bundle: Bundle) -> list[Stage]:
    return examine(Given(bundle=bundle), [])


def test_engines_that_share_a_buffer_hold_one_copy(tmp_path, monkeypatch):
    gpu = recorded_machine(monkeypatch)
    bundle = runnable_bundle(gpu, tmp_path / "model.tied")
    ran = [row for row in rows_of(bundle) if row.status != "not run"]
    assert [row.status for row in ran] == ["one copy"]
    names = {tie.name for tie in ran[0].ties}
    assert names == {tie.weight for tie in bundle.manifest.ties}
    assert all(
        (tie.copies[0].file, tie.copies[0].offset) == ("device", None) for tie in ran[0].ties
    )
    assert gpu.memory.blocks == {}


def test_engines_with_a_buffer_each_hold_copies(tmp_path, monkeypatch):
    gpu = recorded_machine(monkeypatch)
    bundle = runnable_bundle(gpu, tmp_path / "model.tied")
    monkeypatch.setattr(
        device.DeviceWeights,
        "of",
        classmethod(lambda cls, gpu, path, sha256, arrays: cls(gpu, arrays)),
    )
    upload = device.Engine.__init__

    def apart(engine, gpu, plan, serialised, weights):
        upload(engine, gpu, plan, serialised, device.DeviceWeights(gpu, weights.arrays))

    monkeypatch.setattr(device.Engine, "__init__", apart)
    (row,) = [row for row in rows_of(bundle) if row.status != "not run"]
    assert row.status == "copies"
    assert {len(tie.copies) for tie in row.ties} == {len(bundle.manifest.stages)}


@pytest.mark.parametrize(
    ("available", "weights", "words"),
    [(False, "shared", "no driver here"), (True, "baked", "hold their weights inside")],
)
def test_a_row_that_did_not_run_says_why(available, weights, words, tmp_path, monkeypatch):
    gpu = recorded_machine(monkeypatch)
    bundle = runnable_bundle(gpu, tmp_path / "model.tied", weights=weights)
    if not available:
        monkeypatch.setattr(trt, "driver", lambda: Availability(False, reason="no driver here"))
    rows = rows_of(bundle)
    assert all(row.status == "not run" for row in rows)
    assert words in " ".join(row.reason for row in rows)
