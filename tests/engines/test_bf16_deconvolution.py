"""TensorRT-RTX builds no transposed convolution in bf16: refused before it is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import needs_rtx
from exported import Exported

from tiedexport.engines import EngineRequest, builder_for
from tiedexport.engines.tensorrt import TensorRTRTXBuilder
from tiedexport.errors import RuntimeFailedError, UsageError
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from pathlib import Path

FP32, FP16, BF16 = Precision
KERNEL = "layers.1.weight"

pytestmark = [needs_rtx, pytest.mark.usefixtures("quick_export")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder: Path = tmp_path_factory.mktemp("deconvolution")
    return Exported(folder, "conv", image=[12, 12], channels=[1, 3, 4])


def request_for(model: Exported, mode: str, **changes) -> EngineRequest:
    if mode == "one-plan":
        return model.halves(**changes)
    return (model.shared if mode == "shared" else model.baked)("decoder", **changes)


@pytest.mark.parametrize("target", ["rtx:sm80", "rtx:sm89", "rtx:sm120"])
@pytest.mark.parametrize("mode", ["shared", "baked", "one-plan"])
def test_it_is_refused_and_really_cannot_be_built(mode: str, target: str, model: Exported):
    """The second half fails when a version of TensorRT-RTX can: then the refusal has to go."""
    request = request_for(model, mode, target=target, precision=BF16)
    with pytest.raises(UsageError, match="no transposed convolution in bf16; build fp16"):
        builder_for(target).build(request)

    class Bold(TensorRTRTXBuilder):
        def refusal(self, request: EngineRequest) -> None:
            return None

    with pytest.raises(RuntimeFailedError, match=r"(?s)infer output types.*deconv"):
        Bold().build(request)


@pytest.mark.parametrize("mode", ["shared", "baked", "one-plan"])
@pytest.mark.parametrize("precision", [FP16, FP32])
def test_other_types_are_not_refused(mode: str, precision: Precision, model: Exported):
    request = request_for(model, mode, precision=precision)
    assert builder_for(request.target).refusal(request) is None
    assert len(builder_for(request.target).build(request).plan) > 1000


def test_convolutions_themselves_are_built_in_bf16(model: Exported):
    request = model.shared("encoder", precision=BF16)
    assert builder_for(request.target).refusal(request) is None
    assert len(builder_for(request.target).build(request).plan) > 1000


def test_a_kernel_that_is_kept_in_bf16_is_named(model: Exported):
    request = model.shared("decoder", precision=FP16, kept={KERNEL: BF16})
    reason = builder_for(request.target).refusal(request) or ""
    assert f"in bf16, and {KERNEL} is kept in bf16; tiedexport build model.pt" in reason
    request = model.shared("decoder", precision=FP16, kept={KERNEL: FP32})
    assert builder_for(request.target).refusal(request) is None
