"""Uses of a weight that bypass torch are told from gradients that somebody made on purpose."""

from __future__ import annotations

import ctypes
import warnings
from functools import cache
from typing import TYPE_CHECKING

import mistaken_ties
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tiedexport import ties
from tiedexport.errors import TieBrokenError

F = nn.functional

if TYPE_CHECKING:
    from collections.abc import Callable


def by_pointer(weight: Tensor) -> Tensor:
    number = ctypes.c_double if weight.element_size() == 8 else ctypes.c_float
    pointer = ctypes.cast(weight.data_ptr(), ctypes.POINTER(number))
    return torch.from_numpy(np.ctypeslib.as_array(pointer, tuple(weight.shape)).copy())


HIDDEN = {
    "a list": lambda weight: torch.tensor(weight.tolist()),
    "an array": lambda weight: torch.from_numpy(np.asarray(weight.detach()).copy()),
    "dlpack": lambda weight: torch.from_dlpack(weight.detach()).clone(),
    "a number": lambda weight: weight * float(weight[0, 0].detach()),
    "a pointer": by_pointer,
}


@pytest.mark.parametrize(
    ("way", "uses"), [*((way, 1) for way in HIDDEN), ("a list", 0), ("a list", 2)]
)
def test_a_use_that_torch_does_not_see_is_named(way: str, uses: int) -> None:
    class Hidden(mistaken_ties._FunctionalDecoder):
        def forward(self, x: Tensor) -> Tensor:
            z = x[:, :5] + sum(torch.tanh(self.encoder(x)) for _ in range(uses))
            return F.linear(z, HIDDEN[way](self.encoder.weight).t(), self.decoder_bias)

    (finding,) = [one for one in ties.findings(Hidden()) if one.breaks_now]
    assert finding.kind == "a use that torch does not see"
    assert "encoder.weight" in finding.where
    assert way == "a pointer" or "test_unseen.py:" in finding.where
    if uses:
        with pytest.raises(TieBrokenError, match="not the slope of the output"):
            ties.assert_tied(Hidden(), "encoder.weight")


def straight_through(z: Tensor) -> Tensor:
    return z + (torch.round(z) - z).detach()


def logged(encoder: nn.Linear, x: Tensor) -> Tensor:
    return straight_through(encoder(x)) + 0 * len(encoder.weight.detach().numpy())


def clamped(encoder: nn.Linear, x: Tensor) -> Tensor:
    encoder.weight.data.clamp_(-0.1, 0.1)
    return encoder(x)


@cache
def traced() -> Callable[[Tensor, Tensor], Tensor]:
    """What autograd alone sees."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what people have
        return torch.jit.trace(lambda z, weight: z @ weight, (torch.rand(1, 5), torch.rand(5, 12)))


SEEN = {
    "straight through": lambda encoder, x: straight_through(encoder(x)),
    "stopped": lambda encoder, x: encoder(x).detach() + encoder(x),
    "logged": logged,
    "random": lambda encoder, x: encoder(x) * float(np.random.default_rng().random()),
    "clamped": clamped,
    "traced": lambda encoder, x: traced()(encoder(x), encoder.weight),
}


@pytest.mark.parametrize("way", SEEN)
def test_a_gradient_of_ones_own_is_no_hidden_use(way: str) -> None:
    class Seen(mistaken_ties._FunctionalDecoder):
        def forward(self, x: Tensor) -> Tensor:
            return SEEN[way](self.encoder, x)

    assert not [one for one in ties.findings(Seen()) if one.breaks_now]


def test_only_the_weight_with_the_hidden_use_is_named() -> None:
    class Both(mistaken_ties.ThroughNumpy):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(straight_through(self.before(x)))

        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(12, 12)

    (finding,) = [one for one in ties.findings(Both()) if one.breaks_now]
    assert "encoder.weight" in finding.where
