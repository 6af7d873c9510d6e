"""Whatever way a layer is written, it is read as the layer that it is, or refused by name."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tiedexport.bundle import open_bundle
from tiedexport.export import build
from tiedexport.foreign import checkpoint
from tiedexport.foreign.brought import Asked
from tiedexport.spec import Layer
from tiedexport.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from tiedexport.foreign.brought import Brought

    Way = Callable[[Tensor, Tensor, Tensor], Tensor]


pytestmark = pytest.mark.usefixtures("quick_export")


class Written(nn.Module):
    """Nested ties; `ways` encode, given x, a weight and a bias, and `back` decode."""

    def __init__(self, ways: list[Way], back: list[Way]) -> None:
        super().__init__()
        widths = range(20, 20 + len(ways) + 1)[::-1]
        pairs = list(pairwise(widths))
        self.weights = nn.ParameterList(torch.randn(out, into) for into, out in pairs)
        self.b = nn.ParameterList(torch.randn(out) for _, out in pairs)
        self.c = nn.ParameterList(torch.randn(into) for into, _ in pairs)
        self.input_shape = (widths[0],)
        self._ways, self._back = ways, back

    def forward(self, x: Tensor) -> Tensor:
        layers = list(zip(self.weights, self.b, self.c, self._ways, self._back, strict=True))
        for weight, b, _, way, _ in layers:
            x = torch.relu(way(x, weight, b))
        for weight, _, c, _, back in reversed(layers):
            x = back(x, weight, c)
        return x


def read(module: nn.Module, *shape: int) -> Brought:
    return checkpoint(module, Asked(input_shape=shape or None))


def layers_of(brought: Brought) -> list[str]:
    return [layer.op for layer in brought.checkpoint.config.layers]


# Dense layers.

ENCODING: list[Way] = [
    functional.linear,
    lambda x, w, b: x @ w.t() + b,
    lambda x, w, b: b + x @ w.T,
    lambda x, w, b: torch.addmm(b, x, w.mT),
    lambda x, w, b: functional.linear(x, w.t().t(), b),
    lambda x, w, b: torch.mm(x, w.permute(1, 0)).add_(b),
]
DECODING: list[Way] = [
    lambda z, w, c: functional.linear(z, w.t(), c),
    lambda z, w, c: z @ w + c,
    lambda z, w, c: torch.addmm(c, z, w),
    lambda z, w, c: c + torch.matmul(z, w),
    lambda z, w, c: functional.linear(z, w.transpose(0, 1)) + c,
    lambda z, w, c: torch.mm(z, w).add_(c),
]


def test_every_way_of_writing_a_dense_layer_is_one_layer_with_its_bias():
    config = read(Written(ENCODING, DECODING)).checkpoint.config
    encoder, decoder = (
        config.layers[: config.encoder_layers],
        config.layers[config.encoder_layers :],
    )
    assert [layer.op for layer in encoder] == ["dense", "relu"] * len(ENCODING)
    for i, layer in enumerate(encoder[::2]):
        assert layer == Layer("dense", f"weights.{i}", f"b.{i}")
    for i, layer in enumerate(reversed(decoder)):
        assert layer == Layer("dense", f"weights.{i}", f"c.{i}", transposed=True)


def test_a_square_weight_used_the_same_way_twice_is_tied_without_a_transpose():
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 5))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weight.t()).tanh() @ self.weight.t()

    config = read(Square(), 5).checkpoint.config
    assert [layer.transposed for layer in config.layers if layer.weight] == [False, False]


def test_every_activation_is_known_as_function_and_as_module():
    functions = [torch.relu, functional.gelu, torch.tanh, torch.sigmoid]
    modules = [nn.ReLU(), nn.GELU(), nn.Tanh(), nn.Sigmoid()]
    ways = [lambda x, w, b, f=f: f(functional.linear(x, w, b)) for f in functions]
    back = [lambda z, w, c, f=f: f(functional.linear(z, w.t(), c)) for f in modules]
    ops = layers_of(read(Written(ways, back)))
    assert [op for op in ops if op != "dense"] == [
        "relu", "relu", "gelu", "relu", "tanh", "relu", "sigmoid", "relu",
        "sigmoid", "tanh", "gelu", "relu",
    ]  # fmt: skip


# Convolutions.


class ConvDense(nn.Module):
    """Convolution, flattening, a dense code, and all the way back."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=bias)
        self.dense = nn.Linear(4 * 4 * 3, 5)
        self.back = nn.ConvTranspose2d(
            4, 1, 3, stride=2, padding=1, output_padding=(1, 0), bias=bias
        )
        self.back.weight = self.conv.weight
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv(x)).flatten(1)
        h = functional.linear(self.dense(self.drop(h)), self.dense.weight.t())
        return torch.sigmoid(self.back(torch.relu(h).view(-1, 4, 4, 3)))


def test_convolutions_with_a_bias_keep_it():
    first, *_, last, _ = read(ConvDense(bias=True), 1, 8, 5).checkpoint.config.layers
    assert (first.bias, last.bias) == ("conv.bias", "back.bias")


def test_convolutions_and_reshapes_around_a_dense_code_pass_in_every_runtime(tmp_path: Path):
    torch.manual_seed(1)
    build(ConvDense(bias=False), tmp_path / "b.tied", input_shape=(1, 8, 5), target=())
    bundle = open_bundle(tmp_path / "b.tied")
    ops = [layer.op for layer in bundle.manifest.stage("autoencoder").layers]
    assert ops == [
        "conv", "relu", "reshape", "dense", "dense", "relu", "reshape", "conv_transpose", "sigmoid",
    ]  # fmt: skip
    assert {tie.weight for tie in bundle.manifest.ties} == {"conv.weight", "dense.weight"}
    assert bundle.manifest.stage("encoder").outputs[0].element_shape == (5,)
    result = verify(bundle)
    assert result.passed
    assert sum(row.status == "passed" for row in result.comparisons) >= 3 * 3 * 2


# Names.


class Awkward(nn.Module):
    """Submodules named as the methods and attributes of our own module."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode, self.ties = nn.Linear(9, 6), nn.Linear(6, 9), nn.Linear(3, 3)
        self.decode.weight = nn.Parameter(self.encode.weight.detach().t().contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x).relu())


def test_names_that_our_module_needs_itself_are_changed_and_unused_parameters_named():
    module = Awkward()
    module.ties.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    brought = read(module, 9)
    assert "tied again: decode.weight is encode.weight, transposed" in brought.notes
    assert set(brought.checkpoint.state) == {"encode_.weight", "encode_.bias", "decode_.bias"}
    assert "left out, as nothing uses them: ties.weight, ties.bias" in brought.notes
    assert brought.checkpoint.module().ties[0].weight == "encode_.weight"
    assert layers_of(brought) == ["dense", "relu", "dense"]
    assert (module.training, module.decode.training, module.ties.training) == (True, True, False)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_samples_of_a_file_are_the_golden_inputs(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 3), np.uint8)
    np.save(tmp_path / "x.npy", images)
    module = Awkward()
    build(module, tmp_path / "b.tied", input_shape=9, samples=tmp_path / "x.npy", target=())
    golden = open_bundle(tmp_path / "b.tied").golden["input"]
    expected = images[: len(golden)].reshape(-1, 9) / np.float32(255)
    np.testing.assert_array_equal(golden, expected)
