"""Autoencoders that tie their weights by mistake, one class a mistake."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

F = nn.functional


class TwoLinears(nn.Module):
    """What most of them start from."""

    input_shape = (12,)
    code = 5

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(*self.input_shape, self.code)
        self.decoder = nn.Linear(self.code, *self.input_shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


class ParameterOfTranspose(TwoLinears):
    def __init__(self) -> None:
        super().__init__()
        self.decoder.weight = nn.Parameter(self.encoder.weight.t())


class DataAssignment(TwoLinears):
    def __init__(self) -> None:
        super().__init__()
        self.decoder.weight.data = self.encoder.weight.data.t()


class ClonedOnce(TwoLinears):
    """Equal at first, and two weights from the first step on."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder.weight = nn.Parameter(self.encoder.weight.detach().t().clone())


class OneSideFrozen(TwoLinears):
    def __init__(self) -> None:
        super().__init__()
        self.decoder.weight = nn.Parameter(self.encoder.weight.t(), requires_grad=False)


class FrozenClone(TwoLinears):
    def __init__(self) -> None:
        super().__init__()
        self.decoder.weight = nn.Parameter(
            self.encoder.weight.detach().t().clone(), requires_grad=False
        )


class _FunctionalDecoder(nn.Module):
    input_shape = (12,)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(12, 5)
        self.decoder_bias = nn.Parameter(torch.randn(12))


class DetachedBuffer(_FunctionalDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("decoder_weight", self.encoder.weight.detach().t())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encoder(x)), self.decoder_weight, self.decoder_bias)


class DetachedAttribute(_FunctionalDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.decoder_weight = self.encoder.weight.detach().t()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encoder(x)), self.decoder_weight, self.decoder_bias)


class ViewTakenOnce(_FunctionalDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.decoder_weight = self.encoder.weight.t()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encoder(x)), self.decoder_weight, self.decoder_bias)


class DetachedInForward(_FunctionalDecoder):
    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.encoder(x))
        return F.linear(z, self.encoder.weight.detach().t(), self.decoder_bias)


class DataInForward(_FunctionalDecoder):
    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.encoder(x))
        return F.linear(z, self.encoder.weight.data.t(), self.decoder_bias)


class NoGradInForward(_FunctionalDecoder):
    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.encoder(x))
        with torch.no_grad():
            weight = self.encoder.weight.t()
        return F.linear(z, weight, self.decoder_bias)


class ThroughNumpy(_FunctionalDecoder):
    """Computes with the weight where torch does not see it."""

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.encoder(x))
        weight = torch.from_numpy(self.encoder.weight.detach().numpy().T.copy())
        return F.linear(z, weight, self.decoder_bias)


class TransposeOf(nn.Module):
    """A parametrization without right_inverse: the replaced weight stays as a Parameter."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = (layer,)

    def forward(self, original: Tensor) -> Tensor:
        return self.layer[0].weight.t()


class DeadOriginal(TwoLinears):
    def __init__(self) -> None:
        super().__init__()
        parametrize.register_parametrization(self.decoder, "weight", TransposeOf(self.encoder))


class DeadWeight(TwoLinears):
    """The functional form with the bias of a layer whose own weight nobody reads."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encoder(x)), self.encoder.weight.t(), self.decoder.bias)


class Closure(TwoLinears):
    """A function that remembers the encoder of the module that made it."""

    def __init__(self) -> None:
        super().__init__()
        encoder = self.encoder
        self.decoder_bias = nn.Parameter(torch.randn(12))
        self.decode = lambda z: F.linear(z, encoder.weight.t(), self.decoder_bias)
        self.decoder = None

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.tanh(self.encoder(x)))


class CachedTranspose(_FunctionalDecoder):
    """Keeps the transpose of the first forward pass."""

    cached: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.cached is None:
            self.cached = self.encoder.weight.t().contiguous()
        return F.linear(torch.tanh(self.encoder(x)), self.cached, self.decoder_bias)
