"""The bench of a tied model beside its untied twin: same training, whole figures, a table."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from small_training import SmallTraining

from tiedexport.rating import psnr_db
from tiedexport.runtimes import runtime_named

BENCH = Path(__file__).parent.parent / "bench"
WIDTHS = (16, 10, 4)


@pytest.fixture(scope="module")
def kept(tmp_path_factory, quick_export):
    """The figures of a quick run, as they were kept."""
    folder = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        import record
        import tied_vs_untied

        patch.setattr(record, "RESULTS", folder)
        recipe = SmallTraining(folder, training={"epochs": 2, "batch_size": 16}).recipe()
        tied_vs_untied.main([str(recipe), "--quick", "--folder", str(folder / "kept")])
        (file,) = folder.glob("*.json")
        yield json.loads(file.read_bytes())


def test_the_twin_differs_in_its_decoder_s_weights_alone(kept):
    figures = kept["tied_vs_untied"]["figures"]
    tied, untied = figures["tied"], figures["untied"]
    weights = sum(a * b for a, b in pairwise(WIDTHS))
    assert untied["parameters"] - tied["parameters"] == weights
    # Adam keeps two numbers of each parameter, and a step count of each tensor.
    assert untied["optimizer_bytes"] - tied["optimizer_bytes"] == 2 * 4 * weights + 2 * 4
    for precision, size in {"fp32": 4, "fp16": 2, "bf16": 2}.items():
        grown = untied["weights_bytes"][precision] - tied["weights_bytes"][precision]
        assert 0 <= grown - size * weights < 4096  # names, and beginnings on lines of cache
    assert untied["bundle_bytes"] > tied["bundle_bytes"]


def test_quality_and_speed_of_every_runtime_are_there_or_why_not(kept):
    figures = kept["tied_vs_untied"]["figures"]
    native = runtime_named("native").availability().available
    for kind in ("tied", "untied"):
        quality = figures[kind]["quality"]
        assert set(quality) == {
            f"{runtime} {precision}"
            for runtime in ("native", "onnxruntime")
            for precision in ("fp32", "fp16", "bf16")
        }
        assert figures[kind]["test_psnr_db"] == psnr_db(figures[kind]["test_rmse"])
        fp32 = quality["onnxruntime fp32"]
        assert fp32["test_rmse"] == pytest.approx(figures[kind]["test_rmse"], rel=1e-4)
        assert ("not_run" in quality["native fp32"]) is not native
        for batch in ("batch 1", "batch 64"):
            ran = {name for name, one in quality.items() if "not_run" not in one}
            here = figures["latency"][batch]
            assert {name for name in here if name.endswith(f" {kind}")} == {
                f"{name} {kind}" for name in ran
            }
    for batch in figures["latency"].values():
        for name, one in batch.items():
            assert one["median_s"] > 0
            if name.endswith(" untied"):
                assert one["speed"] == pytest.approx(1.0)
    assert figures["step"]["ratio"] > 0
