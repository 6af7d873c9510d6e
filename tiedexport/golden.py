"""Golden pairs: reference inputs and what the model makes of them in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from tiedexport.families import TiedStack

INPUT, CODE, RECONSTRUCTION = "input", "code", "reconstruction"
"""Names of the tensors between stages, in every graph, engine and golden file."""

_FEWEST, _MOST = 2, 32
_SHARE_OF_WEIGHTS = 0.01
_MOST_PRODUCTS = 1 << 28
"""Samples times parameters: deriving the bound of a large layer takes some twenty passes each."""


def golden_pairs(
    module: TiedStack, samples: torch.Tensor, weight_bytes: int
) -> dict[str, np.ndarray]:
    """Tensor name → values for a few samples, evaluated by torch in float64.

    The decoder's golden input is the golden code, so that one reconstruction serves as the golden
    output of decoder and autoencoder. The number of samples keeps the file near one per cent of
    the bundle's weights, and small where the model is large.

    Args:
        module: the model in float64.
        samples: [n, *input_shape] float32, at least one.
        weight_bytes: size of all the bundle's weight files.

    Returns:
        `input` [k, *input_shape] float32, `code` and `reconstruction` float64.
    """
    with torch.no_grad():
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
