"""Modules that no bundle can be built from, each for a reason of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """A sound one, for others to spoil."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(9, 6), nn.Linear(6, 9)

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class Normalised(Autoencoder):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def encode(self, x: Tensor) -> Tensor:
        return self.norm(self.encoder(x))


class Residual(Autoencoder):
    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z + torch.tanh(z))


class Attention(nn.Module):
    """Scores from the product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.out = nn.Linear(9, 9), nn.Linear(9, 9)

    def encode(self, x: Tensor) -> Tensor:
        q = self.query(x)
        return torch.softmax(q @ q.t(), dim=-1) @ q

    def decode(self, z: Tensor) -> Tensor:
        return self.out(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class LanguageModel(nn.Module):
    """A tied embedding and head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embedding(tokens))


class Sequence(Autoencoder):
    """Dense layers over an axis of a sequence: no Gemm."""


class OtherForward(Autoencoder):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.decode(self.encode(x)))


class Pair(Autoencoder):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder(x), self.encoder(x)


class Classifier(Autoencoder):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(6, 2)


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.back = nn.ConvTranspose2d(4, 2, 3, padding=1)

    def encode(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.back(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class Lines(Grouped):
    """Convolutions over one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3, padding=1)
        self.back = nn.ConvTranspose1d(4, 2, 3, padding=1)


class Branching(Autoencoder):
    """What it does depends on its input, which no graph says."""

    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(self.encoder(x)) if x.sum() > 0 else self.encoder(x)


class Weightless(Autoencoder):
    def encode(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.encoder(z))


def half() -> nn.Module:
    return Autoencoder().half()


def double() -> nn.Module:
    return Autoencoder().double()


def meta() -> nn.Module:
    return Autoencoder().to("meta")


def infinite() -> nn.Module:
    module = Autoencoder()
    with torch.no_grad():
        module.decoder.weight[2, 3] = torch.inf
    return module


def raising() -> nn.Module:
    raise RuntimeError("no such file: weights.pt")


def empty() -> nn.Module:
    return nn.Identity()


instance = Autoencoder()
