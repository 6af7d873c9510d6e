"""Memory of fresh processes: what was asked, what was found, and what is on disk."""

from __future__ import annotations

import handmade
import msgspec
import pytest

from tiedexport.candidates import candidates
from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.footprint import Answer, Question, _measured, disk_bytes, footprint
from tiedexport.manifest import PlanRecord
from tiedexport.results.cold import Held
from tiedexport.spec import Precision

FP32, FP16, _ = Precision


@pytest.fixture
def bundle(tmp_path):
    return handmade.bundle(tmp_path / "m.tied")


def test_a_row_holds_what_the_process_told_and_what_was_seen_from_outside(bundle):
    asked = []

    def ask(question):
        asked.append(question)
        if question.precision is FP16:
            raise RuntimeFailedError("its process died, exit code -9")
        return Answer(Held(10, 5), Held(20, 15), Held(30, 25), None), 27

    rows = footprint(bundle, runtime=("onnxruntime",), threads=2, batch=8, ask=ask)
    fine, broken = rows
    assert (fine.base, fine.loaded, fine.ran) == (Held(10, 5), Held(20, 15), Held(30, 25))
    assert fine.peak_pss_bytes == 30  # no less than what the process itself saw
    assert (fine.batch, fine.threads, fine.device_bytes) == (8, 2, None)
    assert (broken.status, broken.reason) == ("failed", "its process died, exit code -9")
    assert [(q.threads, q.batch, q.on_gpu) for q in asked] == [(2, 8, False)] * 2


def test_files_are_those_of_the_precision_with_engines_in_place_of_graphs(bundle):
    size = {name: record.size_bytes for name, record in bundle.manifest.files.items()}
    graphs = sum(size[f"{stage}.onnx"] for stage in ("encoder", "decoder", "autoencoder"))
    for precision in (FP32, FP16):
        weights = size[f"weights.{precision}.safetensors"]
        assert disk_bytes(bundle, precision, "native") == weights + graphs
    plan = PlanRecord(
        "encoder.onnx", "encoder", FP16, "rtx:sm89", "tensorrt_rtx", "1.7", (89,), "baked", (), ""
    )
    bundle.manifest = msgspec.structs.replace(bundle.manifest, plans=(plan,))
    with_plan = size["weights.fp16.safetensors"] + size["encoder.onnx"]
    assert disk_bytes(bundle, FP16, "tensorrt_rtx") == with_plan
    assert disk_bytes(bundle, FP16, "native") > with_plan


def test_an_impossible_batch_is_refused(bundle):
    with pytest.raises(UsageError, match="positive"):
        footprint(bundle, batch=0)


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_process_measures_itself_before_and_after(dense_bundle, runtime):
    question = Question(str(dense_bundle.path), runtime, FP32, "shared", 1, 3, on_gpu=False)
    answer = _measured(question)
    for held in (answer.base, answer.loaded, answer.ran):
        assert 0 < held.private_bytes <= held.pss_bytes + (1 << 20)
    assert answer.device_bytes is None


def test_on_a_gpu_less_is_free_after_than_before(dense_bundle, monkeypatch):
    free = iter([900, 300])
    monkeypatch.setattr("tiedexport.footprint.memory_bytes", lambda: (next(free), 1000))
    question = Question(str(dense_bundle.path), "torch", FP32, "shared", 1, 3, on_gpu=True)
    assert _measured(question).device_bytes == 600


def test_a_real_process_grows_as_it_loads_and_runs(dense_bundle):
    rows = footprint(dense_bundle, runtime=("onnxruntime", "tensorrt"), batch=4)
    fine = next(row for row in rows if (row.runtime, row.precision) == ("onnxruntime", FP32))
    assert fine.status == "passed", fine.reason
    assert 0 < fine.base.private_bytes < fine.loaded.private_bytes <= fine.peak_pss_bytes
    assert fine.base.pss_bytes < fine.loaded.pss_bytes
    assert fine.peak_pss_bytes >= fine.ran.pss_bytes
    assert 0 < fine.disk_bytes < 1 << 20
    why_not = {c.runtime.name: c.reason for c in candidates(dense_bundle, ("tensorrt",))}
    for row in rows:
        if why_not.get(row.runtime):
            assert (row.status, row.reason) == ("not run", why_not[row.runtime])
