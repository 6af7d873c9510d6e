"""Modules of every kind that strangers write, each with one tie or an obstacle to its proof."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

F = nn.functional


class Tied(nn.Module):
    """One Parameter, used twice; what the strangers below vary."""

    input_shape = (12,)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 12))

    def forward(self, x: Tensor) -> Any:
        return F.linear(torch.tanh(F.linear(x, self.weight)), self.weight.t())


class Convolutions(nn.Module):
    input_shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.3)
        self.decoder = nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.dropout(torch.relu(self.norm(self.encoder(x)))))


class FunctionalConvolution(Convolutions):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = None

    def forward(self, x: Tensor) -> Tensor:
        code = self.dropout(torch.relu(self.norm(self.encoder(x))))
        return F.conv_transpose2d(code, self.encoder.weight, None, 2, 1, output_padding=1)


class LanguageModel(nn.Module):
    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 50, bias=False)
        if tie:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> dict[str, Any]:
        return {"logits": self.head(self.layers(self.embedding(tokens))), "loss": None}


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grad @ weight, grad.t() @ x


class CustomFunction(Tied):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(Product.apply(x, self.weight)), self.weight.T)


class WrongFunction(Product):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grad @ weight, 2 * grad.t() @ x


class WrongGradient(Tied):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(WrongFunction.apply(x, self.weight)), self.weight.T)


class Checkpointed(Tied):
    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=self.reentrant)


class Reentrant(Checkpointed):
    reentrant = True


class Stateful(Tied):
    """Counts, logs, replaces a buffer, writes into another, draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.log = 0, []
        self.register_buffer("replaced", torch.zeros(1))
        self.register_buffer("written", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.log.append(x)
        self.replaced = self.replaced + 1
        self.written.add_(1)
        return super().forward(x + torch.rand_like(x))


class Mixed(Tied):
    """Casts, constants in float32, an autocast region."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            z = F.linear(x.float(), self.weight.to(torch.float32))
        return F.linear(z.half() * torch.ones(5, dtype=torch.float32), self.weight.t())


class WeightNormed(nn.Module):
    input_shape = (12,)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = parametrizations.weight_norm(nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encoder(x)), self.encoder.weight.t())


class Record:
    """An output of a class of one's own, which leads back to itself."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.again = logits, [self]


class Recorded(Tied):
    def forward(self, x: Tensor) -> Record:
        return Record(super().forward(x))


class Cyclic(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Module()
        self.child.parent = self


class Repeated(nn.Module):
    """One layer three times: a tie in depth."""

    input_shape = (6,)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return x


class Attention(nn.Module):
    """One layer of attention twice, as ALBERT has it; softmax cancels the bias of its keys."""

    input_shape = (7, 12)

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x + F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
        return x


class Returned(Tied):
    """Hands out the weight itself, for a penalty."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.linear(x, self.weight), self.weight


class Raises(Tied):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no such thing")


class Nothing(Tied):
    def forward(self, x: Tensor) -> None:
        return None


class Locked(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
