"""Golden pairs: reference inputs and what the model makes of them in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from tiedexport.families import StagedModule

INPUT, CODE, RECONSTRUCTION = "input", "code", "reconstruction"
"""Names of the tensors between stages, in every graph, engine and golden file."""

_FEWEST, _MOST = 2, 32
_SHARE_OF_WEIGHTS = 0.01
_BLOCK_BYTES = 16 << 20
_MOST_PRODUCTS = 1 << 28
"""Samples times parameters: deriving the bound of a large layer takes some twenty passes each."""


def golden_pairs(
    module: StagedModule, samples: torch.Tensor, weight_bytes: int
) -> dict[str, np.ndarray]:
    """Tensor name → values for a few samples, evaluated by torch in float64.

    The decoder's golden input is the golden code, so that one reconstruction serves as the golden
    output of decoder and autoencoder. The number of samples keeps the file near one per cent of
    the bundle's weights, and small where the model is large.

    Args:
        module: the model with float32 weights.
        samples: [n, *input_shape] float32, at least one.
        weight_bytes: size of all the bundle's weight files.

    Returns:
        `input` [k, *input_shape] float32, `code` and `reconstruction` float64.
    """
    with torch.no_grad(), _InFloat64():
        code = module.encode(samples[:1].double())
        sample_bytes = samples[0].numel() * (4 + 8) + code.numel() * 8
        parameters = sum(p.numel() for p in module.parameters())
        affordable = (_SHARE_OF_WEIGHTS * weight_bytes / sample_bytes, _MOST_PRODUCTS / parameters)
        chosen = samples[: max(int(min(*affordable, _MOST)), _FEWEST)]
        code = module.encode(chosen.double())
        reconstruction = module.decode(code)
    return {
        INPUT: np.ascontiguousarray(chosen.numpy()),
        CODE: code.numpy(),
        RECONSTRUCTION: reconstruction.numpy(),
    }


class _InFloat64(TorchFunctionMode):
    """Lets a float32 module compute on float64 inputs.

    Weights are widened where they are used, dense ones a block of rows at a time: a float64 copy
    of a large model would be the peak of a build's memory.
    """

    _CONVOLUTIONS = (functional.conv2d, functional.conv_transpose2d)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            return _linear_by_rows(*args, **kwargs)
        if func in self._CONVOLUTIONS:
            args = tuple(a.double() if isinstance(a, torch.Tensor) else a for a in args)
        return func(*args, **kwargs)


def _linear_by_rows(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    height, width = weight.shape
    result = x.new_zeros(len(x), height) if bias is None else bias.double().repeat(len(x), 1)
    # One buffer for all blocks: freeing and allocating them scatters the heap to the same size.
    buffer = x.new_empty(max(1, _BLOCK_BYTES // (8 * width)), width)
    for start in range(0, height, len(buffer)):
        rows = weight[start : start + len(buffer)]
        block = buffer[: len(rows)].copy_(rows)
        result[:, start : start + len(rows)] += functional.linear(x, block)
    return result
