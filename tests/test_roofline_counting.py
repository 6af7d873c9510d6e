"""Bytes and operations of a stage follow from its layers, a tied weight counted once."""

from __future__ import annotations

import math

import handmade
import numpy as np
import pytest

from tiedexport.roofline.counting import work
from tiedexport.spec import Layer, Precision, StageSpec, TensorSpec

FP32 = Precision.FP32


def test_a_tied_weight_is_read_once_and_used_twice(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    pixels, code = handmade.SIDE**2, handmade.CODE
    for precision in (Precision.FP32, Precision.FP16):
        weights = bundle.weights(precision)
        found = work(bundle.manifest.stage("autoencoder"), weights, 8)
        weight_bytes = (pixels * code + pixels + code) * precision.itemsize
        assert found.weight_bytes == weight_bytes
        assert found.moved_bytes == weight_bytes + 8 * 2 * pixels * 4  # inputs and outputs in fp32
        assert found.operations == 2 * 2 * 8 * pixels * code


def test_an_encoder_reads_its_own_biases_only_and_works_half_as_much(tmp_path):
    bundle = handmade.bundle(tmp_path / "m.tied")
    weights, pixels, code = bundle.weights(FP32), handmade.SIDE**2, handmade.CODE
    found = work(bundle.manifest.stage("encoder"), weights, 3)
    assert found.weight_bytes == 4 * (pixels * code + code)
    assert found.moved_bytes == found.weight_bytes + 3 * 4 * (pixels + code)
    assert found.operations == 2 * 3 * pixels * code


def test_what_is_untied_is_read_twice(bundles):
    bundle = bundles["untied"]
    found = work(bundle.manifest.stage("autoencoder"), bundle.weights(FP32), 1)
    assert found.weight_bytes == 4 * (2 * 9 * 6 + 9 + 6)


@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
@pytest.mark.parametrize(("strides", "pads", "extra"), [((2, 1), (1, 0), (1, 0)), ((), (), ())])
def test_operations_of_convolutions_are_those_of_every_position(op, strides, pads, extra):
    """Against torch's own shapes."""
    import torch

    kernel = torch.zeros(5, 3, 3, 2)
    x = torch.zeros(1, 3 if op == "conv" else 5, 9, 6)
    settings = {"stride": strides or 1, "padding": pads or 0}
    if op == "conv":
        y = torch.nn.functional.conv2d(x, kernel, **settings)
    else:
        y = torch.nn.functional.conv_transpose2d(x, kernel, output_padding=extra or 0, **settings)
    layer = Layer(op, "w", strides=strides, pads=pads, output_padding=extra)
    sides = [TensorSpec(n, FP32, ("batch", *t.shape[1:])) for n, t in (("x", x), ("y", y))]
    # A convolution behind it works at every position that is left.
    layers = (layer, Layer("relu"), Layer("conv", "one"))
    stage = StageSpec("encoder", (sides[0],), (sides[1],), layers)
    weights = {"w": kernel.numpy(), "one": np.zeros((1, y.shape[1], 1, 1), np.float32)}
    positions = math.prod((y if op == "conv" else x).shape[2:])
    products = positions * kernel.numel() + y.numel()
    assert work(stage, weights, 2).operations == 2 * 2 * products


def test_a_convolution_s_output_shape_is_what_the_next_one_works_on(bundles):
    """Each stage's layers end in the shape that the manifest says."""
    bundle = bundles["conv"]
    weights = bundle.weights(FP32)
    parts = [work(bundle.manifest.stage(name), weights, 1) for name in ("encoder", "decoder")]
    whole = work(bundle.manifest.stage("autoencoder"), weights, 1)
    assert whole.operations == sum(part.operations for part in parts)
    # The decoder is the encoder's adjoint: the same products, the other way round.
    assert parts[0].operations == parts[1].operations
