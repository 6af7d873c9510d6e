"""The torch rows: what a closed session frees, and the settings that CUDA computes with."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from conftest import inputs_of

from tiedexport import by_the_weight
from tiedexport.runtimes import Options, runtime_named
from tiedexport.runtimes import torch as runner
from tiedexport.session import open_session
from tiedexport.spec import Precision

if TYPE_CHECKING:
    from tiedexport.bundle import Bundle

MATMUL = torch.backends.cuda.matmul


def settings() -> tuple[object, ...]:
    return (
        torch.backends.cudnn.conv.fp32_precision,
        MATMUL.allow_fp16_reduced_precision_reduction,
        MATMUL.allow_bf16_reduced_precision_reduction,
    )


def test_a_closed_session_frees_the_module_though_a_bound_call_is_kept(dense_bundle: Bundle):
    session = open_session(dense_bundle, runtime="torch", threads=1)
    x = inputs_of(session, "encoder", 2)
    call = session.bind("encoder", x, np.empty((2, 7), np.float32))
    call()
    module = weakref.ref(session._gate._backend[0]._module)
    assert module() is not None
    session.close()
    gc.collect()
    assert module() is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tile_bytes", [1, 300, 1 << 20])  # a row, rows that do not divide, all
def test_a_product_by_tiles_is_summed_in_fp32_and_rounded_once(
    monkeypatch: pytest.MonkeyPatch, dtype, transposed, bias, tile_bytes
):
    monkeypatch.setattr(by_the_weight, "TILE_BYTES", tile_bytes)
    torch.manual_seed(0)
    units, features = 13, 20
    weight = (
        torch.randn(features, units).to(dtype).t()
        if transposed
        else torch.randn(units, features).to(dtype)
    )
    x = torch.randn(2, 3, features).to(dtype)
    offset = torch.randn(units).to(dtype) if bias else None
    exact = torch.nn.functional.linear(
        x.double(), weight.double(), None if offset is None else offset.double()
    )
    found = by_the_weight.linear(x, weight, offset)
    assert (found.dtype, found.shape) == (dtype, exact.shape)
    assert torch.all((found.double() - exact).abs() <= torch.finfo(dtype).eps * exact.abs() + 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tile_bytes", [1, 500, 1 << 20])
def test_a_transposed_convolution_by_tiles_is_summed_in_fp32_and_rounded_once(
    monkeypatch: pytest.MonkeyPatch, dtype, bias, tile_bytes
):
    monkeypatch.setattr(by_the_weight, "TILE_BYTES", tile_bytes)
    torch.manual_seed(0)
    weight = torch.randn(7, 3, 3, 3).to(dtype)
    x = torch.randn(2, 7, 5, 4).to(dtype)
    offset = torch.randn(3).to(dtype) if bias else None
    exact = torch.nn.functional.conv_transpose2d(
        x.double(), weight.double(), None if offset is None else offset.double(), 2, 1, 1
    )
    found = by_the_weight.conv_transpose2d(x, weight, offset, 2, 1, output_padding=1)
    assert (found.dtype, found.shape) == (dtype, exact.shape)
    # Half a spacing of the result, and what fp32 adds: torch's own loop is beyond that in fp16.
    spacing = torch.finfo(dtype).eps / 2 * exact.abs()
    assert torch.all((found.double() - exact).abs() <= spacing + 1e-5)


def test_products_go_by_tiles_exactly_where_torch_has_no_fast_kernel(
    dense_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    calls, tiles = [], by_the_weight._tiles
    monkeypatch.setattr(by_the_weight, "_tiles", lambda w: (calls.append(1), tiles(w))[1])
    for fast, products in ((True, 0), (False, 4)):
        monkeypatch.setattr(runner, "_has_fast_kernels", lambda precision, fast=fast: fast)
        with open_session(dense_bundle, runtime="torch", precision="fp16", threads=1) as session:
            session.reconstruct(dense_bundle.golden["input"])
        assert len(calls) == products


@pytest.mark.parametrize("model", ["dense", "conv"])
@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("fast", [True, False])
def test_a_kernel_is_said_to_be_stored_again_where_a_library_convolves(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch, model, precision, fast
):
    monkeypatch.setattr(runner, "_has_fast_kernels", lambda precision: fast)
    reason = runtime_named("torch").hidden_copies(bundles[model], precision)
    assert (reason is not None) == (model == "conv" and fast)
    assert runtime_named("torch-cuda").hidden_copies(bundles[model], precision) is None


def test_a_fake_cuda_session_computes_with_float32_sums_and_restores_the_settings(
    dense_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    import safetensors.torch

    load_file, tensor = safetensors.torch.load_file, torch.tensor
    monkeypatch.setattr(safetensors.torch, "load_file", lambda path, device: load_file(path))
    monkeypatch.setattr(torch, "tensor", lambda x, dtype, device: tensor(x, dtype=dtype))
    before, seen = settings(), []
    backend = runtime_named("torch-cuda").open(dense_bundle, Precision.FP32, Options())
    encode = backend._functions["encoder"]
    backend._functions["encoder"] = lambda x: (seen.append(settings()), encode(x))[1]
    stage = dense_bundle.manifest.stage("encoder")
    backend.run(stage, dense_bundle.golden["input"].astype(np.float32), None)
    assert seen == [("ieee", False, False)]
    assert settings() == before != seen[0]


def test_the_settings_come_back_whatever_they_were_and_whatever_fails():
    def fail_inside() -> None:
        with runner._float32_sums():
            assert settings() == ("ieee", False, False)
            raise KeyError("mine")

    before = settings()
    try:
        for allowed in (True, False):
            MATMUL.allow_fp16_reduced_precision_reduction = allowed
            with pytest.raises(KeyError):
                fail_inside()
            assert settings() == (before[0], allowed, before[2])
    finally:
        MATMUL.allow_fp16_reduced_precision_reduction = before[1]


def test_two_threads_never_restore_the_settings_under_each_other():
    before, seen = settings(), []
    start = threading.Barrier(2)

    def work() -> None:
        start.wait()
        for _ in range(50):
            with runner._float32_sums():
                seen.append(settings())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {("ieee", False, False)}
    assert len(seen) == 100
    assert settings() == before
