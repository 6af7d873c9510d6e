"""TensorRT's parser loses part of a bias unless the graph keeps it apart."""

from __future__ import annotations

import pytest
from conftest import make_checkpoint, needs_rtx, save_checkpoint

from tiedexport.bundle import open_bundle
from tiedexport.export import build
from tiedexport.passes import whole_bias
from tiedexport.spec import Precision
from tiedexport.verify import verify

MODEL = {"image": [9, 9], "channels": [1, 3], "kernel": 2, "padding": 0}
"""One pixel a side is left over by the stride: output_padding 1, padding 0."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, quick_export):
    path = tmp_path_factory.mktemp("left-over") / "conv.pt"
    save_checkpoint(path, make_checkpoint("conv", MODEL))
    return path


def judged(checkpoint, bundle):
    built = build(checkpoint, bundle, precision="fp32,fp16", target=("rtx:sm89",))
    assert built.passed, built.engines
    return verify(open_bundle(bundle), runtime=["tensorrt_network"])


@needs_rtx
def test_a_kernel_that_is_an_input_leaves_no_edge_without_its_bias(checkpoint, tmp_path):
    result = judged(checkpoint, tmp_path / "conv.tied")
    assert [row.reason for row in result.comparisons if row.status != "passed"] == []
    assert {row.precision for row in result.comparisons} == {Precision.FP32, Precision.FP16}


@needs_rtx
def test_without_the_pass_the_parser_loses_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_bias, "apply", lambda model, plan: model)
    result = judged(checkpoint, tmp_path / "conv.tied")
    strayed = {row.stage for row in result.comparisons if row.status == "failed"}
    assert strayed == {"decoder", "autoencoder"}, "mended: the pass can go"
