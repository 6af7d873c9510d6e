"""The five ways in which the PyTorch community ties an autoencoder, as small real modules.

`FIVE_WAYS[name](widths, bias)` makes one; `five_ways:functional` and so on are factories without
arguments, for commands that take `package.module:factory`. Every module has `input_shape`,
`encode`, `decode` and `forward`, and computes the same from the same weights.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTHS = (20, 13, 7)


def _bias(width: int, bias: bool) -> nn.Parameter | None:
    return nn.Parameter(torch.randn(width) / 10) if bias else None


def _weight(width_out: int, width_in: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(width_out, width_in) / width_in**0.5)


class Functional(nn.Module):
    """1: one Parameter, and the functional form for its transpose."""

    def __init__(self, width_in: int, width_out: int, bias: bool) -> None:
        super().__init__()
        self.weight = _weight(width_out, width_in)
        self.encoder_bias = _bias(width_out, bias)
        self.decoder_bias = _bias(width_in, bias)

    def encode(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.encoder_bias)

    def decode(self, z: Tensor) -> Tensor:
        return nn.functional.linear(z, self.weight.t(), self.decoder_bias)


class Transposed(nn.Module):
    """A dense layer by the transpose of the Parameter that it is given."""

    def __init__(self, weight: nn.Parameter, bias: bool) -> None:
        super().__init__()
        self.weight = weight
        self.bias = _bias(weight.shape[1], bias)

    def forward(self, z: Tensor) -> Tensor:
        return nn.functional.linear(z, self.weight.t(), self.bias)


class SharedParameter(nn.Module):
    """2: two modules that hold one Parameter, each under a name of its own."""

    def __init__(self, width_in: int, width_out: int, bias: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(width_in, width_out, bias)
        self.decoder = Transposed(self.encoder.weight, bias)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


class MirrorLinear(nn.Module):
    """The mirror of a dense layer: asks it for its weight and has a bias of its own."""

    def __init__(self, mirrored: nn.Linear, bias: bool) -> None:
        super().__init__()
        self.mirrored = mirrored
        self.bias = _bias(mirrored.in_features, bias)

    def forward(self, z: Tensor) -> Tensor:
        return nn.functional.linear(z, self.mirrored.weight.t(), self.bias)


class Mirrored(nn.Module):
    """3: a mirror layer that holds the other's weight and a bias of its own."""

    def __init__(self, width_in: int, width_out: int, bias: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(width_in, width_out, bias)
        self.decoder = MirrorLinear(self.encoder, bias)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


class LinearAndFunctional(nn.Module):
    """4: nn.Linear for the encoder, and the functional form with its weight for the decoder."""

    def __init__(self, width_in: int, width_out: int, bias: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(width_in, width_out, bias)
        self.decoder_bias = _bias(width_in, bias)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        return nn.functional.linear(z, self.encoder.weight.t(), self.decoder_bias)


class TransposeOf(nn.Module):
    """A parametrization: the weight is another layer's, transposed."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = (layer,)  # in a tuple: its Parameters get no second name here

    def forward(self) -> Tensor:
        return self.layer[0].weight.t()

    def right_inverse(self, weight: Tensor) -> tuple[()]:
        """Nothing to keep, so that no dead Parameter named `original` is left behind."""
        return ()


class Parametrized(nn.Module):
    """5: two off-the-shelf layers, tied through torch.nn.utils.parametrize."""

    def __init__(self, width_in: int, width_out: int, bias: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(width_in, width_out, bias)
        self.decoder = nn.Linear(width_out, width_in, bias)
        parametrize.register_parametrization(self.decoder, "weight", TransposeOf(self.encoder))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


Layer = Functional | SharedParameter | Mirrored | LinearAndFunctional | Parametrized


class Stack(nn.Module):
    """Tied layers, outermost first, with ReLU between them and a sigmoid at the end."""

    def __init__(self, layer: type[Layer], widths: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        self.input_shape = (widths[0],)
        self.layers = nn.ModuleList(layer(*pair, bias) for pair in pairwise(widths))

    def encode(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer.encode(x))
        return x

    def decode(self, z: Tensor) -> Tensor:
        outermost, *inner = self.layers
        for layer in reversed(inner):
            z = torch.relu(layer.decode(z))
        return torch.sigmoid(outermost.decode(z))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def functional(widths: tuple[int, ...] = WIDTHS, bias: bool = True) -> nn.Module:
    return Stack(Functional, widths, bias)


def shared_parameter(widths: tuple[int, ...] = WIDTHS, bias: bool = True) -> nn.Module:
    return Stack(SharedParameter, widths, bias)


def mirror_linear(widths: tuple[int, ...] = WIDTHS, bias: bool = True) -> nn.Module:
    return Stack(Mirrored, widths, bias)


def linear_and_functional(widths: tuple[int, ...] = WIDTHS, bias: bool = True) -> nn.Module:
    return Stack(LinearAndFunctional, widths, bias)


def parametrized(widths: tuple[int, ...] = WIDTHS, bias: bool = True) -> nn.Module:
    return Stack(Parametrized, widths, bias)


FIVE_WAYS: dict[str, Callable[..., nn.Module]] = {
    "functional": functional,
    "shared_parameter": shared_parameter,
    "mirror_linear": mirror_linear,
    "linear_and_functional": linear_and_functional,
    "parametrized": parametrized,
}
"""Name → factory(widths=WIDTHS, bias=True)."""
