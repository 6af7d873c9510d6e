"""The exporters of torch on tied modules, in one file or encoder and decoder in one each."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGE, SMALL = (88, 96), (48, 53)
"""8,448 and 2,544 elements: the dynamo exporter folds up to 8,192."""


class Autoencoder(nn.Module):
    """Two uses of one Parameter; without biases the TorchScript exporter writes MatMuls."""

    def __init__(self, code: int, features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(code, features) / 10)
        self.code_bias = nn.Parameter(torch.randn(code)) if bias else None
        self.bias = nn.Parameter(torch.randn(features)) if bias else None

    def encode(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.code_bias).relu()

    def decode(self, z: Tensor) -> Tensor:
        return functional.linear(z, self.weight.t(), self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class ConvAutoencoder(nn.Module):
    """One kernel in a convolution and in its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 8, 3, 3) / 10)

    def encode(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, stride=2, padding=1).relu()

    def decode(self, z: Tensor) -> Tensor:
        same_size = {"stride": 2, "padding": 1, "output_padding": 1}
        return functional.conv_transpose2d(z, self.weight, **same_size)


class Called(nn.Module):
    """A module whose forward calls something else of another."""

    def __init__(self, module: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(self.module, *inputs)


def _export(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, **options: Any) -> Path:
    # What keeps dynamo quiet is no option of the other exporter.
    quiet = {"verbose": False} if options["dynamo"] else {}
    with _quiet():
        torch.onnx.export(module.eval(), inputs, path, **quiet, **options)
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves deprecations inside torch and transformers to their authors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)  # "torchvision is not installed"
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _whole(
    folder: Path, shape: tuple[int, int] = LARGE, *, bias: bool = True, **options: Any
) -> list[Path]:
    torch.manual_seed(0)
    module = Autoencoder(*shape, bias=bias)
    return [_export(module, (torch.rand(3, shape[1]),), folder / "whole.onnx", **options)]


def _halves(folder: Path, **options: Any) -> list[Path]:
    torch.manual_seed(0)
    module = Autoencoder(*LARGE)
    encoder, decoder = Called(module, Autoencoder.encode), Called(module, Autoencoder.decode)
    x, z = torch.rand(3, LARGE[1]), torch.rand(3, LARGE[0])
    return [
        _export(encoder, (x,), folder / "encoder.onnx", **options),
        _export(decoder, (z,), folder / "decoder.onnx", **options),
    ]


def _conv_halves(folder: Path, **options: Any) -> list[Path]:
    torch.manual_seed(0)
    module = ConvAutoencoder()
    encoder = Called(module, ConvAutoencoder.encode)
    decoder = Called(module, ConvAutoencoder.decode)
    return [
        _export(encoder, (torch.rand(2, 8, 10, 10),), folder / "encoder.onnx", **options),
        _export(decoder, (torch.rand(2, 12, 5, 5),), folder / "decoder.onnx", **options),
    ]


def _gpt2() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 150, "n_positions": 16, "n_embd": 64, "n_layer": 1, "n_head": 2}
    config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=1, attn_implementation="eager")

    def logits(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
        return model(input_ids=tokens, attention_mask=mask, use_cache=False).logits

    tokens = torch.arange(16).reshape(2, 8)
    return Called(GPT2LMHeadModel(config), logits), (tokens, torch.ones_like(tokens))


def _t5() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 150, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 1}
    config = T5Config(**sizes, num_heads=4, attn_implementation="eager")

    def logits(model: nn.Module, tokens: Tensor, begun: Tensor) -> Tensor:
        return model(input_ids=tokens, decoder_input_ids=begun, use_cache=False).logits

    tokens = torch.arange(16).reshape(2, 8)
    return Called(T5ForConditionalGeneration(config), logits), (tokens, tokens)


@cache
def _exported(make: Callable[[], tuple[nn.Module, tuple[Tensor, ...]]], dynamo: bool) -> bytes:
    """The file of a language model, made once: importing and exporting one takes seconds."""
    with TemporaryDirectory() as folder, _quiet():
        torch.manual_seed(0)
        module, inputs = make()
        path = Path(folder, "model.onnx")
        return _export(module, inputs, path, dynamo=dynamo, external_data=False).read_bytes()


def language_model(folder: Path, name: str = "GPT-2", *, dynamo: bool = True) -> list[Path]:
    """A tiny GPT-2 or T5 with random weights, its embedding tied to its head."""
    path = folder / "model.onnx"
    path.write_bytes(_exported({"GPT-2": _gpt2, "T5": _t5}[name], dynamo))
    return [path]


_DYNAMO, _TORCHSCRIPT = "torch.onnx dynamo", "torch.onnx TorchScript"
_CONV_HALVES = "Conv encoder and ConvTranspose decoder"

EXPORTS: dict[tuple[str, str], Callable[[Path], list[Path]]] = {
    (_DYNAMO, "autoencoder of 8,448 elements"): partial(_whole, dynamo=True),
    (_DYNAMO, "autoencoder of 2,544 elements"): partial(_whole, shape=SMALL, dynamo=True),
    (_DYNAMO, "encoder and decoder"): partial(_halves, dynamo=True),
    (_DYNAMO, _CONV_HALVES): partial(_conv_halves, dynamo=True),
    (_DYNAMO, "GPT-2"): language_model,
    (_DYNAMO, "T5"): partial(language_model, name="T5"),
    (f"{_DYNAMO}, optimize=False", "autoencoder of 2,544 elements"): partial(
        _whole, shape=SMALL, dynamo=True, optimize=False
    ),
    (f"{_DYNAMO}, optimize=False", "encoder and decoder"): partial(
        _halves, dynamo=True, optimize=False
    ),
    (_TORCHSCRIPT, "autoencoder of 8,448 elements"): partial(_whole, dynamo=False),
    (_TORCHSCRIPT, "autoencoder without biases"): partial(_whole, bias=False, dynamo=False),
    (_TORCHSCRIPT, "encoder and decoder"): partial(_halves, dynamo=False),
    (_TORCHSCRIPT, _CONV_HALVES): partial(_conv_halves, dynamo=False),
    (_TORCHSCRIPT, "GPT-2"): partial(language_model, dynamo=False),
    (_TORCHSCRIPT, "T5"): partial(language_model, name="T5", dynamo=False),
    (f"{_TORCHSCRIPT}, do_constant_folding=False", "autoencoder without biases"): partial(
        _whole, bias=False, dynamo=False, do_constant_folding=False
    ),
}
"""(Exporter, what it exports) → writes the file or files."""
