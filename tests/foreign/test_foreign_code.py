"""Equal weights of two Parameters are tied again; the code is found, or asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tiedexport.errors import GraphError
from tiedexport.foreign import checkpoint
from tiedexport.foreign.brought import Asked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from tiedexport.foreign.brought import Brought

pytestmark = pytest.mark.usefixtures("quick_export")


def read(module: nn.Module, *shape: int) -> Brought:
    return checkpoint(module, Asked(input_shape=shape))


# Weights in two Parameters.


class Separate(nn.Module):
    """Two dense layers; `change` makes the second weight from the first."""

    def __init__(self, change: Callable[[Tensor], Tensor], width: int = 6) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(9, width), nn.Linear(width, 9)
        self.decoder.weight = nn.Parameter(change(self.encoder.weight.detach()))

    def encode(self, x: Tensor) -> Tensor:
        return torch.tanh(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encode(x)
        return self.decode(z), z


def nudged(weight: Tensor) -> Tensor:
    turned = weight.t().contiguous()
    turned[3, 2] = torch.nextafter(turned[3, 2], torch.tensor(2.0))
    return turned


@pytest.mark.parametrize("change", [lambda w: w.t().contiguous(), lambda w: w.t()])
def test_a_weight_that_was_copied_is_tied_again(change, tmp_path: Path):
    brought = read(Separate(change), 9)
    assert "tied again: decoder.weight is encoder.weight, transposed" in brought.notes
    assert set(brought.checkpoint.state) == {"encoder.weight", "encoder.bias", "decoder.bias"}
    (tie,) = brought.checkpoint.module().ties
    assert tie.weight == "encoder.weight"


def test_a_square_parameter_of_the_same_memory_turned_is_a_transpose_not_the_same():
    brought = read(Separate(lambda w: w.t(), width=9), 9)
    assert "tied again: decoder.weight is encoder.weight, transposed" in brought.notes


def test_weights_that_differ_in_one_bit_are_never_tied():
    brought = read(Separate(nudged), 9)
    assert "no weight is tied" in brought.notes
    assert {"encoder.weight", "decoder.weight"} <= set(brought.checkpoint.state)


def test_weights_equal_by_chance_are_never_tied():
    brought = read(Separate(lambda w: torch.ones(9, 6)), 9)
    assert "decoder.weight" in brought.checkpoint.state


# The code.


class ForwardOnly(nn.Module):
    """Its forward alone, so that the code has to be found."""

    def __init__(self, module: nn.Module, pair: bool) -> None:
        super().__init__()
        self.inner, self._pair = module, pair

    def forward(self, x: Tensor) -> Any:
        reconstruction, code = self.inner(x)
        return (reconstruction, code) if self._pair else reconstruction


def test_a_forward_that_returns_the_code_as_well_tells_it_even_where_nothing_is_tied():
    brought = read(ForwardOnly(Separate(nudged), pair=True), 9)
    assert brought.checkpoint.config.encoder_layers == 2
    assert not any(note.startswith("code:") for note in brought.notes)


def test_without_ties_or_methods_the_code_cannot_be_found_and_the_error_says_what_to_provide():
    with pytest.raises(GraphError, match="the code cannot be found") as caught:
        read(ForwardOnly(Separate(nudged), pair=False), 9)
    assert "encode and decode methods" in str(caught.value.hint)


def test_of_nested_ties_the_innermost_marks_the_code():
    weights = [nn.Parameter(torch.randn(n, m)) for m, n in ((9, 7), (7, 5), (5, 3))]

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList(weights)

        def forward(self, x: Tensor) -> Tensor:
            for weight in self.weights:
                x = torch.relu(functional.linear(x, weight))
            for weight in reversed(self.weights):
                x = torch.sigmoid(functional.linear(x, weight.t()))
            return x

    brought = read(Nested(), 9)
    config = brought.checkpoint.config
    assert config.encoder_layers == 6
    assert config.layers[6].weight == "weights.2"
    assert len(brought.checkpoint.module().ties) == 3
